"""The system calls of a run, by strace: listed, and struck at."""

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# What changes a disk, or brings it there. A name with `?` may be unknown to this architecture.
CHANGES = (
    "openat", "?open", "?creat", "?mkdir", "mkdirat", "?rename", "renameat", "renameat2", "?unlink", "unlinkat",
    "?rmdir", "ftruncate", "fallocate", "pwrite64", "write", "fsync", "fdatasync", "syncfs", "?chmod", "fchmod",
    "fchmodat", "utimensat", "?symlink", "symlinkat", "?link", "linkat",
)  # fmt: skip
_BEGUN = re.compile(r"(\d+) +(?:[\d.]+ )?(\w+)\((.*)")
_SIGNAL = re.compile(r"^\d+ +([\d.]+) --- (\w+) ", re.MULTILINE)
_EXIT = re.compile(r"^\d+ +([\d.]+) \+\+\+ ", re.MULTILINE)
_PATHS = re.compile(r'(?:AT_FDCWD|\d+)<(?P<fd>[^>]*)>|"(?P<name>(?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class SystemCall:
    """A system call.

    Attributes:
        thread: which one made it.
        name: of the call.
        nth: its number among this thread's calls of this name, from 1.
        args: as strace writes them; of a call that took its time, up to there.
        paths: the absolute paths that it is about.
        failed: whether it changed nothing.
        cut: whether it was never done, for the process was killed.
    """

    thread: int
    name: str
    nth: int
    args: str
    paths: tuple[str, ...]
    failed: bool
    cut: bool

    def paths_below(self, root: Path) -> tuple[str, ...]:
        """Its paths that are in a directory, or are the directory itself, relative to it."""
        return tuple(Path(path).relative_to(root).as_posix() for path in self.paths if Path(path).is_relative_to(root))

    @property
    def changes_disk(self) -> bool:
        """Whether it is one that changes the disk or flushes it: not one that only opens a file to read."""
        return not self.failed and (self.name != "openat" or "O_CREAT" in self.args or "O_TRUNC" in self.args)


@functools.cache
def unavailable_reason() -> str:
    """Why there is no tracing here; empty if there is."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.decode().strip()}"


def strace_command(log: Path, *inject: str) -> list[str]:
    """What to put before a command; each `inject` is like `rename:signal=KILL:when=2` (strace(1), -e inject)."""
    strikes = [part for one in inject for part in ("-e", f"inject={one}")]
    # Where nothing is struck at, the kernel passes over the other calls. Signals cannot be injected that way.
    fast = [] if strikes else ["--seccomp-bpf"]
    told = ["-y", "-q", "-ttt", "-s", "0", "-o", str(log)]
    return ["strace", "-f", *fast, *told, "-e", f"trace={','.join(CHANGES)}", *strikes]


def read_calls(log: Path) -> list[SystemCall]:
    """The calls of a run, in the order of their beginning."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for line in log.read_text(errors="surrogateescape").splitlines():
        begun = _BEGUN.match(line)
        if begun is None:  # the end of a call that took its time, a signal, an exit
            continue
        thread, name, rest = begun.groups()
        counts[thread, name] = counts.get((thread, name), 0) + 1
        args, _, result = rest.rpartition(") ")
        args = args or rest
        failed, cut = result.lstrip().startswith("= -1"), result.lstrip().startswith("= ?")
        found.append(SystemCall(int(thread), name, counts[thread, name], args, _absolute_paths(args), failed, cut))
    return found


def seconds_to_exit(log: Path, signal: str) -> float | None:
    """Seconds from the first of these signals to the end of the last thread; None if none came."""
    text = log.read_text(errors="surrogateescape")
    came = [float(when) for when, name in _SIGNAL.findall(text) if name == signal]
    return max(map(float, _EXIT.findall(text))) - came[0] if came else None


def _absolute_paths(args: str) -> tuple[str, ...]:
    """Absolute paths: of descriptors, and of names, which are relative to the descriptor before them."""
    found: list[str] = []
    at = ""
    for part in _PATHS.finditer(args):
        if part["fd"] is not None:
            at = part["fd"]
            found.append(at)
        elif part["name"] and (at or part["name"].startswith("/")):  # else what a link says
            if found and found[-1] == at:
                found.pop()
            found.append(str(Path(at, part["name"])))
            at = ""
    return tuple(found)

"""System calls of a run, traced by strace, with fault injection."""

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Calls that change a disk or flush changes. A name with `?` may be unknown to this architecture.
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
    """One system call of one thread.

    Attributes:
        thread: id of the calling thread.
        name: of the call.
        nth: number among this thread's calls of equal name, from 1.
        args: as strace writes arguments; of an unfinished call, up to the interruption.
        paths: absolute paths among the arguments.
        failed: whether nothing changed.
        cut: whether the process was killed before the call.
    """

    thread: int
    name: str
    nth: int
    args: str
    paths: tuple[str, ...]
    failed: bool
    cut: bool

    def paths_below(self, root: Path) -> tuple[str, ...]:
        """Return the call's paths in a directory, relative to `root`; the directory itself is `.`."""
        return tuple(Path(path).relative_to(root).as_posix() for path in self.paths if Path(path).is_relative_to(root))

    @property
    def changes_disk(self) -> bool:
        """Return whether the call changes or flushes the disk; opening a file to read does not."""
        return not self.failed and (self.name != "openat" or "O_CREAT" in self.args or "O_TRUNC" in self.args)


@functools.cache
def unavailable_reason() -> str:
    """Return why tracing is unavailable here, or an empty string."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    trial = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if trial.returncode == 0 else f"strace may not trace here: {trial.stderr.decode().strip()}"


def strace_command(log: Path, *inject: str) -> list[str]:
    """Return the command prefix; each `inject` is like `rename:signal=KILL:when=2` (strace(1), -e inject)."""
    injections = [part for each in inject for part in ("-e", f"inject={each}")]
    # Without injection the kernel skips all other calls. Signals cannot be injected that way.
    fast = [] if injections else ["--seccomp-bpf"]
    output = ["-y", "-q", "-ttt", "-s", "0", "-o", str(log)]
    return ["strace", "-f", *fast, *output, "-e", f"trace={','.join(CHANGES)}", *injections]


def read_calls(log: Path) -> list[SystemCall]:
    """Return the calls of a run, in the order of their start."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for line in log.read_text(errors="surrogateescape").splitlines():
        begun = _BEGUN.match(line)
        if begun is None:  # the end of an interrupted call, a signal, an exit
            continue
        thread, name, rest = begun.groups()
        counts[thread, name] = counts.get((thread, name), 0) + 1
        args, _, result = rest.rpartition(") ")
        args = args or rest
        failed, cut = result.lstrip().startswith("= -1"), result.lstrip().startswith("= ?")
        found.append(SystemCall(int(thread), name, counts[thread, name], args, _absolute_paths(args), failed, cut))
    return found


def seconds_to_exit(log: Path, signal: str) -> float | None:
    """Return the seconds from the first such signal to the last thread's exit; None without a signal."""
    text = log.read_text(errors="surrogateescape")
    times = [float(when) for when, name in _SIGNAL.findall(text) if name == signal]
    return max(map(float, _EXIT.findall(text))) - times[0] if times else None


def _absolute_paths(args: str) -> tuple[str, ...]:
    """Return absolute paths: of descriptors, and of names relative to the descriptor before them."""
    found: list[str] = []
    at = ""
    for part in _PATHS.finditer(args):
        if part["fd"] is not None:
            at = part["fd"]
            found.append(at)
        elif part["name"] and (at or part["name"].startswith("/")):  # else the target of a symlink
            if found and found[-1] == at:
                found.pop()
            found.append(str(Path(at, part["name"])))
            at = ""
    return tuple(found)

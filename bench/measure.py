"""Takes the measure of one run: its cost, what else the machine did meanwhile, whether the right bytes are there."""

import hashlib
import json
import mmap
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.data import Object

_RUNNER = Path(__file__).with_name("runner.py")
_RECEIPTS = (".modelfetch.json",)  # the end of their names
_CALIBRATION = bytes(32 * 1024**2)
_TICKS = os.sysconf("SC_CLK_TCK")
_HOSTS = 2 * 1024**2  # bytes of a block that a host takes back
_SPARE = 1024**3  # bytes of memory made ready beside those of the files
_LEFT = 2 * 1024**3  # bytes of memory that are not taken for that


class RunError(Exception):
    """A tool failed, or did not bring what it should."""


@dataclass(frozen=True)
class Run:
    """What one run cost; seconds and bytes.

    Attributes:
        wall: from exec to exit.
        user, system: CPU of the process and of those it waited for.
        rss: peak of the largest of them.
        readable: wall, and reading all that came.
        requests: that the server saw.
        others: CPU seconds of all else on the machine but the server, per second and processor.
        calibration: seconds for a fixed piece of work right before.
    """

    wall: float
    user: float
    system: float
    rss: int
    readable: float
    requests: int
    others: float
    calibration: float

    @property
    def cpu(self) -> float:
        """User and system."""
        return self.user + self.system


def calibrate() -> float:
    """Seconds for a fixed piece of work, the best of three: they grow as soon as others want the processor."""

    def once() -> float:
        begun = time.perf_counter()
        hashlib.sha256(_CALIBRATION).digest()
        return time.perf_counter() - begun

    return min(once() for _ in range(3))


def busy() -> float:
    """CPU seconds that the machine has spent on anything, theft by its host included."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS  # without idle and iowait


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of its children, as far as they run."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for each in (str(pid), *children):
        words = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(words[11]) + int(words[12])) / _TICKS
    return total


def execute(command: str, env: Mapping[str, str], log: Path, timeout: float, cgroup: str = "-") -> dict[str, float]:
    """Run a command as `runner` does; bash is asked only where there is more than one program to start.

    Raises:
        RunError: it failed, or took too long.
    """
    several = any(sign in command for sign in (" && ", " | "))
    words = ["bash", "-o", "pipefail", "-c", command] if several else shlex.split(command)
    line = [sys.executable, "-I", "-S", str(_RUNNER), str(timeout), cgroup, *words]
    with log.open("wb") as sink:
        runner = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=sink, text=True)
        try:
            printed, _ = runner.communicate()
        finally:
            runner.terminate()  # with the command, if this is the end of all
            runner.wait()
    found: dict[str, float] = json.loads(printed)
    if found["status"]:
        why = f"was stopped after {timeout:.0f} s" if found["status"] == -9 and found["wall"] >= timeout else "failed"
        raise RunError(f"{why} (status {found['status']}): {log.read_text(errors='replace')[-1500:]}")
    return found


def read_back(folder: Path, log: Path) -> float:
    """Seconds to read every file once, as an app does that loads a model."""
    files = [str(path) for path in files_in(folder)]
    return execute(shlex.join(["cat", *files]), dict(os.environ), log, 600)["wall"]


def files_in(folder: Path) -> list[Path]:
    """What was brought, without receipts."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_RECEIPTS))


def check(folder: Path, expected: Sequence[Object], *, bytes_too: bool) -> None:
    """See that every object is there, by name and size, and by its sha256 if asked.

    Raises:
        RunError: something is missing, or other than it should be.
    """
    found = {path.name: path for path in files_in(folder)}
    wanted = {each.key.rsplit("/", 1)[-1]: each for each in expected}
    if found.keys() != wanted.keys():
        raise RunError(f"brought {sorted(found)[:5]} instead of {sorted(wanted)[:5]}")
    for name, each in wanted.items():
        if found[name].stat().st_size != each.size:
            raise RunError(f"{name} has {found[name].stat().st_size} bytes instead of {each.size}")
        if bytes_too:
            with found[name].open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != each.sha256:
                    raise RunError(f"{name} has other bytes than it should")


def settle(folder: Path) -> None:
    """Make the directory, and wait until the disk has nothing left to write."""
    folder.mkdir(parents=True, exist_ok=True)
    os.sync()


@contextmanager
def memory(size: int) -> Iterator[None]:
    """Have free memory ready for a run that writes `size` bytes, for as long as the block runs.

    Some hosts take back what memory a machine does not use, in blocks of 2 MiB, within seconds. Who writes to it next
    pays for each page, and the slower pay more. Of memory in which one page of each block is in use they take none.
    """
    length = ready(size, available_memory())
    if not length:
        yield
        return
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE  # the kernel writes each page
    with mmap.mmap(-1, length, flags=flags) as held:
        for start in range(0, length - _HOSTS + 1, _HOSTS):
            held.madvise(mmap.MADV_DONTNEED, start, _HOSTS - mmap.PAGESIZE)
        yield


def ready(size: int, available: int) -> int:
    """Bytes of memory to touch before a run that writes `size`; a part of the machine's memory is left alone."""
    return max(0, min(size + _SPARE, available - _LEFT))


def available_memory() -> int:
    """Bytes that programs could have without swapping."""
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 0


def empty(folder: Path) -> None:
    """Give the bytes of all files back, but keep the files: ext4 is slow to make new ones where many were removed."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)

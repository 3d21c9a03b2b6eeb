"""Measurement of a run: cost, load of other processes, and a check of the files."""

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

from bench.data import StoredObject

_RUNNER = Path(__file__).with_name("runner.py")
_RECEIPTS = (".modelfetch-receipt",)  # suffixes of receipts
_CALIBRATION = bytes(32 * 1024**2)
_TICKS = os.sysconf("SC_CLK_TCK")
_HOST_BLOCK = 2 * 1024**2  # bytes of a block taken back by a host
_SPARE_MEMORY = 1024**3  # bytes of memory made ready besides the files
_UNTOUCHED_MEMORY = 2 * 1024**3  # bytes of memory left alone


class RunError(Exception):
    """A tool failed, or its files are wrong."""


@dataclass(frozen=True)
class Run:
    """Cost of a run; seconds and bytes.

    Attributes:
        wall: from exec to exit.
        user, system: CPU of the process and of its waited-for children.
        rss: peak of the largest process.
        readable: wall plus reading all files back.
        requests: requests at the server.
        others: CPU seconds of all other processes except the server, per second and processor.
        calibration: seconds of a fixed piece of work right before.
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
        """Return the sum of user and system."""
        return self.user + self.system


def time_fixed_work() -> float:
    """Return the seconds of a fixed piece of work, the best of three: more when others use the processor."""

    def once() -> float:
        begun = time.perf_counter()
        hashlib.sha256(_CALIBRATION).digest()
        return time.perf_counter() - begun

    return min(once() for _ in range(3))


def machine_cpu_seconds() -> float:
    """Return the CPU seconds spent by the machine in all, steal time of its host included."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS  # without idle and iowait


def process_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its running children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for each in (str(pid), *children):
        words = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(words[11]) + int(words[12])) / _TICKS
    return total


def run_command(command: str, env: Mapping[str, str], log: Path, timeout: float, cgroup: str = "-") -> dict[str, float]:
    """Run a command through `runner.py`; bash starts only commands of several programs.

    Raises:
        RunError: the command failed or took too long.
    """
    several = any(sign in command for sign in (" && ", " | "))
    words = ["bash", "-o", "pipefail", "-c", command] if several else shlex.split(command)
    line = [sys.executable, "-I", "-S", str(_RUNNER), str(timeout), cgroup, *words]
    with log.open("wb") as sink:
        runner = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=sink, text=True)
        try:
            printed, _ = runner.communicate()
        finally:
            runner.terminate()  # with the command, if the bench ends
            runner.wait()
    found: dict[str, float] = json.loads(printed)
    if found["status"]:
        why = f"was stopped after {timeout:.0f} s" if found["status"] == -9 and found["wall"] >= timeout else "failed"
        raise RunError(f"{why} (status {found['status']}): {log.read_text(errors='replace')[-1500:]}")
    return found


def read_back(folder: Path, log: Path) -> float:
    """Return the seconds to read every file once, as an app does to load a model."""
    files = [str(path) for path in list_files(folder)]
    return run_command(shlex.join(["cat", *files]), dict(os.environ), log, 600)["wall"]


def list_files(folder: Path) -> list[Path]:
    """Return the fetched files without receipts."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_RECEIPTS))


def check_files(folder: Path, expected: Sequence[StoredObject], *, hash_files: bool) -> None:
    """Compare names and sizes of the files with the objects, and the sha256 if `hash_files`.

    Raises:
        RunError: a file is missing or wrong.
    """
    found = {path.name: path for path in list_files(folder)}
    expected_files = {each.key.rsplit("/", 1)[-1]: each for each in expected}
    if found.keys() != expected_files.keys():
        raise RunError(f"brought {sorted(found)[:5]} instead of {sorted(expected_files)[:5]}")
    for name, each in expected_files.items():
        if found[name].stat().st_size != each.size:
            raise RunError(f"{name} has {found[name].stat().st_size} bytes instead of {each.size}")
        if hash_files:
            with found[name].open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != each.sha256:
                    raise RunError(f"{name} has other bytes than it should")


def sync_disk(folder: Path) -> None:
    """Make the directory, and wait until the disk has written everything."""
    folder.mkdir(parents=True, exist_ok=True)
    os.sync()


@contextmanager
def hold_free_memory(size: int) -> Iterator[None]:
    """Hold free memory for a run that writes `size` bytes, until the block ends.

    Some hosts take back unused memory of a machine, in blocks of 2 MiB, within seconds. The next writer pays for each
    page, and slow writers pay more. A block with a single used page is not taken.
    """
    length = memory_to_touch(size, available_memory())
    if not length:
        yield
        return
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE  # the kernel writes each page
    with mmap.mmap(-1, length, flags=flags) as held:
        for start in range(0, length - _HOST_BLOCK + 1, _HOST_BLOCK):
            held.madvise(mmap.MADV_DONTNEED, start, _HOST_BLOCK - mmap.PAGESIZE)
        yield


def memory_to_touch(size: int, available: int) -> int:
    """Return the bytes of memory to touch before a run that writes `size`; a reserve stays untouched."""
    return max(0, min(size + _SPARE_MEMORY, available - _UNTOUCHED_MEMORY))


def available_memory() -> int:
    """Return the bytes available to programs without swapping."""
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 0


def truncate_files(folder: Path) -> None:
    """Truncate all files but keep the inodes: ext4 creates files slowly after many removals."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)

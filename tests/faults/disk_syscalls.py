"""Failing system calls: each call of a pull on its volume by turns, all calls of a kind, and unsupported calls."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.faults import disk_trial
from tests.faults.disk_trial import DiskCase, DiskVerdict, TrialSource, TrialVolume

# Errors of a disk by call. None may pass unnoticed, unless the call changed nothing or cleaned up.
ERRORS = {
    "openat": ("EIO", "ENOSPC", "EROFS"),
    "mkdir": ("ENOSPC", "EDQUOT", "EROFS"),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "pwrite64": ("ENOSPC", "EIO", "EDQUOT", "EROFS"),
    "pread64": ("EIO",),
    "read": ("EIO",),
    "fallocate": ("ENOSPC", "EDQUOT", "EFBIG", "EIO"),
    "ftruncate": ("EIO", "EROFS"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "fdatasync": ("EIO",),
    "syncfs": ("EIO", "ENOSPC", "EDQUOT"),
    "close": ("EIO", "ENOSPC", "EDQUOT"),
    "rename": ("EIO", "ENOSPC", "EROFS"),
    "renameat2": ("EIO", "ENOSPC", "EROFS"),
    "link": ("EIO", "ENOSPC"),
    "linkat": ("EIO", "ENOSPC"),
    "unlink": ("EIO", "EROFS"),
    "unlinkat": ("EIO", "EROFS"),
    "rmdir": ("EIO", "EROFS"),
    "mkdirat": ("ENOSPC", "EDQUOT", "EROFS", "EACCES"),
    "chmod": ("EPERM", "EROFS"),
    "fchmod": ("EPERM", "EROFS"),
    "fchmodat": ("EPERM", "EROFS"),
    "utimensat": ("EPERM", "EROFS", "EIO"),
    "flock": ("ENOLCK", "EOPNOTSUPP"),
    "statfs": ("EIO",),
    "getdents64": ("EIO",),
}
MAX_OCCURRENCES = 2  # failures per call and path, one at a time
_CALL = re.compile(r"\d+ +(\w+)\((.*)")


@dataclass(frozen=True)
class FailingCall:
    """A system call that fails.

    Attributes:
        call: the name of the call.
        error: the errno returned.
        path: relative to the volume; None for every path of the pull on the volume.
        occurrence: number of the call on the path, per thread, in the syntax of strace(1): `2`, `2+`.
        codes: the allowed exit codes.
    """

    call: str
    error: str
    path: str | None = None
    occurrence: str = "1"
    codes: tuple[int, ...] = (0, 73)

    @property
    def fault(self) -> str:
        """Return the name of the table's row."""
        return f"{self.error} from {self.call}, {'once' if self.path is not None else 'always'}"


# All calls of a kind: failures that no pull may survive, on any scenario.
ALWAYS = tuple(
    FailingCall(call, error, occurrence="1+", codes=(73,))
    for call in ("fsync", "pwrite64", "write", "mkdir", "rename", "ftruncate", "flock", "utimensat", "chmod", "statfs")
    for error in ERRORS[call]
) + tuple(FailingCall("unlinkat", error, occurrence="1+", codes=(0, 73)) for error in ERRORS["unlinkat"])
# Calls missing in old kernels and some file systems: a fallback exists.
UNSUPPORTED = (
    *(FailingCall("renameat2", error, occurrence="1+", codes=(0,)) for error in ("EINVAL", "ENOSYS", "EXDEV")),
    *(
        FailingCall("fallocate", error, occurrence="1+", codes=(0,))
        for error in ("EOPNOTSUPP", "ENOSYS", "EINVAL", "EPERM")
    ),
    *(FailingCall("linkat", error, occurrence="1+", codes=(0,)) for error in ("EPERM", "EOPNOTSUPP", "EMLINK")),
    *(FailingCall("link", error, occurrence="1+", codes=(0,)) for error in ("EPERM", "EOPNOTSUPP", "EMLINK")),
    *(FailingCall("syncfs", error, occurrence="1+", codes=(0,)) for error in ("ENOSYS", "EPERM")),
)


def list_calls(source: TrialSource, directory: Path) -> list[tuple[str, str, int]]:
    """Return the calls of an undisturbed pull on its volume: call, path and count, in the order of first occurrence."""
    with ExitStack() as stack:
        volume = source.make_volume(directory, stack)
        volume.lay_out()
        log = directory / "log"
        volume.cli.prefix = ["strace", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={','.join(ERRORS)}"]
        run = volume.run_pull()
        assert run.code == 0, run.stderr
        counts: Counter[tuple[str, str]] = Counter()
        within = re.compile(f'[<"]({re.escape(str(volume.path))}[^">]*)[">]')
        for line in log.read_text(errors="replace").splitlines():
            begun = _CALL.match(line)
            if begun and "ENOENT" not in line and (path := within.search(begun[2])):
                counts[begun[1], str(Path(path[1]).relative_to(volume.path))] += 1
    return [(call, path, count) for (call, path), count in counts.items()]


def fail_each_call(calls: Sequence[tuple[str, str, int]], turn: int) -> list[FailingCall]:
    """Return a failure of each call on each path; `turn` shifts the errors."""
    found: list[FailingCall] = []
    for call, path, count in calls:
        for nth in range(1, min(count, MAX_OCCURRENCES) + 1):
            errors = ERRORS[call]
            found.append(FailingCall(call, errors[(turn + len(found)) % len(errors)], path, str(nth)))
    return found


def try_failing_call(
    source: TrialSource, directory: Path, paths: Sequence[str], failing_call: FailingCall
) -> DiskVerdict:
    """Pull while a call fails, and judge; skipped if no such call was made."""
    log = directory.with_name(f"{directory.name}.log")
    chosen = paths if failing_call.path is None else [failing_call.path]
    case = DiskCase(failing_call.fault, partial(_inject_error, log, chosen, failing_call), failing_call.codes)
    verdict = disk_trial.run_trial(case, source, directory)
    if "INJECTED" not in log.read_text(errors="replace"):
        return replace(verdict, flaws=[], skip_reason=f"{failing_call} was never made")
    if verdict.flaws:
        verdict.flaws.append(str(failing_call))
    return verdict


def _inject_error(log: Path, paths: Sequence[str], failing_call: FailingCall, volume: TrialVolume) -> None:
    volume.lay_out()
    only = [word for path in paths for word in ("-P", str(volume.path / path))]
    injected = f"inject={failing_call.call}:error={failing_call.error}:when={failing_call.occurrence}"
    volume.cli.prefix = [
        "strace",
        "-f",
        "-qq",
        "-o",
        str(log),
        *only,
        "-e",
        f"trace={failing_call.call}",
        "-e",
        injected,
    ]
    volume.heal = volume.cli.prefix.clear

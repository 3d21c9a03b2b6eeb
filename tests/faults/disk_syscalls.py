"""System calls that fail: each that a pull makes on its volume, by turns; all of a kind; and those that may."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.faults import disk_trial
from tests.faults.disk_trial import Case, Ground, Place, Verdict

# What a disk may say to each call. None of it may pass unnoticed, unless the call was idle or tidied up.
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
    "chmod": ("EPERM", "EROFS"),
    "fchmodat": ("EPERM", "EROFS"),
    "utimensat": ("EPERM", "EROFS", "EIO"),
    "flock": ("ENOLCK", "EOPNOTSUPP"),
    "statfs": ("EIO",),
    "getdents64": ("EIO",),
}
MOST = 2  # times that a call on a path is let fail, one by one
_CALL = re.compile(r"\d+ +(\w+)\((.*)")


@dataclass(frozen=True)
class Strike:
    """A call that fails.

    Attributes:
        call: its name.
        error: what it says.
        path: relative to the volume; None for all that a pull touches there.
        when: which of the calls that each thread makes on it, as strace(1) has it: `2`, `2+`.
        codes: the exit codes that are right.
    """

    call: str
    error: str
    path: str | None = None
    when: str = "1"
    codes: tuple[int, ...] = (0, 73)

    @property
    def fault(self) -> str:
        """The table's row."""
        return f"{self.error} from {self.call}, {'once' if self.path is not None else 'always'}"


# All calls of a kind: what must never end well, whatever it is tried on.
ALWAYS = tuple(
    Strike(call, error, when="1+", codes=(73,))
    for call in ("fsync", "pwrite64", "write", "mkdir", "rename", "ftruncate", "flock", "utimensat", "chmod", "statfs")
    for error in ERRORS[call]
) + tuple(Strike("unlinkat", error, when="1+", codes=(0, 73)) for error in ERRORS["unlinkat"])
# What old kernels and some file systems do not have: there is another way.
LACKING = (
    *(Strike("renameat2", error, when="1+", codes=(0,)) for error in ("EINVAL", "ENOSYS", "EXDEV")),
    *(Strike("fallocate", error, when="1+", codes=(0,)) for error in ("EOPNOTSUPP", "ENOSYS", "EINVAL")),
    *(Strike("linkat", error, when="1+", codes=(0,)) for error in ("EPERM", "EOPNOTSUPP", "EMLINK")),
    *(Strike("link", error, when="1+", codes=(0,)) for error in ("EPERM", "EOPNOTSUPP", "EMLINK")),
    Strike("syncfs", "ENOSYS", when="1+", codes=(0,)),
)


def listed(ground: Ground, at: Path) -> list[tuple[str, str, int]]:
    """What an undisturbed pull calls on its volume: the call, the path, and how often, in the order of their coming."""
    with ExitStack() as stack:
        place = ground.place(at, stack)
        place.lay_out()
        log = at / "log"
        place.cli.prefix = ["strace", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={','.join(ERRORS)}"]
        run = place.pull()
        assert run.code == 0, run.stderr
        counts: Counter[tuple[str, str]] = Counter()
        within = re.compile(f'[<"]({re.escape(str(place.volume))}[^">]*)[">]')
        for line in log.read_text(errors="replace").splitlines():
            begun = _CALL.match(line)
            if begun and "ENOENT" not in line and (path := within.search(begun[2])):
                counts[begun[1], str(Path(path[1]).relative_to(place.volume))] += 1
    return [(call, path, count) for (call, path), count in counts.items()]


def each(calls: Sequence[tuple[str, str, int]], turn: int) -> list[Strike]:
    """Let each call on each path fail once; which error comes next depends on whose turn it is."""
    found: list[Strike] = []
    for call, path, count in calls:
        for nth in range(1, min(count, MOST) + 1):
            errors = ERRORS[call]
            found.append(Strike(call, errors[(turn + len(found)) % len(errors)], path, str(nth)))
    return found


def strike(ground: Ground, at: Path, paths: Sequence[str], one: Strike) -> Verdict:
    """Pull while a call fails, and judge; skipped if it was never made."""
    log = at.with_name(f"{at.name}.log")
    chosen = paths if one.path is None else [one.path]
    case = Case(one.fault, partial(_traced, log, chosen, one), one.codes)
    verdict = disk_trial.attempt(case, ground, at)
    if "INJECTED" not in log.read_text(errors="replace"):
        return replace(verdict, flaws=[], skipped=f"{one} was never made")
    if verdict.flaws:
        verdict.flaws.append(str(one))
    return verdict


def _traced(log: Path, paths: Sequence[str], one: Strike, place: Place) -> None:
    place.lay_out()
    only = [word for path in paths for word in ("-P", str(place.volume / path))]
    injected = f"inject={one.call}:error={one.error}:when={one.when}"
    place.cli.prefix = ["strace", "-f", "-qq", "-o", str(log), *only, "-e", f"trace={one.call}", "-e", injected]
    place.heal = place.cli.prefix.clear

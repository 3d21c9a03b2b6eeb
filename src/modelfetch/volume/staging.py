"""The staging area: a locked place on the destination's own file system, kept after a crash for the next run to resume.

`<home>/.modelfetch/` holds, for each destination, `<id>.lock` and `<id>/` with

    tree/          the files as they arrive
    parts.jsonl    what has arrived (journal.py)
    ours.json      while files are moved one by one: every path that is ours to replace or remove
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from modelfetch.errors import DestinationError
from modelfetch.volume.filesystem import disk_errors, make_directory
from modelfetch.volume.resume_journal import ResumeJournal

try:
    import fcntl
except ImportError:  # Windows: no lock, the last of two pulls wins
    fcntl = None  # type: ignore[assignment]

AREA = ".modelfetch"


class StagingArea(NamedTuple):
    """One destination's part of the staging area, locked."""

    work: Path

    @property
    def tree(self) -> Path:
        """Where the model is put together."""
        return self.work / "tree"

    @property
    def scratch(self) -> Path:
        """Room for a file that is not part of the model."""
        return self.work / "scratch"

    @property
    def replaced(self) -> Path:
        """Where what is replaced is kept until all is done."""
        return self.work / "aside"

    @property
    def claims(self) -> Path:
        """The list of paths that are ours while they are moved."""
        return self.work / "ours.json"

    def open_journal(self, plan: str) -> ResumeJournal:
        """The journal of this plan; what an earlier run left of another, or of none that is certain, is removed."""
        if not plan:
            self.clear()
        journal = ResumeJournal(self.work / "parts.jsonl", plan)
        if not journal.resumable:
            self.clear()
        with disk_errors(self.tree):
            self.tree.mkdir(exist_ok=True)
            for left in [path for path in self.tree.rglob("*") if not path.is_dir() or path.is_symlink()]:
                if not _is_own(left) or left.relative_to(self.tree).as_posix() not in journal.files:
                    left.unlink()  # nothing of it had arrived
        journal.open()
        return journal

    def clear(self) -> None:
        """Remove all but the intent."""
        with disk_errors(self.work):
            for path in (self.work / "parts.jsonl", self.scratch, self.replaced, self.tree):
                _remove(path)

    def discard(self) -> None:
        """Leave nothing of what cannot be used again, or of what has filled the disk; as far as that can be."""
        with contextlib.suppress(DestinationError):
            self.clear()

    def restart(self) -> None:
        """Begin with an empty tree: what comes next cannot be resumed."""
        self.clear()
        with disk_errors(self.tree):
            self.tree.mkdir()

    @property
    def resumable(self) -> bool:
        """Whether there is something that the next run can use."""
        return self.claims.exists() or (self.work / "parts.jsonl").exists()


@contextlib.contextmanager
def lock_staging_area(
    home: Callable[[], Path], name: str, waiting: Callable[[], None], homes: Iterable[Path] = ()
) -> Iterator[StagingArea]:
    """Lock the staging area of the destination `name` in `home`; what can be resumed stays there after a failure.

    Args:
        home: decides where the area is; asked again once the lock is held, for a pull before us may have changed it.
        name: identifies the destination within its home.
        waiting: called if another pull holds the lock.
        homes: where the area may have been at other times: what a crash left there is swept, too.

    Raises:
        DestinationError: the area cannot be made.
    """
    ident = _ident(name)
    while True:
        with disk_errors(name):
            at = home()
        with disk_errors(at):
            area = _make_area(at)
            lock = _lock(area / f"{ident}.lock", waiting)
            if home() == at:
                break
        _release(area, ident, lock)
    stage = StagingArea(area / ident)
    try:
        with disk_errors(stage.work):
            _vet(stage.work)
        yield stage
    except BaseException:
        if not stage.resumable:
            _try_to_remove(stage.work)
        raise
    else:
        _try_to_remove(stage.work)  # what is published is published: the next pull sweeps what is left
        _sweep(area, ident)
        for other in homes:
            if other / AREA != area and _left(other, ident):
                _sweep_one(other / AREA, ident)
    finally:
        _release(area, ident, lock)


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold off other pulls that publish into a directory; best effort, for what is not there cannot be locked."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            fd = os.open(directory, os.O_RDONLY)
            held.callback(os.close, fd)
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def has_leftovers(homes: Iterable[Path], name: str) -> bool:
    """Whether a crash left something of this destination that can be swept: `staging` does, on leaving."""
    return any(_left(home, _ident(name)) for home in homes)


def _left(home: Path, ident: str) -> bool:
    area = home / AREA
    return os.access(area, os.W_OK | os.X_OK) and not area.is_symlink() and (area / ident).exists()


def _ident(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _make_area(home: Path) -> Path:
    area = home / AREA
    make_directory(home)
    with contextlib.suppress(FileExistsError):
        area.mkdir(mode=0o755)
    if area.is_symlink() or not area.is_dir():
        raise DestinationError(
            f"{area} is a link, or no directory.",
            hint="Remove it: staging must be on the destination's own file system.",
        )
    return area


def _vet(work: Path) -> None:
    """Make the directory, and keep of what is there only what can be resumed: others may write here, too."""
    if work.is_symlink() or not work.is_dir():
        _remove(work)
        work.mkdir()
    for path in list(work.iterdir()):
        is_tree = path.name == "tree" and path.is_dir() and not path.is_symlink()
        if not is_tree and not (path.name in ("parts.jsonl", "ours.json") and _is_own(path)):
            _remove(path)


def _is_own(path: Path) -> bool:
    """Whether it is a file and nothing else: neither a link nor a second name of a file elsewhere."""
    state = path.lstat()
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1


def _lock(path: Path, waiting: Callable[[], None]) -> int:
    while True:
        try:
            fd = _open_lock(path)
        except FileNotFoundError:  # the pull before us has just cleaned up
            path.parent.mkdir(mode=0o755, exist_ok=True)
            continue
        try:
            _wait_for(fd, waiting)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its name was removed by the pull that we waited for


def _open_lock(path: Path) -> int:
    if path.is_symlink():  # none of ours
        path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o644)


def _wait_for(lock: int, waiting: Callable[[], None]) -> None:
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)


def _release(area: Path, ident: str, lock: int) -> None:
    with contextlib.suppress(OSError):
        (area / f"{ident}.lock").unlink()
    with contextlib.suppress(OSError):
        os.close(lock)
    with contextlib.suppress(OSError):
        area.rmdir()


def _sweep(area: Path, own: str) -> None:
    """Remove what crashed pulls to other destinations left, unless they are at it or have moved some files already."""
    with contextlib.suppress(OSError):
        for ident in {path.name.removesuffix(".lock") for path in area.iterdir()} - {own}:
            if not (area / ident / "ours.json").exists():
                _sweep_one(area, ident)


def _sweep_one(area: Path, ident: str) -> None:
    """Remove what a crashed pull left, unless it lives, or it cannot be removed."""
    with contextlib.suppress(OSError):
        lock = _open_lock(area / f"{ident}.lock")
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(area / ident)
            (area / f"{ident}.lock").unlink()
        finally:
            os.close(lock)
        area.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _try_to_remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        _remove(path)

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelfetch.disk import disk_errors, make_directory
from modelfetch.errors import DestinationError
from modelfetch.journal import Journal

try:
    import fcntl
except ImportError:  # Windows: no lock, the last of two pulls wins
    fcntl = None  # type: ignore[assignment]

AREA = ".modelfetch"


@dataclass(frozen=True)
class Stage:
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
    def intent(self) -> Path:
        """The list of paths that are ours while they are moved."""
        return self.work / "ours.json"

    def journal(self, plan: str) -> Journal:
        """The journal of this plan; what an earlier run left of another, or of none that is certain, is removed."""
        if not plan:
            self.clear()
        journal = Journal(self.work / "parts.jsonl", plan)
        if not journal.resumable:
            self.clear()
        with disk_errors(self.tree):
            self.tree.mkdir(exist_ok=True)
            for left in [path for path in self.tree.rglob("*") if not path.is_dir() or path.is_symlink()]:
                if not journal.knows(left.relative_to(self.tree).as_posix()):
                    left.unlink()  # nothing of it had arrived
        journal.open()
        return journal

    def clear(self) -> None:
        """Remove all but the intent."""
        with disk_errors(self.work):
            for path in (self.work / "parts.jsonl", self.scratch, self.tree):
                _remove(path)

    def restart(self) -> None:
        """Begin with an empty tree: what comes next cannot be resumed."""
        self.clear()
        with disk_errors(self.tree):
            self.tree.mkdir()

    @property
    def resumable(self) -> bool:
        """Whether there is something that the next run can use."""
        return self.intent.exists() or (self.work / "parts.jsonl").exists()


@contextlib.contextmanager
def staging(home: Callable[[], Path], name: str, waiting: Callable[[], None]) -> Iterator[Stage]:
    """Lock the staging area of the destination `name` in `home`; what can be resumed stays there after a failure.

    Args:
        home: decides where the area is; asked again once the lock is held, for a pull before us may have changed it.
        name: identifies the destination within its home.
        waiting: called if another pull holds the lock.

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
    stage = Stage(area / ident)
    try:
        with disk_errors(stage.work):
            stage.work.mkdir(exist_ok=True)
        yield stage
    except BaseException:
        if not stage.resumable:
            _remove(stage.work)
        raise
    else:
        _remove(stage.work)
        _sweep(area, ident)
    finally:
        _release(area, ident, lock)


def has_leftovers(home: Callable[[], Path], name: str) -> bool:
    """Whether a crash left something of this destination that can be swept: `staging` does, on leaving."""
    with disk_errors(name):
        area = home() / AREA
        return (area / _ident(name)).exists() and os.access(area, os.W_OK)


def _ident(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _make_area(home: Path) -> Path:
    area = home / AREA
    make_directory(home)
    area.mkdir(exist_ok=True)
    if area.is_symlink():
        raise DestinationError(
            f"{area} is a link.", hint="Remove it: staging must be on the destination's own file system."
        )
    return area


def _lock(path: Path, waiting: Callable[[], None]) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except FileNotFoundError:  # the pull before us has just cleaned up
            path.parent.mkdir(exist_ok=True)
            continue
        if fcntl is not None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        os.close(fd)  # its name was removed by the pull that we waited for


def _release(area: Path, ident: str, lock: int) -> None:
    with contextlib.suppress(OSError):
        (area / f"{ident}.lock").unlink()
    os.close(lock)
    with contextlib.suppress(OSError):
        area.rmdir()


def _sweep(area: Path, own: str) -> None:
    """Remove what crashed pulls to other destinations left, unless they are at it or have moved some files already."""
    for path in list(area.iterdir()) if area.exists() else []:
        ident = path.name.removesuffix(".lock")
        if ident == own or (area / ident / "ours.json").exists():
            continue
        with contextlib.suppress(OSError):
            lock = os.open(area / f"{ident}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(area / ident)
                (area / f"{ident}.lock").unlink()
            finally:
                os.close(lock)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)

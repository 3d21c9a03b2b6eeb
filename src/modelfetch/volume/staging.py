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

STAGING_ROOT = ".modelfetch"


class StagingArea(NamedTuple):
    """One destination's part of the staging area, locked."""

    work_directory: Path

    @property
    def tree(self) -> Path:
        """Where the model is put together."""
        return self.work_directory / "tree"

    @property
    def scratch(self) -> Path:
        """Room for a file that is not part of the model."""
        return self.work_directory / "scratch"

    @property
    def replaced_files(self) -> Path:
        """Where what is replaced is kept until all is done."""
        return self.work_directory / "aside"

    @property
    def claims(self) -> Path:
        """The list of paths that are ours while they are moved."""
        return self.work_directory / "ours.json"

    def open_journal(self, plan: str) -> ResumeJournal:
        """The journal of this plan; what an earlier run left of another, or of none that is certain, is removed."""
        if not plan:
            self.clear()
        journal = ResumeJournal(self.work_directory / "parts.jsonl", plan)
        if not journal.resumable:
            self.clear()
        with disk_errors(self.tree):
            self.tree.mkdir(exist_ok=True)
            for leftover in [path for path in self.tree.rglob("*") if not path.is_dir() or path.is_symlink()]:
                if not _is_private_file(leftover) or leftover.relative_to(self.tree).as_posix() not in journal.files:
                    leftover.unlink()  # nothing of it had arrived
        journal.open()
        return journal

    def clear(self) -> None:
        """Remove all but the intent."""
        with disk_errors(self.work_directory):
            for path in (self.work_directory / "parts.jsonl", self.scratch, self.replaced_files, self.tree):
                _remove_path(path)

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
        return self.claims.exists() or (self.work_directory / "parts.jsonl").exists()


@contextlib.contextmanager
def lock_staging_area(
    choose_parent: Callable[[], Path], name: str, on_wait: Callable[[], None], possible_parents: Iterable[Path] = ()
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
    area_id = _make_area_id(name)
    while True:
        with disk_errors(name):
            parent = choose_parent()
        with disk_errors(parent):
            root = _make_staging_root(parent)
            lock = _acquire_lock(root / f"{area_id}.lock", on_wait)
            if choose_parent() == parent:
                break
        _release_lock(root, area_id, lock)
    staging = StagingArea(root / area_id)
    try:
        with disk_errors(staging.work_directory):
            _keep_resumable_entries(staging.work_directory)
        yield staging
    except BaseException:
        if not staging.resumable:
            _remove_if_possible(staging.work_directory)
        raise
    else:
        _remove_if_possible(staging.work_directory)  # what is published is published: the next pull sweeps what is left
        _sweep_other_areas(root, area_id)
        for other_parent in possible_parents:
            if other_parent / STAGING_ROOT != root and _has_leftover_area(other_parent, area_id):
                _sweep_area(other_parent / STAGING_ROOT, area_id)
    finally:
        _release_lock(root, area_id, lock)


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


def has_leftovers(possible_parents: Iterable[Path], name: str) -> bool:
    """Whether a crash left something of this destination that can be swept: `staging` does, on leaving."""
    return any(_has_leftover_area(parent, _make_area_id(name)) for parent in possible_parents)


def _has_leftover_area(parent: Path, area_id: str) -> bool:
    root = parent / STAGING_ROOT
    return os.access(root, os.W_OK | os.X_OK) and not root.is_symlink() and (root / area_id).exists()


def _make_area_id(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _make_staging_root(parent: Path) -> Path:
    root = parent / STAGING_ROOT
    make_directory(parent)
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o755)
    if root.is_symlink() or not root.is_dir():
        raise DestinationError(
            f"{root} is a link, or no directory.",
            hint="Remove it: staging must be on the destination's own file system.",
        )
    return root


def _keep_resumable_entries(work_directory: Path) -> None:
    """Make the directory, and keep of what is there only what can be resumed: others may write here, too."""
    if work_directory.is_symlink() or not work_directory.is_dir():
        _remove_path(work_directory)
        work_directory.mkdir()
    for path in list(work_directory.iterdir()):
        is_tree = path.name == "tree" and path.is_dir() and not path.is_symlink()
        if not is_tree and not (path.name in ("parts.jsonl", "ours.json") and _is_private_file(path)):
            _remove_path(path)


def _is_private_file(path: Path) -> bool:
    """Whether it is a file and nothing else: neither a link nor a second name of a file elsewhere."""
    state = path.lstat()
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1


def _acquire_lock(path: Path, on_wait: Callable[[], None]) -> int:
    while True:
        try:
            fd = _open_lock_file(path)
        except FileNotFoundError:  # the pull before us has just cleaned up
            path.parent.mkdir(mode=0o755, exist_ok=True)
            continue
        try:
            _wait_for_lock(fd, on_wait)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its name was removed by the pull that we waited for


def _open_lock_file(path: Path) -> int:
    if path.is_symlink():  # none of ours
        path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o644)


def _wait_for_lock(lock: int, on_wait: Callable[[], None]) -> None:
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)


def _release_lock(root: Path, area_id: str, lock: int) -> None:
    with contextlib.suppress(OSError):
        (root / f"{area_id}.lock").unlink()
    with contextlib.suppress(OSError):
        os.close(lock)
    with contextlib.suppress(OSError):
        root.rmdir()


def _sweep_other_areas(root: Path, own_id: str) -> None:
    """Remove what crashed pulls to other destinations left, unless they are at it or have moved some files already."""
    with contextlib.suppress(OSError):
        for area_id in {path.name.removesuffix(".lock") for path in root.iterdir()} - {own_id}:
            if not (root / area_id / "ours.json").exists():
                _sweep_area(root, area_id)


def _sweep_area(root: Path, area_id: str) -> None:
    """Remove what a crashed pull left, unless it lives, or it cannot be removed."""
    with contextlib.suppress(OSError):
        lock = _open_lock_file(root / f"{area_id}.lock")
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_path(root / area_id)
            (root / f"{area_id}.lock").unlink()
        finally:
            os.close(lock)
        root.rmdir()


def _remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_if_possible(path: Path) -> None:
    with contextlib.suppress(OSError):
        _remove_path(path)

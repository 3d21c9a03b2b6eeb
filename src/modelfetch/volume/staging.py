"""Staging area: a locked directory on the destination's own file system, kept after a crash for the next run to resume.

The staging root `.modelfetch/` lies in the staging parent: beside the destination, or inside a directory that cannot be
exchanged by rename. For each destination the root holds a lock and a staging area, named by a hash of the
destination's name:

    below the root     written by         content                                     at the next run after a crash
    <id>.lock          lock_staging_area  empty; flock(2) is held for the whole pull  locked again
    <id>/tree/         transfer, archive  the model under construction                files in the journal are resumed
    <id>/parts.jsonl   resume_journal     blocks on disk, with their CRCs             read if the plan is the same
    <id>/ours.json     publish            claims: owned paths, while files are moved  tells owned from foreign files
    <id>/aside/        publish            replaced files, for the rollback            removed
    <id>/ours.new      publish            claims, before the rename to ours.json      removed
    <id>/receipt.json  publish            the new receipt, before its move            removed
    <id>/scratch       archive, publish   temporary file; old directory in a swap     removed
    <id>/archive       pull               archive kept whole for checks and decoding  removed
    <id>/layer/        pull               members of a further archive, then merged   removed
    <id>/signature     provenance         signature bundle of the store               removed

Any other file in an area is removed as soon as the area is locked. A published file no longer belongs to the staging
area but to its receipt (see ownership.py).
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
from modelfetch.volume.filesystem import disk_errors, fsync_path, make_directory
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staged_tree import StagedTree, open_directory

try:
    import fcntl
except ImportError:  # Windows: no lock, the last of two pulls wins
    fcntl = None  # type: ignore[assignment]

STAGING_ROOT = ".modelfetch"


class StagingArea(NamedTuple):
    """Locked staging area of one destination.

    Attributes:
        work_directory: the area.
        written: inode of every file written to the tree by this pull.
        descriptor: open descriptor of the area; stays with the area if another writer moves the directory.
    """

    work_directory: Path
    written: dict[str, int]
    descriptor: int | None = None

    @classmethod
    def locate(cls, parent: Path, name: str) -> "StagingArea":
        """Return the area of the destination `name` below a staging parent, present or not."""
        return cls(parent / STAGING_ROOT / _make_area_id(name), {})

    @property
    def tree(self) -> Path:
        """Directory in which the model is assembled."""
        return self.work_directory / "tree"

    @property
    def scratch(self) -> Path:
        """Path for a temporary file outside the model."""
        return self.work_directory / "scratch"

    @property
    def layer(self) -> Path:
        """Directory for the members of a further archive, until merged into the tree."""
        return self.work_directory / "layer"

    @property
    def replaced_files(self) -> Path:
        """Directory that keeps replaced files until publishing is complete."""
        return self.work_directory / "aside"

    @property
    def claims(self) -> Path:
        """List of owned paths (ours.json), present while files are moved."""
        return self.work_directory / "ours.json"

    def open_tree(self, directory: Path | None = None) -> StagedTree:
        """Open the tree, or another directory of the area, to write files there.

        Raises:
            DestinationError: another writer of the volume swapped the directory for a symlink.
        """
        directory = directory or self.tree
        with disk_errors(directory):
            return StagedTree(directory, self.written, within=self.descriptor)

    def check_written(self, paths: Iterable[str]) -> None:
        """Require that the staged files are still the files that this pull wrote, just before publishing.

        Raises:
            DestinationError: another writer of the volume replaced a file, or a directory above a file.
        """
        with disk_errors(self.tree), StagedTree(self.tree, self.written) as tree:
            tree.check_written(paths)

    def open_journal(self, plan: str) -> ResumeJournal:
        """Open the journal of this plan; remove leftovers of another plan, or of a plan without a resume key."""
        if not plan:
            self.clear()
        journal = ResumeJournal(self.work_directory / "parts.jsonl", plan)
        if not journal.resumable:
            self.clear()
        with disk_errors(self.tree):
            self.tree.mkdir(exist_ok=True)
            for leftover in [path for path in self.tree.rglob("*") if not path.is_dir() or path.is_symlink()]:
                if not _is_private_file(leftover) or leftover.relative_to(self.tree).as_posix() not in journal.files:
                    leftover.unlink()  # no byte had arrived
        journal.open()
        return journal

    def clear(self) -> None:
        """Remove the journal, the tree and temporary files; the claims stay."""
        self.written.clear()
        with disk_errors(self.work_directory):
            for path in (self.work_directory / "parts.jsonl", self.scratch, self.layer, self.replaced_files, self.tree):
                _remove_path(path, within=self.descriptor)

    def discard(self) -> None:
        """Clear the area, best effort, after a failure that no later run can resume or that filled the disk."""
        with contextlib.suppress(DestinationError):
            self.clear()

    def restart(self) -> None:
        """Start with an empty tree for a download that cannot be resumed."""
        self.clear()
        with disk_errors(self.tree):
            self.tree.mkdir()

    @property
    def resumable(self) -> bool:
        """Whether the area holds a journal or claims for the next run."""
        return self.claims.exists() or (self.work_directory / "parts.jsonl").exists()


@contextlib.contextmanager
def lock_staging_area(
    choose_parent: Callable[[], Path], name: str, on_wait: Callable[[], None], possible_parents: Iterable[Path] = ()
) -> Iterator[StagingArea]:
    """Lock the staging area of the destination `name`; resumable files stay in the area after a failure.

    Args:
        choose_parent: returns the staging parent; called again under the lock, because an earlier pull may have changed
            the answer.
        name: identifies the destination within its staging parent.
        on_wait: called if another pull holds the lock.
        possible_parents: staging parents of earlier pulls, swept for leftovers of a crash.

    Raises:
        DestinationError: the area cannot be created.
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
    staging = StagingArea(root / area_id, {})
    descriptor: int | None = None
    try:
        with disk_errors(staging.work_directory):
            _keep_resumable_entries(staging.work_directory)
            descriptor = open_directory(staging.work_directory)
        yield staging._replace(descriptor=descriptor)
    except BaseException:
        if not staging.resumable:
            _remove_if_possible(staging.work_directory)
        raise
    else:
        _remove_if_possible(staging.work_directory)  # the model is published: the next pull sweeps leftovers
        _sweep_other_areas(root, area_id)
        for other_parent in possible_parents:
            if other_parent / STAGING_ROOT != root and _has_leftover_area(other_parent, area_id):
                _sweep_area(other_parent / STAGING_ROOT, area_id)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        _release_lock(root, area_id, lock)


@contextlib.contextmanager
def lock_idle_area(parent: Path, name: str) -> Iterator[bool]:
    """Lock an existing staging area without waiting; yield whether the lock was free.

    Raises:
        OSError: the lock file cannot be opened.
    """
    lock = _open_lock_file(parent / STAGING_ROOT / f"{_make_area_id(name)}.lock")
    try:
        free = True
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
        yield free
    finally:
        os.close(lock)


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Exclude other pulls that publish into a directory; best effort, because a missing directory cannot be locked."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            fd = os.open(directory, os.O_RDONLY)
            held.callback(os.close, fd)
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def has_leftovers(possible_parents: Iterable[Path], name: str) -> bool:
    """Return whether a crash left a staging area of this destination; `lock_staging_area` sweeps leftovers on exit."""
    return any(_has_leftover_area(parent, _make_area_id(name)) for parent in possible_parents)


def _has_leftover_area(parent: Path, area_id: str) -> bool:
    """Return whether a writable staging root holds the area of this id."""
    root = parent / STAGING_ROOT
    return os.access(root, os.W_OK | os.X_OK) and not root.is_symlink() and (root / area_id).exists()


def _make_area_id(name: str) -> str:
    """Return the id of a staging area: 16 hexadecimal digits of the name's sha256."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _make_staging_root(parent: Path) -> Path:
    """Create the staging root with mode 0755 and refuse a symlink in its place."""
    root = parent / STAGING_ROOT
    for created in make_directory(parent):
        fsync_path(created.parent)  # or a power loss takes the whole path away
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o755)
    if root.is_symlink() or not root.is_dir():
        raise DestinationError(
            f"{root} is a link, or no directory.",
            hint="Remove it: staging must be on the destination's own file system.",
        )
    return root


def _keep_resumable_entries(work_directory: Path) -> None:
    """Create the area, and keep only resumable entries of an earlier run: other users may write to the volume, too."""
    if work_directory.is_symlink() or not work_directory.is_dir():
        _remove_path(work_directory)
        work_directory.mkdir()
    for path in list(work_directory.iterdir()):
        is_tree = path.name == "tree" and path.is_dir() and not path.is_symlink()
        if not is_tree and not (path.name in ("parts.jsonl", "ours.json") and _is_private_file(path)):
            _remove_path(path)


def _is_private_file(path: Path) -> bool:
    """Return whether the path is a regular file without a second hard link elsewhere."""
    state = path.lstat()
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1


def _acquire_lock(path: Path, on_wait: Callable[[], None]) -> int:
    """Open and lock the lock file; start again if the previous holder removed the file meanwhile."""
    while True:
        try:
            fd = _open_lock_file(path)
        except FileNotFoundError:  # the previous pull has just removed the staging root
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
        os.close(fd)  # the previous holder has removed the name


def _open_lock_file(path: Path) -> int:
    """Open the lock file, after removing a foreign symlink at its path."""
    if path.is_symlink():  # foreign
        path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o644)


def _wait_for_lock(lock: int, on_wait: Callable[[], None]) -> None:
    """Take the lock; call `on_wait` once if another pull holds the lock."""
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)


def _release_lock(root: Path, area_id: str, lock: int) -> None:
    """Remove the lock file, release the lock, and remove an empty staging root."""
    with contextlib.suppress(OSError):
        (root / f"{area_id}.lock").unlink()
    with contextlib.suppress(OSError):
        os.close(lock)
    with contextlib.suppress(OSError):
        root.rmdir()


def _sweep_other_areas(root: Path, own_id: str) -> None:
    """Remove areas of crashed pulls to other destinations, except areas in use, with claims or with a swapped model."""
    with contextlib.suppress(OSError):
        for area_id in {path.name.removesuffix(".lock") for path in root.iterdir()} - {own_id}:
            area = StagingArea(root / area_id, {})
            if not (area.claims.exists() or area.scratch.is_dir()):  # a directory: an old model amid a swap
                _sweep_area(root, area_id)


def _sweep_area(root: Path, area_id: str) -> None:
    """Remove the area of a crashed pull, unless the lock is held or the removal fails."""
    with contextlib.suppress(OSError):
        lock = _open_lock_file(root / f"{area_id}.lock")
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock), (root / f"{area_id}.lock").stat()):
                return  # replaced meanwhile: another pull holds the new lock file
            _remove_path(root / area_id)
            (root / f"{area_id}.lock").unlink()
        finally:
            os.close(lock)
        root.rmdir()


def _remove_path(path: Path, within: int | None = None) -> None:
    """Remove a file, a symlink or a directory tree, below the descriptor `within` of the parent directory if given."""
    name = path if within is None else Path(path.name)
    try:
        os.unlink(name, dir_fd=within)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # of a directory: EISDIR on Linux, EPERM on macOS
        shutil.rmtree(name, dir_fd=within)


def _remove_if_possible(path: Path) -> None:
    """Remove a path and ignore failures of the disk."""
    with contextlib.suppress(OSError):
        _remove_path(path)

"""Puts a staged model in place: whole, flushed, the receipt last; what we did not write we do not delete.

A directory that holds nothing but what an earlier pull wrote is exchanged by one rename. Any other (a mount point, one
with strangers' files, one whose parent cannot be written) is changed entry by entry: the old receipt goes first and the
new one comes last, so that what lies between has none. Where the disk fails, what was done is taken back.
"""

import contextlib
import ctypes
import errno
import json
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from modelfetch import safe_paths, signals
from modelfetch.errors import DestinationError
from modelfetch.volume.destination import Destination, has_foreign_files, is_exchangeable
from modelfetch.volume.file_transaction import FileTransaction
from modelfetch.volume.filesystem import disk_errors, flush_paths, fsync_path, walk_tree, write_flushed
from modelfetch.volume.ownership import check_conflicts, passes_symlink
from modelfetch.volume.receipt import SUFFIX, Receipt
from modelfetch.volume.staging import StagingArea, lock_directory

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)
# What a directory says that cannot be moved (from an overlay's lower layer, say), or cannot be moved over.
_NOT_MOVED = (errno.EXDEV, errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM)
# What one says that is not ours to remove, holds something, or is gone.
_KEPT = (errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR)


def publish(stage: StagingArea, dest: Destination, receipt: Receipt) -> None:
    """Put what is in the stage's tree in place.

    Raises:
        DestinationError: a stranger's file is in the way, or the disk fails. What was there is there still; or, if it
            cannot be brought back, what is there has no receipt.
    """
    try:
        with disk_errors(dest.path):
            _finish(stage.tree, receipt)
            with lock_directory(dest.base), signals.deferred():
                if not _exchange(stage, dest, receipt):
                    _move_entries(stage, dest, receipt)
    except DestinationError:
        stage.discard()
        raise


def _finish(tree: Path, receipt: Receipt) -> None:
    """Give files and directories their modes and times, whatever the umask, and flush them."""
    when = receipt.finished.timestamp()
    tree.chmod(0o755)
    files = []
    for here, folders, found in walk_tree(tree):
        for path in (here / name for name in found):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                path.chmod(0o755 if mode & 0o111 else 0o644)
                os.utime(path, (when, when))
                files.append(path)
        for path in (here / name for name in folders):
            if not path.is_symlink():
                path.chmod(0o755)
    flush_paths([*files, *(here for here, _, _ in walk_tree(tree))], tree)


def _exchange(stage: StagingArea, dest: Destination, receipt: Receipt) -> bool:
    """Exchange the directory for the staged one; False, and nothing is changed, if that cannot be."""
    if not dest.directory or stage.work.parent.parent == dest.path or not is_exchangeable(dest.path):
        return False
    write_flushed(stage.tree / SUFFIX, receipt.to_json() + "\n")
    fsync_path(stage.tree)
    try:
        _swap(stage.tree, dest.path, stage.scratch)
    except OSError as error:
        if error.errno in _NOT_MOVED:
            return False
        raise
    done = False
    try:
        if not stage.tree.exists() or not has_foreign_files(stage.tree):  # else another pull was faster
            fsync_path(dest.path.parent)
            done = True
    finally:
        if not done:
            _swap(stage.tree, dest.path, stage.scratch)
    return done


def _swap(one: Path, other: Path, aside: Path) -> None:
    """Exchange two directories, one of which may be missing. Done twice, it is undone."""
    if not other.exists():
        one.rename(other)
    elif not one.exists():
        other.rename(one)
    elif not _rename_exchange(one, other):
        other.rename(aside)  # for a moment there is none
        try:
            one.rename(other)
        except OSError:
            aside.rename(other)
            raise
        with contextlib.suppress(OSError):
            aside.rename(one)


def _rename_exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False where the kernel or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _move_entries(stage: StagingArea, dest: Destination, receipt: Receipt) -> None:
    """Move the files one by one; a crash leaves a list of what is ours, and no receipt."""
    new = {f.path for f in receipt.files}
    folders = [folder.as_posix() for folder in _folders(stage.tree)]
    ours = check_conflicts(stage, dest, new, folders)
    staged, noted, crashed = stage.work / "receipt.json", stage.work / "ours.new", stage.claims.exists()
    write_flushed(staged, receipt.to_json() + "\n")  # before the first change: there may be no room for it
    write_flushed(noted, json.dumps(sorted(ours | new)))
    stage.replaced.mkdir()
    noted.replace(stage.claims)
    fsync_path(stage.work)
    moves = FileTransaction(stage.replaced)
    try:
        _change(stage, dest, moves, ours, new, folders)
        moves.put(staged, dest.receipt)
        fsync_path(dest.base)
    except BaseException:
        if moves.rollback() and not crashed:
            stage.claims.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):
        stage.claims.unlink()


def _change(
    stage: StagingArea, dest: Destination, moves: FileTransaction, ours: set[str], new: set[str], folders: Sequence[str]
) -> None:
    """Turn the old model into the new one, all but the receipt."""
    base = dest.base
    moves.mkdir(base)
    _withdraw(dest, moves, new)
    for path in sorted(ours - new, reverse=True):
        _remove(moves, base, path)
    for folder in folders:
        moves.mkdir(base / folder)
    for path in sorted(new):
        moves.put(stage.tree / path, base / path)
    flush_paths(_changed(base, ours | new, folders), base)


def _withdraw(dest: Destination, moves: FileTransaction, new: set[str]) -> None:
    """Remove the receipt, and those of pulls of one of the new files alone: they will not be true any more."""
    moves.remove(dest.receipt)
    fsync_path(dest.base)
    for path in sorted(new) if dest.directory else ():
        alone = dest.base / f"{path}{SUFFIX}"
        if f"{path}{SUFFIX}" not in new and os.path.lexists(alone):
            moves.remove(alone)
            fsync_path(alone.parent)


def _changed(base: Path, paths: Iterable[str], folders: Iterable[str]) -> list[Path]:
    """The directories that hold these files and folders, up to the base, as far as they are there."""
    found = {parent for path in (*paths, *folders) for parent in safe_paths.parent_paths(path)} | set(folders)
    return [base, *(base / folder for folder in sorted(found) if (base / folder).is_dir())]


def _remove(moves: FileTransaction, base: Path, path: str) -> None:
    """Remove one of our files, and the directories that it leaves empty; never through a link."""
    if passes_symlink(base, path):
        return
    moves.remove(base / path)
    for parent in safe_paths.parent_paths(path):
        try:
            (base / parent).rmdir()
        except OSError as error:
            if error.errno not in _KEPT:
                raise


def _folders(tree: Path) -> list[Path]:
    found = []
    for here, folders, _ in walk_tree(tree):
        found += [(here / name).relative_to(tree) for name in folders if not (here / name).is_symlink()]
    return sorted(found)

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
from modelfetch.volume.filesystem import disk_errors, flush_paths, fsync_path, walk_tree, write_and_flush
from modelfetch.volume.ownership import check_conflicts, passes_symlink
from modelfetch.volume.receipt import RECEIPT_SUFFIX, Receipt
from modelfetch.volume.staging import StagingArea, lock_directory

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)
# What a directory says that cannot be moved (from an overlay's lower layer, say), or cannot be moved over.
_CANNOT_EXCHANGE = (errno.EXDEV, errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM)
# What one says that is not ours to remove, holds something, or is gone.
_CANNOT_REMOVE = (errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR)


def publish(staging: StagingArea, dest: Destination, receipt: Receipt) -> None:
    """Put what is in the stage's tree in place.

    Raises:
        DestinationError: a stranger's file is in the way, or the disk fails. What was there is there still; or, if it
            cannot be brought back, what is there has no receipt.
    """
    try:
        with disk_errors(dest.path):
            _set_modes_and_flush(staging.tree, receipt)
            with lock_directory(dest.base), signals.deferred():
                if not _exchange_directory(staging, dest, receipt):
                    _move_entries(staging, dest, receipt)
    except DestinationError:
        staging.discard()
        raise


def _set_modes_and_flush(tree: Path, receipt: Receipt) -> None:
    """Give files and directories their modes and times, whatever the umask, and flush them."""
    mtime = receipt.finished.timestamp()
    tree.chmod(0o755)
    files = []
    for directory, folders, names in walk_tree(tree):
        for path in (directory / name for name in names):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                path.chmod(0o755 if mode & 0o111 else 0o644)
                os.utime(path, (mtime, mtime))
                files.append(path)
        for path in (directory / name for name in folders):
            if not path.is_symlink():
                path.chmod(0o755)
    flush_paths([*files, *(here for here, _, _ in walk_tree(tree))], tree)


def _exchange_directory(staging: StagingArea, dest: Destination, receipt: Receipt) -> bool:
    """Exchange the directory for the staged one; False, and nothing is changed, if that cannot be."""
    if not dest.directory or staging.work_directory.parent.parent == dest.path or not is_exchangeable(dest.path):
        return False
    write_and_flush(staging.tree / RECEIPT_SUFFIX, receipt.to_json() + "\n")
    fsync_path(staging.tree)
    try:
        _swap_directories(staging.tree, dest.path, staging.scratch)
    except OSError as error:
        if error.errno in _CANNOT_EXCHANGE:
            return False
        raise
    exchanged = False
    try:
        if not staging.tree.exists() or not has_foreign_files(staging.tree):  # else another pull was faster
            fsync_path(dest.path.parent)
            exchanged = True
    finally:
        if not exchanged:
            _swap_directories(staging.tree, dest.path, staging.scratch)
    return exchanged


def _swap_directories(first: Path, second: Path, spare: Path) -> None:
    """Exchange two directories, one of which may be missing. Done twice, it is undone."""
    if not second.exists():
        first.rename(second)
    elif not first.exists():
        second.rename(first)
    elif not _rename_exchange(first, second):
        second.rename(spare)  # for a moment there is none
        try:
            first.rename(second)
        except OSError:
            spare.rename(second)
            raise
        with contextlib.suppress(OSError):
            spare.rename(first)


def _rename_exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; False where the kernel or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    error_number = ctypes.get_errno()
    if error_number in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP):
        return False
    raise OSError(error_number, os.strerror(error_number), str(second))


def _move_entries(staging: StagingArea, dest: Destination, receipt: Receipt) -> None:
    """Move the files one by one; a crash leaves a list of what is ours, and no receipt."""
    new_paths = {f.path for f in receipt.files}
    folders = [folder.as_posix() for folder in _list_folders(staging.tree)]
    owned_paths = check_conflicts(staging, dest, new_paths, folders)
    staged_receipt, staged_claims, had_claims = staging.work_directory / "receipt.json", staging.work_directory / "ours.new", staging.claims.exists()
    write_and_flush(staged_receipt, receipt.to_json() + "\n")  # before the first change: there may be no room for it
    write_and_flush(staged_claims, json.dumps(sorted(owned_paths | new_paths)))
    staging.replaced_files.mkdir()
    staged_claims.replace(staging.claims)
    fsync_path(staging.work_directory)
    transaction = FileTransaction(staging.replaced_files)
    try:
        _apply_changes(staging, dest, transaction, owned_paths, new_paths, folders)
        transaction.put(staged_receipt, dest.receipt_path)
        fsync_path(dest.base)
    except BaseException:
        if transaction.rollback() and not had_claims:
            staging.claims.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):
        staging.claims.unlink()


def _apply_changes(
    staging: StagingArea, dest: Destination, transaction: FileTransaction, owned_paths: set[str], new_paths: set[str], folders: Sequence[str]
) -> None:
    """Turn the old model into the new one, all but the receipt."""
    base = dest.base
    transaction.mkdir(base)
    _remove_old_receipts(dest, transaction, new_paths)
    for path in sorted(owned_paths - new_paths, reverse=True):
        _remove_owned_file(transaction, base, path)
    for folder in folders:
        transaction.mkdir(base / folder)
    for path in sorted(new_paths):
        transaction.put(staging.tree / path, base / path)
    flush_paths(_list_changed_directories(base, owned_paths | new_paths, folders), base)


def _remove_old_receipts(dest: Destination, transaction: FileTransaction, new_paths: set[str]) -> None:
    """Remove the receipt, and those of pulls of one of the new files alone: they will not be true any more."""
    transaction.remove(dest.receipt_path)
    fsync_path(dest.base)
    for path in sorted(new_paths) if dest.directory else ():
        file_receipt = dest.base / f"{path}{RECEIPT_SUFFIX}"
        if f"{path}{RECEIPT_SUFFIX}" not in new_paths and os.path.lexists(file_receipt):
            transaction.remove(file_receipt)
            fsync_path(file_receipt.parent)


def _list_changed_directories(base: Path, paths: Iterable[str], folders: Iterable[str]) -> list[Path]:
    """The directories that hold these files and folders, up to the base, as far as they are there."""
    directories = {parent for path in (*paths, *folders) for parent in safe_paths.parent_paths(path)} | set(folders)
    return [base, *(base / folder for folder in sorted(directories) if (base / folder).is_dir())]


def _remove_owned_file(transaction: FileTransaction, base: Path, path: str) -> None:
    """Remove one of our files, and the directories that it leaves empty; never through a link."""
    if passes_symlink(base, path):
        return
    transaction.remove(base / path)
    for parent in safe_paths.parent_paths(path):
        try:
            (base / parent).rmdir()
        except OSError as error:
            if error.errno not in _CANNOT_REMOVE:
                raise


def _list_folders(tree: Path) -> list[Path]:
    folders_found = []
    for directory, folders, _ in walk_tree(tree):
        folders_found += [(directory / name).relative_to(tree) for name in folders if not (directory / name).is_symlink()]
    return sorted(folders_found)

"""Publishing: move a staged model into place, complete and flushed, with the receipt last.

Every path has one of three owners. Staged files belong to the staging area until moved into place. Owned paths were
written by earlier pulls, and are replaced or removed. Foreign files are never deleted; a conflict stops the publish.

A directory without foreign files is exchanged by one rename. Any other directory (a mount point, a directory with
foreign files or under a read-only parent) is changed entry by entry:

1. The claims (ours.json) are written: all owned and new paths, which the next run must tell from foreign files.
2. The old receipt is removed: from now on a crash leaves no receipt, hence no model for readers.
3. Replaced and obsolete files move into the staging area (aside), new files into place; directories are flushed.
4. The new receipt is moved into place, then the claims are removed.

If the disk fails, every step is rolled back.
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
from modelfetch.volume.destination import Destination, has_foreign_files
from modelfetch.volume.file_transaction import FileTransaction
from modelfetch.volume.filesystem import disk_errors, flush_paths, fsync_path, walk_tree, write_and_flush
from modelfetch.volume.ownership import check_conflicts, find_own_receipt, passes_symlink
from modelfetch.volume.receipt import Receipt, is_receipt_file, receipt_paths
from modelfetch.volume.staging import StagingArea, lock_directory, lock_idle_area

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)
# Errors of a directory that cannot be moved (in an overlay's lower layer, say) or moved over.
_CANNOT_EXCHANGE = (errno.EXDEV, errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM)
# Errors of a parent directory that stays: in use, not empty, not writable, or already gone.
_CANNOT_REMOVE = (errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR)


def publish(staging: StagingArea, dest: Destination, receipt: Receipt) -> None:
    """Move the model in the staging area's tree into place.

    Raises:
        DestinationError: a foreign file is in the way, or the disk fails. The old model is still in place; or, if the
            rollback failed, the destination has no receipt.
    """
    try:
        with disk_errors(dest.path):
            _set_modes_and_flush(staging.tree, receipt)
            staging.check_written(file.path for file in receipt.files)
            with lock_directory(dest.base), signals.deferred():
                if not _exchange_directory(staging, dest, receipt):
                    _move_entries(staging, dest, receipt)
    except DestinationError:
        staging.discard()
        raise


def _set_modes_and_flush(tree: Path, receipt: Receipt) -> None:
    """Set modes and times of files and directories, regardless of the umask, and flush all to disk."""
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
    flush_paths([*files, *(directory for directory, _, _ in walk_tree(tree))], tree)


def _exchange_directory(staging: StagingArea, dest: Destination, receipt: Receipt) -> bool:
    """Exchange the directory for the staged tree; return False, with nothing changed, if a rename is not possible."""
    if staging.work_directory.parent.parent == dest.path or not dest.is_exchangeable:
        dest.require_exchangeable()
        return False
    if dest.path.exists() and not _take_over_attributes(dest.path, staging.tree):
        return False
    write_and_flush(staging.tree / safe_paths.RECEIPT_SUFFIX, receipt.to_json() + "\n")
    fsync_path(staging.tree)
    try:
        _swap_directories(staging.tree, dest.path, staging.scratch)
    except OSError as error:
        if error.errno in _CANNOT_EXCHANGE:
            return False
        raise
    exchanged = False
    try:
        if not staging.tree.exists() or not has_foreign_files(staging.tree):  # else another pull was faster: swap back
            fsync_path(dest.path.parent)
            exchanged = True
    finally:
        if not exchanged:
            _swap_directories(staging.tree, dest.path, staging.scratch)
    return exchanged


def _take_over_attributes(old: Path, new: Path) -> bool:
    """Give the new directory owner, mode, ACL and other extended attributes of the old: these are the admin's.

    Returns:
        Whether all could be copied.
    """
    own = new.stat()
    try:
        _copy_extended_attributes(old, new)
        state = old.stat()
        if (state.st_uid, state.st_gid) != (own.st_uid, own.st_gid):
            os.chown(new, state.st_uid, state.st_gid)
        new.chmod(stat.S_IMODE(state.st_mode))  # last: chown may drop setgid
        copied = new.stat()
        if (copied.st_uid, copied.st_gid, copied.st_mode) == (state.st_uid, state.st_gid, state.st_mode):
            return True
    except OSError:
        pass
    with contextlib.suppress(OSError):  # the files are moved out of the new directory now: it must be ours again
        os.chown(new, own.st_uid, own.st_gid)
        new.chmod(0o755)
    return False


def _copy_extended_attributes(old: Path, new: Path) -> None:
    """Make the extended attributes equal, POSIX ACLs included.

    Raises:
        OSError: an attribute cannot be set or removed.
    """
    if not hasattr(os, "listxattr"):  # not on macOS and Windows
        return
    attributes, present = ({name: os.getxattr(path, name) for name in os.listxattr(path)} for path in (old, new))
    for name, value in attributes.items():
        if present.get(name) != value:
            os.setxattr(new, name, value)
    for name in present.keys() - attributes.keys():
        os.removexattr(new, name)


def restore_swapped_directory(dest: Path) -> None:
    """Put a directory back that a killed pull had moved aside for a swap; best effort, and never over anything.

    Without RENAME_EXCHANGE (NFS, FUSE, gVisor) a swap takes two renames: a kill between them leaves no model at the
    destination, and the old one in the staging area.
    """
    swapped = StagingArea.locate(dest.parent, dest.name).scratch
    if os.path.lexists(dest) or os.path.islink(swapped) or not os.path.isdir(swapped):  # noqa: PTH112, PTH114  never raise
        return
    with contextlib.suppress(OSError), lock_idle_area(dest.parent, dest.name) as locked:
        is_model = any(is_receipt_file(path) for path in receipt_paths(swapped, directory=True))
        if locked and is_model and not os.path.lexists(dest):
            swapped.rename(dest)
            fsync_path(dest.parent)


def _swap_directories(first: Path, second: Path, spare: Path) -> None:
    """Exchange two directories, of which at most one may be missing; a second call restores the first state."""
    if not second.exists():
        first.rename(second)
    elif not first.exists():
        second.rename(first)
    elif not _rename_exchange(first, second):
        second.rename(spare)  # for a moment the path does not exist
        try:
            first.rename(second)
        except OSError:
            spare.rename(second)
            raise
        with contextlib.suppress(OSError):
            spare.rename(first)


def _rename_exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically; return False where the kernel or the file system lacks support."""
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
    """Move the files into place separately; a crash leaves the claims (ours.json) and no receipt."""
    new_paths = {f.path for f in receipt.files}
    folders = [folder.as_posix() for folder in _list_folders(staging.tree)]
    owned_paths = check_conflicts(staging, dest, new_paths, folders)
    staged_receipt, staged_claims = staging.work_directory / "receipt.json", staging.work_directory / "ours.new"
    had_claims = staging.claims.exists()
    write_and_flush(staged_receipt, receipt.to_json() + "\n")  # before the first change: the disk may be full
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
    staging: StagingArea,
    dest: Destination,
    transaction: FileTransaction,
    owned_paths: set[str],
    new_paths: set[str],
    folders: Sequence[str],
) -> None:
    """Replace the old model by the new one, all but the receipt, and flush the result."""
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
    """Remove the old receipt, and the receipts of new files that were pulled alone: all would become false."""
    own = [find_own_receipt(dest.base / path) for path in sorted(new_paths)] if dest.directory else []
    for path in receipt_paths(dest.path, directory=dest.directory):
        if is_receipt_file(path):
            transaction.remove(path)
    fsync_path(dest.base)
    for file_receipt in filter(None, own):
        transaction.remove(file_receipt)
        fsync_path(file_receipt.parent)


def _list_changed_directories(base: Path, paths: Iterable[str], folders: Iterable[str]) -> list[Path]:
    """Return the base and every existing directory with changed files or folders, for the flush."""
    directories = {parent for path in (*paths, *folders) for parent in safe_paths.parent_paths(path)} | set(folders)
    return [base, *(base / folder for folder in sorted(directories) if (base / folder).is_dir())]


def _remove_owned_file(transaction: FileTransaction, base: Path, path: str) -> None:
    """Remove an owned file and the parent directories left empty; never through a symlink."""
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
    """Return the directories of a staged tree, relative to its top, sorted."""
    relative = []
    for directory, names, _ in walk_tree(tree):
        folders = (directory / name for name in names)
        relative += [folder.relative_to(tree) for folder in folders if not folder.is_symlink()]
    return sorted(relative)

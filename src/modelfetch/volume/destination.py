"""Destination of a model: a file or a directory, and the receipt already published at the path."""

import os
from pathlib import Path
from typing import NamedTuple

from modelfetch import safe_paths
from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError, UsageError
from modelfetch.volume import receipt as receipts
from modelfetch.volume.filesystem import disk_errors, is_mount, is_mounted_elsewhere, list_mounts_below, walk_tree
from modelfetch.volume.receipt import Receipt
from modelfetch.volume.staging import STAGING_ROOT

MOVE_HINT = "Move it away, or choose another destination."


class Destination(NamedTuple):
    """Destination of a model: the path of a file, or of a directory that holds the files.

    Attributes:
        path: the file or directory.
        directory: whether the model is a directory.
        publishing: `exchange` of the directory by one rename, `entries` one by one, or `auto`.
    """

    path: Path
    directory: bool
    publishing: str = "auto"

    @property
    def base(self) -> Path:
        """Directory that the receipt's paths are relative to."""
        return self.path if self.directory else self.path.parent

    @property
    def receipt_path(self) -> Path:
        """Path of the model's receipt, present or future."""
        return receipts.receipt_path(self.path, directory=self.directory)

    def staging_parent(self) -> Path:
        """Return the staging parent: the parent of an exchangeable destination, else the destination itself."""
        return self.path if self.directory and not self.is_exchangeable else self.path.parent

    @property
    def is_exchangeable(self) -> bool:
        """Whether the directory can be, and is to be, replaced by one rename."""
        return self.directory and self.publishing != "entries" and is_exchangeable(self.path)

    def require_exchangeable(self) -> None:
        """Refuse a directory that can only be changed entry by entry, if an exchange is required.

        Raises:
            DestinationError: the directory is or holds a mount, holds foreign files, or has a read-only parent.
        """
        if self.directory and self.publishing == "exchange" and not self.is_exchangeable:
            raise DestinationError(
                f"{self.path} cannot be exchanged by one rename: it is or holds a mount point, holds files of others,"
                " or its parent is read-only.",
                hint="Name a directory below the mount point, or set MODELFETCH_PUBLISH=auto.",
            )

    @property
    def staging_parents(self) -> tuple[Path, ...]:
        """All directories where earlier pulls may have left a staging area."""
        return (self.path.parent, self.path) if self.directory else (self.path.parent,)

    @property
    def name(self) -> str:
        """File name of the destination, unique within its staging parent."""
        return self.path.name


def locate_destination(dest: str, name: str, *, directory: bool, archive: bool) -> Destination:
    """Resolve the user's DEST to a destination by the rules of `cp`.

    Args:
        dest: path given by the user; a symlink is followed.
        name: file name of the object.
        directory: whether the model is a directory.
        archive: whether the object is an archive to extract.

    Raises:
        DestinationError: a file stands where a directory must go, or the reverse; or the path cannot be examined.
        UnsafeNameError: the name is not UTF-8, or too long for the receipt's name beside the file.
        UsageError: the name is reserved.
    """
    with disk_errors(dest):
        return _resolve_destination(dest, name, directory=directory, archive=archive)


def expand_path(dest: str) -> Path:
    """Return the absolute path of a user's DEST, `~` expanded and symlinks followed."""
    return Path(os.path.realpath(os.path.expanduser(dest)))  # noqa: PTH111  Path's own fails for unknown users


def _resolve_destination(dest: str, name: str, *, directory: bool, archive: bool) -> Destination:
    """Apply the rules of `cp` to a path, and refuse names reserved for receipts and staging areas."""
    path = expand_path(dest)
    into_directory = dest.endswith(("/", os.sep)) or path.is_dir()
    if archive and not into_directory and safe_paths.is_archive_name(path.name):
        path = path.parent
    if directory or archive:
        return _resolve_directory(path)
    if into_directory and path.exists() and not path.is_dir():
        raise DestinationError(f"{path} is a file where a directory must go.", hint=MOVE_HINT)
    path = path / name if into_directory else path
    if path.is_dir():
        raise DestinationError(f"{path} is a directory where a file must go.", hint=MOVE_HINT)
    if len(os.fsencode(path.name + safe_paths.RECEIPT_SUFFIX)) > safe_paths.MAX_SEGMENT_BYTES:
        raise UnsafeNameError(f"The file name {path.name} is too long for its receipt's.", hint="Name a shorter DEST.")
    if path.name != path.name.encode(errors="replace").decode():
        raise UnsafeNameError(f"The file name {path.name!r} is not valid UTF-8.", hint="Name another DEST.")
    _refuse_reserved_name(path)
    return Destination(path, directory=False)


def _resolve_directory(path: Path) -> Destination:
    """Refuse a path that cannot be the directory of a model with its receipt."""
    if path.exists() and not path.is_dir():
        raise DestinationError(f"{path} is a file where a directory must go.", hint=MOVE_HINT)
    _refuse_reserved_name(path)
    if len(os.fsencode(path / safe_paths.RECEIPT_SUFFIX)) > safe_paths.MAX_PATH_BYTES:
        shown = safe_paths.quote_path(str(path))
        raise UnsafeNameError(f"The path {shown} is too long for its receipt's.", hint="Name a shorter DEST.")
    return Destination(path, directory=True)


def _refuse_reserved_name(path: Path) -> None:
    """Refuse a destination named like a receipt or manifest, or a path inside a staging area."""
    if safe_paths.is_reserved_path(path.name) or STAGING_ROOT in path.parts:
        raise UsageError(
            f"The name {safe_paths.quote_path(path.name)} is one of modelfetch's own: a receipt's, a manifest's, or in"
            " the staging area.",
            hint="Name another DEST.",
        )


def read_published(dest: Destination) -> Receipt | None:
    """Return the receipt of the model published at the destination, or None without a readable receipt."""
    try:
        found = receipts.find_receipt(dest.path, directory=dest.directory)
        return receipts.read_receipt(found) if found else None
    except ModelfetchError:
        return None


def is_exchangeable(path: Path) -> bool:
    """Return whether a directory can be replaced by one rename without touching foreign files."""
    if not path.exists():
        return True
    parent = path.parent
    if not os.access(parent, os.W_OK | os.X_OK) or parent.stat().st_dev != path.stat().st_dev:
        return False
    if is_mount(path) or list_mounts_below(path) or is_mounted_elsewhere(path) or _is_working_directory(path):
        return False
    return not has_foreign_files(path)


def _is_working_directory(path: Path) -> bool:
    """Return whether the process works below `path`; after an exchange its shell would be left in the old directory."""
    try:
        return Path.cwd().resolve().is_relative_to(path)
    except OSError:
        return False


def has_foreign_files(path: Path) -> bool:
    """Return whether a directory holds foreign files, or the staging area of another pull."""
    receipt = read_published(Destination(path, directory=True))
    owned_paths = {f.path for f in receipt.files} if receipt else set()
    for entry in path.iterdir():
        if entry in receipts.receipt_paths(path, directory=True) and receipts.is_receipt_file(entry):
            continue
        if entry.name in owned_paths:
            continue
        if not (entry.is_dir() and not entry.is_symlink() and holds_only_owned(entry, path, owned_paths)):
            return True
    return False


def holds_only_owned(folder: Path, base: Path, owned_paths: set[str]) -> bool:
    """Return whether a directory holds owned files and nothing else; an unreadable directory counts as foreign."""
    try:
        return _contains_only_owned(folder, base, owned_paths)
    except OSError:
        return False


def _contains_only_owned(folder: Path, base: Path, owned_paths: set[str]) -> bool:
    """Compare every file and symlink with the owned paths; a directory that no owned path explains is foreign."""
    holds_any = False
    for directory, folders, files in walk_tree(folder):
        links = [name for name in folders if (directory / name).is_symlink()]
        for name in (*files, *links):
            holds_any = True
            if (directory / name).relative_to(base).as_posix() not in owned_paths:
                return False
        if not files and not folders:
            prefix = directory.relative_to(base).as_posix() + "/"
            if not any(path.startswith(prefix) for path in owned_paths):
                return False
            holds_any = True  # a crash left the directory after its last file was removed
    return holds_any

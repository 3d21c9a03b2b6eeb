"""Local model to push: its files and empty folders, their fingerprints, and detection of changes during the push."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from modelfetch import checksums, safe_paths
from modelfetch.checksums import Fingerprint, InOrderDigests
from modelfetch.errors import (
    CredentialsError,
    ModelfetchError,
    NotFoundError,
    RefusedError,
    UnsafeNameError,
    UsageError,
    WrongBytesError,
)
from modelfetch.sources import RemoteObject, Source, SourceOptions, open_source
from modelfetch.uri import ModelURI

_READ_BYTES = 1024**2  # bytes hashed at a time


class LocalModel(NamedTuple):
    """A file, or the files and empty folders of a directory.

    Attributes:
        files: files to upload; each key is the local path.
        folders: folders without files or subfolders.
        directory: whether the model is a directory.
        source: reader of the local files.
        reserved: number of files left out for their reserved names.
    """

    files: tuple[RemoteObject, ...]
    folders: tuple[str, ...]
    directory: bool
    source: Source
    reserved: int = 0

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(o.size or 0 for o in self.files)

    @property
    def paths(self) -> set[str]:
        """Return the paths of all files and empty folders, and of their parent folders."""
        named = {*(o.path for o in self.files), *self.folders}
        return named | _parent_folders(named)

    def without_file(self, path: str) -> "LocalModel":
        """Return the model without a file; unchanged if the path is not in the model.

        Raises:
            NotFoundError: the model has no other file.
        """
        files = tuple(o for o in self.files if o.path != path)
        if not files:
            raise NotFoundError(f"There is no file but {path}.", hint="Is it the directory of the model?")
        return self._replace(files=files)

    @contextlib.contextmanager
    def refuse_changes(self, file: RemoteObject) -> Iterator[None]:
        """Raise a ChangedError at the end of the block, also after another error, if the file has changed."""
        try:
            yield
        finally:
            self.source.sign(file)


def find_local_model(path: Path) -> LocalModel:
    """Find the files to push at a path, without receipts, manifests and staging areas of earlier pulls, at any depth.

    Raises:
        UsageError: the path itself has a reserved name.
        NotFoundError: the path does not exist, or the directory holds no file.
        WrongBytesError: the file is empty, or a name cannot be pulled.
        ModelfetchError: the path cannot be read.
    """
    if safe_paths.is_reserved_path(path.absolute().name):
        raise UsageError(
            f"{path} is named like a receipt, manifest or staging area of modelfetch, and no model.",
            hint="Push the model itself.",
        )
    source = open_source(ModelURI("file", "", path.absolute().as_posix()), SourceOptions())
    listing = source.resolve()
    files = tuple(o for o in listing.objects if not safe_paths.is_reserved_path(o.path))
    if not files:
        raise NotFoundError(f"There is no file in {path}.", hint="Is it the directory of the model?")
    if not listing.directory and files[0].size == 0:
        raise WrongBytesError(f"{path} is empty: 0 bytes.", hint="Write the model again.")
    paths = [o.path for o in files]
    nonempty = _parent_folders([*paths, *listing.folders])
    folders = tuple(f for f in listing.folders if f not in nonempty and not safe_paths.is_reserved_path(f))
    try:
        safe_paths.check_paths([*paths, *folders], "path")
    except UnsafeNameError as error:
        raise UnsafeNameError(error.message, hint="Give it another name: this one could not be pulled.") from error
    return LocalModel(files, folders, listing.directory, source, len(listing.objects) - len(files))


def _parent_folders(paths: Iterable[str]) -> set[str]:
    return {parent for path in paths for parent in safe_paths.parent_paths(path)}


def fingerprint_file(path: Path, expected: Mapping[str, str]) -> Fingerprint:
    """Return a file's size, sha256 and CRC, with md5 or sha1 if the store states no stronger checksum.

    Raises:
        ModelfetchError: the file cannot be read.
    """
    algorithm, in_order = checksums.choose_crc(expected), InOrderDigests(expected)
    size = crc = 0
    with explain_read_errors(path), path.open("rb", buffering=0) as file:
        while data := file.read(_READ_BYTES):
            in_order.update(data)
            crc = checksums.update_crc(algorithm, data, crc)
            size += len(data)
    return Fingerprint(size, {algorithm: checksums.format_crc(algorithm, crc), **in_order.hexdigests()})


@contextlib.contextmanager
def explain_read_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about a file into a ModelfetchError."""
    try:
        yield
    except OSError as error:
        raise _unreadable_error(error, path) from error


def _unreadable_error(error: OSError, path: Path) -> ModelfetchError:
    message = f"{path} cannot be read: {error.strerror or error}."
    if isinstance(error, PermissionError):
        return CredentialsError(message, hint="Check its owner and mode.")
    return RefusedError(message, hint="Check the disk it is on.")

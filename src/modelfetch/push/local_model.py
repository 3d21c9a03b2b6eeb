"""A model on this machine that is to be pushed: what belongs to it, its fingerprints, and that it stays as it is."""

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
    WrongBytesError,
)
from modelfetch.sources import RemoteObject, Source, SourceOptions, open_source
from modelfetch.uri import ModelURI

_READ_BYTES = 1024**2  # bytes hashed at a time


class LocalModel(NamedTuple):
    """A file, or the files and empty folders of a directory.

    Attributes:
        files: whose keys are their paths here.
        folders: that hold nothing, not even folders.
        directory: whether the model is one.
        source: what reads it.
    """

    files: tuple[RemoteObject, ...]
    folders: tuple[str, ...]
    directory: bool
    source: Source

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(o.size or 0 for o in self.files)

    @property
    def paths(self) -> set[str]:
        """All that is pushed, and the folders that come with it."""
        named = {*(o.path for o in self.files), *self.folders}
        return named | _parent_folders(named)

    def without_file(self, path: str) -> "LocalModel":
        """The same model without one of its files, if it has it.

        Raises:
            NotFoundError: it has no other.
        """
        files = tuple(o for o in self.files if o.path != path)
        if not files:
            raise NotFoundError(f"There is no file but {path}.", hint="Is it the directory of the model?")
        return self._replace(files=files)

    @contextlib.contextmanager
    def refuse_changes(self, file: RemoteObject) -> Iterator[None]:
        """Raise a ChangedError, whatever else went wrong, if the file is then no longer the one that was found."""
        try:
            yield
        finally:
            self.source.sign(file)


def find_local_model(path: Path) -> LocalModel:
    """What is to be pushed of a path: not what an earlier pull left there; every name such that a pull takes it.

    Raises:
        NotFoundError: there is nothing at the path, or no file in it.
        WrongBytesError: the file is empty, or a name cannot be pulled.
        ModelfetchError: it cannot be read.
    """
    source = open_source(ModelURI("file", "", path.absolute().as_posix()), SourceOptions())
    listing = source.resolve()
    files = tuple(o for o in listing.objects if not (listing.directory and _is_excluded(o.path)))
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
    return LocalModel(files, folders, listing.directory, source)


def _is_excluded(path: str) -> bool:
    """Whether it tells of a model, and is not part of one."""
    return safe_paths.is_reserved_path(path) or safe_paths.is_manifest_path(path)


def _parent_folders(paths: Iterable[str]) -> set[str]:
    return {parent for path in paths for parent in safe_paths.parent_paths(path)}


def fingerprint_file(path: Path, expected: Mapping[str, str]) -> Fingerprint:
    """A file's sha256, and one of the checksums that are wanted.

    Raises:
        ModelfetchError: it cannot be read.
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
    """Turn what the operating system says of a file into an error of ours."""
    try:
        yield
    except OSError as error:
        raise _unreadable_error(error, path) from error


def _unreadable_error(error: OSError, path: Path) -> ModelfetchError:
    message = f"{path} cannot be read: {error.strerror or error}."
    if isinstance(error, PermissionError):
        return CredentialsError(message, hint="Check its owner and mode.")
    return RefusedError(message, hint="Check the disk it is on.")

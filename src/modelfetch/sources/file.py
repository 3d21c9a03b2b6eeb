"""Models on a local path: the same guarantees for what another program put there."""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelfetch.errors import CredentialsError, ModelfetchError, NotFoundError, RefusedError
from modelfetch.net.connection_pool import ConnectionPool
from modelfetch.sources.base import Access, Listing, RemoteObject, SignedRequest, changed_error
from modelfetch.uri import ModelURI


class FileSource:
    """A file or a directory."""

    def __init__(self, uri: ModelURI, access: Access) -> None:
        """Take the path; nothing is read yet."""
        self.uri = uri
        self.connect = access.connect
        self.pool = ConnectionPool(access.connect)

    def resolve(self) -> Listing:
        """See `Source.find`; links are followed."""
        top = Path(self.uri.key)
        try:
            if top.is_dir():
                folders, files = self._walk(top)
                return Listing(
                    tuple(self._state(f, f.relative_to(top).as_posix()) for f in files), directory=True, folders=folders
                )
            if self.uri.is_directory and top.exists():
                raise NotFoundError(f"{top} is a file, not a directory.", hint="Leave the slash at the end away.")
            return Listing((self._state(top, top.name),), directory=False)
        except OSError as error:
            raise _explain(error, top) from error

    def _walk(self, top: Path) -> tuple[tuple[str, ...], list[Path]]:
        def fail(error: OSError) -> None:
            raise error

        files: list[Path] = []
        folders: list[str] = []
        for here, subfolders, names in os.walk(top, onerror=fail, followlinks=True):
            _refuse_loop(Path(here), top)
            files += [Path(here, name) for name in names]
            folders += [Path(here, name).relative_to(top).as_posix() for name in subfolders]
        return tuple(sorted(folders)), sorted(files)

    def _state(self, path: Path, name: str) -> RemoteObject:
        state = path.stat()
        if not path.is_file():
            raise RefusedError(
                f"{path} is neither a file nor a directory.", hint="A model is made of files and directories."
            )
        return RemoteObject(key=str(path), path=name, size=state.st_size, version=_version(state))

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.beside`."""
        path = Path(obj.key + suffix)
        try:
            return self._state(path, obj.path + suffix)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise _explain(error, path) from error

    def with_checksums(self, obj: RemoteObject) -> RemoteObject:
        """See `Source.complete`; a file system knows no checksums."""
        return obj

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:  # noqa: ARG002
        """See `Source.authorise`.

        Raises:
            ChangedError: the file is no longer the one that was found.
        """
        try:
            state = Path(obj.key).stat()
        except OSError as error:
            raise _explain(error, Path(obj.key)) from error
        if _version(state) != obj.version:
            raise changed_error(obj.key)
        return SignedRequest(Path(obj.key).as_uri())

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002
        """See `Source.checksums`."""
        return {}

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:  # noqa: ARG002
        """See `Source.diagnose`."""
        return RefusedError(f"{obj.key} cannot be read.", hint="Check the file.")


def _version(state: os.stat_result) -> str:
    return f"{state.st_mtime_ns}-{state.st_size}"


def _refuse_loop(here: Path, top: Path) -> None:
    real = here.resolve()
    if any(parent.resolve() == real for parent in _between(here, top)):
        raise RefusedError(f"{here} is a link to a directory that it stands in.", hint="Remove the link.")


def _between(here: Path, top: Path) -> Iterator[Path]:
    while here != top:
        here = here.parent
        yield here


def _explain(error: OSError, path: Path) -> ModelfetchError:
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ENAMETOOLONG:
        return NotFoundError(
            f"There is no file or directory {error.filename or path}.",
            hint="Check the path; did you mean s3://, gs:// or https://?",
        )
    if isinstance(error, PermissionError):
        return CredentialsError(
            f"{error.filename or path} may not be read: {error.strerror or error}.", hint="Check its owner and mode."
        )
    return RefusedError(
        f"{error.filename or path} cannot be read: {error.strerror or error}.", hint="Check the disk it is on."
    )

"""Local paths as a source: the same guarantees for files that another program wrote."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelfetch.errors import CredentialsError, ModelfetchError, NotFoundError, RefusedError, UsageError
from modelfetch.net.connection_pool import Response
from modelfetch.sources.base import (
    NOTHING,
    Listing,
    RemoteObject,
    SignedRequest,
    Source,
    SourceOptions,
    SourceSpec,
    changed_error,
)
from modelfetch.uri import FORMS, ModelURI, check_text, show_address, split_scheme

_VERSION_HEADER = "x-file-version"
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


def parse_file_uri(text: str) -> ModelURI:
    """Parse `file:///absolute/path` (percent-encoded) or a plain path; `~` is the home directory.

    Raises:
        UsageError: the path is empty, or the URL names a host.
    """
    scheme, rest = split_scheme(text)
    if not scheme:
        return _make_uri(text)
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(f"file://{rest} names a host.", hint="Write file:///absolute/path.")
    return _make_uri("/" + unquote(path, errors="surrogateescape"))


def _make_uri(text: str) -> ModelURI:
    if not text:
        raise UsageError("The source is empty.", hint=FORMS)
    try:
        path = Path(os.path.expanduser(text)).absolute().as_posix()  # noqa: PTH111  Path's own fails for unknown users
    except OSError as error:
        raise UsageError(f"{text!r} is relative to a directory that is gone.", hint="Write /absolute/path.") from error
    check_text(path)
    return ModelURI("file", "", path + "/" if text.endswith("/") and path != "/" else path)


class FileSource(Source):
    """A file or a directory."""

    def __init__(self, uri: ModelURI, options: SourceOptions) -> None:
        """Keep the path; reads nothing."""
        super().__init__(uri, options.network)

    def resolve(self) -> Listing:
        """See `Source.resolve`; symbolic links are followed."""
        top = Path(self.uri.key)
        try:
            if top.is_dir():
                folders, files = _walk_files(top)
                objects = tuple(_stat_object(path, path.relative_to(top).as_posix()) for path in files)
                return Listing(objects, directory=True, folders=folders)
            if self.uri.is_directory and top.exists():
                raise NotFoundError(f"{top} is a file, not a directory.", hint="Leave the slash at the end away.")
            return Listing((_stat_object(top, top.name),), directory=False)
        except OSError as error:
            raise _explain_error(error, top) from error

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.sidecar`; stats the file of that name."""
        path = Path(obj.key + suffix)
        try:
            return _stat_object(path, obj.path + suffix)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise _explain_error(error, path) from error

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:  # noqa: ARG002
        """See `Source.sign`; returns the file's URL.

        Raises:
            ChangedError: size, mtime, ctime or inode differ from the resolved file's.
        """
        try:
            state = Path(obj.key).stat()
        except OSError as error:
            raise _explain_error(error, Path(obj.key)) from error
        if _make_version(state) != obj.version:
            raise changed_error(obj.key)
        return SignedRequest(Path(obj.key).as_uri())

    def open_range(self, request: SignedRequest, headers: Mapping[str, str]) -> Response:
        """See `Source.open_range`; reads the file itself."""
        path = Path(unquote(urlsplit(request.url).path))
        wanted = _RANGE.fullmatch(headers.get("Range", "bytes=0-"))
        assert wanted is not None
        try:
            return _FileResponse(path, int(wanted[1]), int(wanted[2]) + 1 if wanted[2] else None)
        except OSError as error:
            raise _explain_read_error(error, path) from error

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:  # noqa: ARG002
        """See `Source.explain_refusal`; a file has no status codes."""
        return RefusedError(f"{obj.key} cannot be read.", hint="Check the file.")


class _FileResponse:
    """A range of a file in the form of an HTTP response, so that one reader checks both."""

    def __init__(self, path: Path, start: int, end: int | None) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        state = os.fstat(self._file.fileno())
        self._version, size = _make_version(state), state.st_size
        self.url, self.request_headers = path.as_uri(), NOTHING
        self.status = 206
        last = (size if end is None else end) - 1
        self.headers: Mapping[str, str] = {"content-range": f"bytes {start}-{last}/{size}"}
        if start == 0 and end in (None, size):
            self.status, self.headers = 200, {"content-length": str(size)}
        self.headers = {**self.headers, _VERSION_HEADER: self._version}
        self._left = last + 1 - start
        self._file.seek(start)

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes.

        Raises:
            ChangedError: the file was written to since it was opened; noticed with the last byte of the range.
        """
        try:
            count = self._file.readinto(buffer)
            self._left -= count
            if self._left <= 0 and _make_version(os.fstat(self._file.fileno())) != self._version:
                raise changed_error(str(self._path))
        except OSError as error:
            raise _explain_read_error(error, self._path) from error
        return count

    def close(self) -> None:
        self._file.close()

    def shutdown(self) -> None:
        """Do nothing: reading a file does not wait for a peer."""


def _walk_files(top: Path) -> tuple[tuple[str, ...], list[Path]]:
    """Return the folders (relative) and the files (absolute) below a directory, both sorted."""

    def fail(error: OSError) -> None:
        raise error

    files: list[Path] = []
    folders: list[str] = []
    for here, subfolders, names in os.walk(top, onerror=fail, followlinks=True):
        _refuse_loop(Path(here), top)
        files += [Path(here, name) for name in names]
        folders += [Path(here, name).relative_to(top).as_posix() for name in subfolders]
    return tuple(sorted(folders)), sorted(files)


def _stat_object(path: Path, name: str) -> RemoteObject:
    state = path.stat()
    if not path.is_file():
        raise RefusedError(
            f"{path} is neither a file nor a directory.", hint="A model is made of files and directories."
        )
    version = _make_version(state)
    return RemoteObject(str(path), name, state.st_size, version, pins={_VERSION_HEADER: version})


def _make_version(state: os.stat_result) -> str:
    """Return the version of a file's content: reproducible builds repeat size and mtime, but not ctime and inode."""
    return f"{state.st_mtime_ns}-{state.st_size}-{state.st_ctime_ns}-{state.st_ino}"


def _refuse_loop(here: Path, top: Path) -> None:
    real = here.resolve()
    if any(parent.resolve() == real for parent in _walk_up(here, top)):
        raise RefusedError(f"{here} is a link to a directory that it stands in.", hint="Remove the link.")


def _walk_up(here: Path, top: Path) -> Iterator[Path]:
    while here != top:
        here = here.parent
        yield here


def _explain_error(error: OSError, path: Path) -> ModelfetchError:
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ENAMETOOLONG:
        return NotFoundError(
            f"There is no file or directory {show_address(str(error.filename or path))}.",
            hint="Check the path; did you mean s3://, gs:// or https://?",
        )
    if isinstance(error, PermissionError):
        return CredentialsError(
            f"{error.filename or path} may not be read: {error.strerror or error}.", hint="Check its owner and mode."
        )
    return RefusedError(
        f"{error.filename or path} cannot be read: {error.strerror or error}.", hint="Check the disk it is on."
    )


def _explain_read_error(error: OSError, path: Path) -> ModelfetchError:
    return RefusedError(
        f"{path} cannot be read: {error.strerror}.", hint="Check its owner and mode, and the disk it is on."
    )


SPEC = SourceSpec(("file",), parse_file_uri, lambda _, common: common, FileSource)

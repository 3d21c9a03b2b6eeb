"""Where a model is: a URI, taken apart. No I/O."""

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from modelfetch.errors import UsageError

Scheme = Literal["s3", "gs", "https", "http", "file"]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_S3_VERSION = re.compile(r"\?versionId=([^?&#]*)\Z")
_GENERATION = re.compile(r"#([0-9]+)\Z")  # any other '#' belongs to the name
# An access point's name takes the place of a bucket's, and may hold a slash:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-naming.html
_ACCESS_POINT = re.compile(r"(arn:[^/]+:(?:outpost[/:][^/:]+[/:])?accesspoint[/:][^/]+)/?(.*)", re.DOTALL)
_USER_INFO = re.compile(r"^[^?#]*@", re.DOTALL)
_FORMS = "Use s3://bucket/path, gs://bucket/path, https://host/path, file:///path or a plain path."


class ModelURI(NamedTuple):
    """A source or a target.

    Attributes:
        scheme: which kind of store.
        bucket: the bucket; the host for http(s); empty for files.
        key: the object's key or the prefix, as the store spells it; the path for files.
        version: the version asked for (S3 version id, GCS generation), if one was.
        url: the whole address to fetch, for http(s) only; may hold secrets in its query.
    """

    scheme: Scheme
    bucket: str
    key: str
    version: str | None = None
    url: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it can only mean a directory: it ends with a slash, or names a whole bucket."""
        return self.scheme not in ("http", "https") and (not self.key or self.key.endswith("/"))

    @property
    def name(self) -> str:
        """The last segment: the file name of a single object."""
        return self.key.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        """The address without version and without query, fit for logs and receipts."""
        if self.scheme == "file":
            return f"file://{self.key}"
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def pinned(self, version: str) -> str:
        """The address with this version, in the form that `parse` reads."""
        match self.scheme:
            case "gs":
                return f"{self}#{version}"
            case "s3":
                return f"{self}?versionId={version}"
            case _:
                return str(self)


def parse_uri(text: str) -> ModelURI:
    """Take a URI apart.

    Raises:
        UsageError: the scheme is unknown, the bucket or the path is missing, or it is no text.
    """
    _vet(text)
    found = _SCHEME.match(text)
    if not found:
        return _file(text)
    rest = text[found.end() :]
    match found[1].lower():
        case "s3":
            return _bucket("s3", *_cut(rest, _S3_VERSION), text)
        case "gs" | "gcs":
            return _bucket("gs", *_cut(rest, _GENERATION), text)
        case ("https" | "http") as scheme:
            return _web(scheme, text)
        case "file":
            return _file_url(rest)
        case other:
            raise UsageError(f"Unknown scheme {other}:// in {mask_uri(text)!r}.", hint=_FORMS)


def _vet(text: str) -> None:
    if "\0" in text:
        raise UsageError("The source holds a NUL character.", hint=_FORMS)
    if text != text.encode(errors="replace").decode():
        raise UsageError(f"The source {text!r} is not valid UTF-8.", hint="A receipt could not name it: rename it.")


def mask_uri(text: str) -> str:
    """An address that may make no sense, as a message may show it: without name, password and query."""
    found = _SCHEME.match(text)
    if not found or found[1].lower() == "file":
        return text
    rest = text[found.end() :]
    if found[1].lower() in ("s3", "gs", "gcs"):  # what follows the question mark is a version or part of the name
        bucket, slash, key = rest.partition("/")
        return f"{found[0]}{_USER_INFO.sub('***@', bucket)}{slash}{key}"
    return found[0] + re.sub(r"\?.*", "?***", _USER_INFO.sub("***@", rest), flags=re.DOTALL)


def _cut(rest: str, pattern: re.Pattern[str]) -> tuple[str, str | None]:
    found = pattern.search(rest)
    return (rest[: found.start()], found[1]) if found else (rest, None)


def _bucket(scheme: Literal["s3", "gs"], rest: str, version: str | None, text: str) -> ModelURI:
    point = _ACCESS_POINT.match(rest) if scheme == "s3" else None
    bucket, _, key = (point[1], "/", point[2]) if point else rest.partition("/")
    if not bucket:
        raise UsageError(f"No bucket in {mask_uri(text)!r}.", hint=f"Write {scheme}://bucket/path.")
    if "@" in bucket:
        raise UsageError("The address holds credentials.", hint="Give them in variables or files that the SDK reads.")
    if version == "":
        raise UsageError(f"Empty versionId in {text!r}.", hint="Give the version's id, or leave ?versionId= away.")
    if version is not None and (not key or key.endswith("/")):
        raise UsageError(
            f"A version pins one object, not a directory: {text!r}.", hint="Name the object, or drop the pin."
        )
    return ModelURI(scheme, bucket, key, version)


def _web(scheme: Literal["https", "http"], text: str) -> ModelURI:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"Not a URL: {error}.", hint="Write https://host/path.") from error
    if not parts.hostname:
        raise UsageError("No host in the URL.", hint="Write https://host/path.")
    if parts.username or parts.password:
        raise UsageError("The URL holds credentials.", hint="Put a token into MODELFETCH_BEARER_TOKEN instead.")
    name = unquote(parts.path).rpartition("/")[2]
    if not name:
        raise UsageError("The URL names no file: it ends with a slash.", hint="https sources are single files.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host = f"{host}:{port}" if port else host
    url = parts._replace(scheme=scheme, fragment="").geturl()
    return ModelURI(scheme, host, parts.path.lstrip("/"), url=url)


def _file_url(rest: str) -> ModelURI:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(f"file://{rest} names a host.", hint="Write file:///absolute/path.")
    return _file("/" + unquote(path, errors="surrogateescape"))


def _file(text: str) -> ModelURI:
    if not text:
        raise UsageError("The source is empty.", hint=_FORMS)
    try:
        path = Path(os.path.expanduser(text)).absolute().as_posix()  # noqa: PTH111  Path's own fails for unknown users
    except OSError as error:
        raise UsageError(f"{text!r} is relative to a directory that is gone.", hint="Write /absolute/path.") from error
    _vet(path)
    return ModelURI("file", "", path + "/" if text.endswith("/") and path != "/" else path)

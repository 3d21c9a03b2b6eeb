"""What every kind of store offers: find a model, state its version and checksums, authorise requests for its bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from modelfetch.errors import (
    ChangedError,
    CredentialsError,
    ModelfetchError,
    NotFoundError,
    RefusedError,
    TransientError,
)
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions
from modelfetch.uri import ModelURI

NOTHING: Mapping[str, str] = MappingProxyType({})  # a default
_MOST_DIGITS = 30  # Python refuses to read 4,300


class RemoteObject(NamedTuple):  # there may be a million
    """One stored object.

    Attributes:
        key: as the store spells it.
        path: where it goes, relative to the model's directory.
        size: in bytes as stored; None if the server does not say.
        version: what pins it: a version id, a generation, an ETag.
        pins: headers (in lower case) that a reply must repeat if it has them, or it is of another version.
        checksums: of the stored bytes, in hexadecimal by algorithm (crc32, crc32c, crc64nvme, md5, sha1, sha256).
        gzip: whether the stored bytes are to be decoded on arrival (contentEncoding gzip on GCS).
        ranges: whether the server is known to serve ranges.
    """

    key: str
    path: str
    size: int | None
    version: str
    pins: Mapping[str, str] = NOTHING
    checksums: Mapping[str, str] = NOTHING
    gzip: bool = False
    ranges: bool = True


class Listing(NamedTuple):
    """What a source holds: one object, or a directory's objects and its empty folders."""

    objects: tuple[RemoteObject, ...]
    directory: bool
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignedRequest:
    """An authorised GET: both parts hold secrets and show neither."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Access:
    """How to reach stores, beside what their SDKs read themselves.

    Attributes:
        connect: timeouts and certificates.
        anonymous: send no credentials.
        bearer_token: for https sources.
        endpoint: of an S3-compatible store, if named in KServe's way.
        virtual_host: address S3 buckets as host names.
        region: of S3; if it is None, the SDK looks for it.
        emulator: address of what stands in for Google Cloud Storage (STORAGE_EMULATOR_HOST).
        write: whether credentials must allow writing.
        max_listed: entries of a listing to take, chosen ones and others: they are kept in memory.
    """

    connect: NetworkOptions = field(default_factory=NetworkOptions)
    anonymous: bool = False
    bearer_token: str = field(default="", repr=False)
    endpoint: str | None = None
    virtual_host: bool = False
    region: str | None = None
    emulator: str | None = None
    write: bool = False
    max_listed: int = 1_000_000


class Source(Protocol):
    """A store, opened at one URI. Its methods may be called from several threads.

    Attributes:
        uri: what it was opened at.
        connect: how it is reached.
        pool: connections that it has asked by, for whoever fetches bytes.
    """

    uri: ModelURI
    connect: NetworkOptions
    pool: ConnectionPool

    def resolve(self) -> Listing:
        """List what is there, with sizes and versions.

        Raises:
            NotFoundError: no such bucket, object, version or prefix.
            ModelfetchError: it cannot be asked.
        """
        ...

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """The object whose name is that of `obj` with a suffix, whatever its version; None if there is none.

        Raises:
            CredentialsError: it may not be asked for, or, to S3 without the right to list, is not there.
            ModelfetchError: it cannot be asked for.
        """
        ...

    def with_checksums(self, obj: RemoteObject) -> RemoteObject:
        """The same object with its checksums, which a listing may lack."""
        ...

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:
        """A request for the object's bytes, valid for some minutes; `renew` after a refusal fetches new credentials."""
        ...

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The checksums that a reply with the whole object states."""
        ...

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:
        """Why a request for the object's bytes was refused, asked through the SDK."""
        ...


@runtime_checkable
class Store(Source, Protocol):
    """A source that can be written to.

    Attributes:
        crc: the name of the CRC that it compares uploads with.
    """

    crc: str

    def upload(self, path: Path, key: str, crc: str, advance: Callable[[int], None]) -> RemoteObject:
        """Store a file; what breaks on the way is sent again, in parts if it is large.

        Args:
            path: the file.
            key: the object's.
            crc: the file's, in hexadecimal.
            advance: told of bytes as they are sent; of a negative number when some have to be sent again.

        Returns:
            What is stored now, with its checksums.

        Raises:
            MismatchError: other bytes arrived.
            ModelfetchError: it cannot be stored.
            OSError: the file cannot be read.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store a small object in one request; an empty one whose key ends with a slash is an empty directory's."""
        ...


def parse_number(text: str | None) -> int | None:
    """A header's number; None for what is none, or has more digits than any size or offset."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def parse_retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); dates are rare and count as none."""
    return float(value) if value and value.isdecimal() else None


# Not implemented, HTTP version or negotiation, a loop in the store, a portal that wants a login: no time heals these.
_FINAL = (501, 505, 506, 508, 510, 511)


def error_for_status(status: int, what: str, detail: str = "", *, wait: float | None = None) -> ModelfetchError:
    """The error for an HTTP status (RFC 9110 and the registry of IANA), where the store gives no better reason."""
    said = f"{what}: HTTP {status}{f' ({detail})' if detail else ''}"
    match status:
        case 401 | 403:
            return CredentialsError(f"Access denied to {said}.", hint="Check the credentials and what they may read.")
        case 407:
            return CredentialsError(f"The proxy refuses {said}.", hint="Check the user and password in HTTPS_PROXY.")
        case 404 | 410:
            return NotFoundError(f"Not found: {said}.", hint="Check bucket and path with `modelfetch inspect`.")
        case 412 | 416:
            return changed_error(what)
        case 408 | 425 | 429:
            return TransientError(f"The server is busy: {said}.", hint="Try again later.", retry_after=wait)
        case _ if status >= 500 and status not in _FINAL:
            return TransientError(f"The server is busy or failing: {said}.", hint="Try again later.", retry_after=wait)
        case _:
            return RefusedError(f"The server refuses {said}.", hint="Check the address and the endpoint.")


def changed_error(what: str) -> ChangedError:
    """The error for an object that is no longer the one that was found."""
    return ChangedError(f"{what} was replaced while it was being read.", hint="Run again to get the new version.")

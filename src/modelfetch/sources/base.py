"""The interface of a source: resolve an address, state versions and checksums, sign requests, explain refusals."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self, runtime_checkable

from modelfetch.errors import (
    ChangedError,
    ConfigError,
    CredentialsError,
    ModelfetchError,
    NotFoundError,
    RefusedError,
    TransientError,
    WrongBytesError,
)
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions, Response
from modelfetch.safe_paths import is_path_like
from modelfetch.uri import ModelURI

NOTHING: Mapping[str, str] = MappingProxyType({})  # a default
_MOST_DIGITS = 30  # of a number in a header; Python refuses to read 4,300


class RemoteObject(NamedTuple):  # a listing may hold a million
    """One stored object.

    Attributes:
        key: name in the store, as the store spells it.
        path: relative path below the model's directory.
        size: bytes as stored; None if the server does not state the size.
        version: version id, generation or ETag that pins the object; empty if the store has none.
        pins: headers (names in lower case) that a response must repeat if it has them: a different value means a
            different version.
        checksums: of the stored bytes, in hexadecimal by algorithm (crc32, crc32c, crc64nvme, md5, sha1, sha256).
        gzip: decode the stored bytes after the transfer (contentEncoding gzip on GCS).
        ranges: whether the server is known to serve ranges.
        pinned_uri: address of exactly this version; empty if the store has no such addresses.
        confirmed_by: header of `pins` that every response must have: the caller asked for one version, and some stores
            ignore the question. Empty for the newest version.
        media_type: type that a web server states, in lower case without parameters; empty elsewhere.
    """

    key: str
    path: str
    size: int | None
    version: str
    pins: Mapping[str, str] = NOTHING
    checksums: Mapping[str, str] = NOTHING
    gzip: bool = False
    ranges: bool = True
    pinned_uri: str = ""
    confirmed_by: str = ""
    media_type: str = ""


class Listing(NamedTuple):
    """Content of a resolved address: one object, or a directory's objects and empty folders.

    Attributes:
        objects: exactly one unless `directory`.
        directory: whether the address is a prefix or directory.
        folders: empty folders, by relative path.
        version: version of the whole set, if the store has one (a commit, an image digest); empty otherwise.
        pinned_uri: address of exactly this version of the set; empty if the store has no such addresses.
    """

    objects: tuple[RemoteObject, ...]
    directory: bool
    folders: tuple[str, ...] = ()
    version: str = ""
    pinned_uri: str = ""


@dataclass(frozen=True)
class SignedRequest:
    """An authorised GET. URL and headers hold secrets, so `repr` shows neither."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class SourceOptions:
    """Options that every source understands; a source's own options extend them.

    Attributes:
        network: timeouts, certificates, connections.
        anonymous: send no credentials.
        write: ask for credentials that may write.
        max_listed: entries of a listing to accept, selected or not: the listing is kept in memory.
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    anonymous: bool = False
    write: bool = False
    max_listed: int = 1_000_000

    @classmethod
    def of(cls, options: "SourceOptions") -> Self:
        """Return the options as this class, with defaults for whatever `options` does not have."""
        if isinstance(options, cls):
            return options
        return cls(**{common.name: getattr(options, common.name) for common in fields(SourceOptions)})


class Source(ABC):
    """A store, opened at one address. Methods may be called from several threads.

    Attributes:
        uri: address that the source was opened at.
        network: timeouts and certificates.
        pool: connections of the source's own requests, shared with the transfer engine.
        max_key_bytes: longest key that the store accepts; None if unlimited.
        has_sidecars: whether asking for `<key><suffix>` is cheap and harmless (not so on the web).
    """

    max_key_bytes: int | None = None
    has_sidecars = True

    def __init__(self, uri: ModelURI, network: NetworkOptions) -> None:
        """Prepare connections; makes no request."""
        self.uri = uri
        self.network = network
        self.pool = ConnectionPool(network)

    @abstractmethod
    def resolve(self) -> Listing:
        """List the objects at the address, with sizes and versions.

        Raises:
            NotFoundError: no such bucket, object, version or prefix.
            ModelfetchError: the store cannot be asked.
        """

    @abstractmethod
    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """Return the object named `<key><suffix>`, in its newest version; None if no such object exists.

        Raises:
            CredentialsError: access denied; S3 also denies missing objects to callers without the right to list.
            ModelfetchError: the store cannot be asked.
        """

    @abstractmethod
    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:
        """Return a GET request for the object, valid for some minutes and for every range.

        Args:
            obj: object to fetch.
            renew: fetch new credentials first, after a refusal.
        """

    @abstractmethod
    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:
        """Return the error for a refused request, with the store's own reason."""

    def with_checksums(self, obj: RemoteObject) -> RemoteObject:
        """Return the object with the checksums that a listing lacks; by default the listing has all."""
        return obj

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002  for sources that have some
        """Return the checksums stated in the response headers of a whole object; by default none."""
        return {}

    def open_range(self, request: SignedRequest, headers: Mapping[str, str]) -> Response:
        """Send a signed request, with the `Range` header in `headers` if a part is wanted; by default over HTTP.

        Raises:
            ModelfetchError: the server was not reached, or did not begin to answer in time.
        """
        return self.pool.get(request.url, {**request.headers, **headers})


@runtime_checkable
class WritableSource(Protocol):
    """A source that can be written to.

    Attributes:
        crc: name of the CRC that the store compares uploads with.
        max_key_bytes: longest key that the store accepts; None if unlimited.
    """

    uri: ModelURI
    crc: str
    max_key_bytes: int | None

    def resolve(self) -> Listing:
        """See `Source.resolve`; pushes list the target."""
        ...

    def upload(self, path: Path, key: str, crc: str, on_sent: Callable[[int], None]) -> RemoteObject:
        """Store a file; repeat broken requests, in parts if the file is large.

        Args:
            path: local file.
            key: object key.
            crc: CRC of the file, in hexadecimal.
            on_sent: called with the number of bytes sent; negative when bytes have to be sent again.

        Returns:
            The stored object, with its checksums.

        Raises:
            MismatchError: the store received different bytes.
            ModelfetchError: the object cannot be stored.
            OSError: the file cannot be read.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store a small object in one request; an empty object whose key ends with a slash is an empty directory."""
        ...

    def put_if(self, key: str, data: bytes, expected: Mapping[str, str] | None) -> Mapping[str, str]:
        """Store a small object if the stored one is still the expected one, where the store can compare.

        Args:
            key: object key.
            data: content.
            expected: pins of the version to replace; empty if no object must exist, None for any.

        Returns:
            Pins of the new version.

        Raises:
            ChangedError: the stored object is another.
            ModelfetchError: the object cannot be stored.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object; a missing object is no error.

        Raises:
            CredentialsError: the credentials do not allow deletion.
            ModelfetchError: the object cannot be deleted.
        """
        ...

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.sidecar`; pushes look for earlier manifests."""
        ...


class SourceSpec(NamedTuple):
    """Registration of one kind of source.

    Attributes:
        schemes: URI schemes, in lower case; `parse` decides which one a `ModelURI` shows.
        parse: parse an address. Raises UsageError.
        options_from_env: extend the common options with the source's own environment variables.
        open: open an address; makes no request.
        writable: whether `push` can write there.
        secret_query: whether the query of an address may authorise, so that messages must not show it.
    """

    schemes: tuple[str, ...]
    parse: Callable[[str], ModelURI]
    options_from_env: Callable[[Mapping[str, str], SourceOptions], SourceOptions]
    open: Callable[[ModelURI, SourceOptions], Source]
    writable: bool = False
    secret_query: bool = False


def refuse_secret_in_path(environ: Mapping[str, str], *names: str) -> None:
    """Refuse variables that hold a key or token itself where the path of its file belongs.

    The libraries would take the value for a path, and quote all of it in their errors.

    Raises:
        ConfigError: a variable holds no path.
    """
    for name in names:
        if (value := environ.get(name)) and not is_path_like(value):
            raise ConfigError(
                f"{name} holds no path: the key or token itself stands where the path of its file belongs.",
                hint=f"Mount the secret as a file, and set {name} to the file's path.",
            )


def is_truthy(value: str | None, *, default: bool) -> bool:
    """Read a boolean environment variable as KServe does; unset or empty is the default."""
    return value.strip().lower() not in ("0", "false", "no", "off") if value else default


def parse_number(text: str | None) -> int | None:
    """Return the number in a header; None for anything else, or for more digits than a size or offset has."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3); dates are rare and are ignored."""
    return float(value) if value and value.isdecimal() else None


# Not implemented, HTTP version or negotiation, a loop in the store, a portal that wants a login: no time heals these.
_FINAL = (501, 505, 506, 508, 510, 511)


def error_for_status(status: int, what: str, detail: str = "", *, wait: float | None = None) -> ModelfetchError:
    """Return the error for an HTTP status (RFC 9110, IANA registry), for stores that give no better reason."""
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


def unconfirmed_version_error(address: str, version: str, answered: str) -> WrongBytesError:
    """Return the error for a store that ignores a pin, and answers with another version or without any."""
    return WrongBytesError(
        f"The store was asked for version {version} of {address}, and answers with {answered or 'none'}.",
        hint="The store seems to ignore versions: pull without the version, with --sha256 as the pin.",
    )


def changed_error(what: str) -> ChangedError:
    """Return the error for an object that was replaced since the source was resolved."""
    return ChangedError(f"{what} was replaced while it was being read.", hint="Run again to get the new version.")

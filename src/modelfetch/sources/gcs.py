"""Models on Google Cloud Storage. Its SDK finds and states, google-auth authorises; neither fetches bytes."""

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import google.auth
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.auth.transport.requests import Request as AuthRequest
from google.cloud import storage
from google.cloud.storage.exceptions import InvalidResponse
from requests.adapters import HTTPAdapter

from modelfetch.errors import ModelfetchError, NotFoundError
from modelfetch.pool import CONNECT_TIMEOUT, Connect, check, host
from modelfetch.retry import request
from modelfetch.sources import gcs_errors
from modelfetch.sources.base import Access, Found, RemoteObject, Request, by_status, changed
from modelfetch.sources.bounded import Bounded
from modelfetch.sources.listing import Listing
from modelfetch.uri import ModelURI

_SCOPES = {
    False: ["https://www.googleapis.com/auth/devstorage.read_only"],
    True: ["https://www.googleapis.com/auth/devstorage.read_write"],
}
_FIELDS = "items(name,size,generation,crc32c,md5Hash,contentEncoding),nextPageToken"
_CHUNK = 16 * 1024**2  # bytes of a resumable upload that are held in memory and sent at a time
_MAX_GENERATION = 2**63 - 1


class GCSSource:
    """An object or a prefix in a bucket."""

    crc = "crc32c"

    def __init__(self, uri: ModelURI, access: Access) -> None:
        """Find credentials in the SDK's usual places; STORAGE_EMULATOR_HOST implies none.

        Raises:
            NoCredentialsError: there are none, and access is not to be anonymous.
        """
        self.uri = uri
        self.connect = access.connect
        self._timeout = (min(CONNECT_TIMEOUT, access.connect.stall_timeout), access.connect.stall_timeout)
        self._max_listed = access.max_listed
        self._lock = threading.Lock()
        self._had = False  # whether there were credentials
        self._issuer = AuthRequest(_issuing(access.connect))
        self._credentials: Any = None
        if not (access.anonymous or access.emulator):
            with self._issued():
                self._credentials, _ = google.auth.default(scopes=_SCOPES[access.write], request=self._issuer)
        with self._explained():
            self._client = self._connected(access)
            check(access.connect, self._client.api_endpoint)

    def _connected(self, access: Access) -> Any:  # noqa: ANN401
        """The SDK's client; it asks for tokens as we do."""
        nobody: Any = AnonymousCredentials  # google-auth's constructors are partly typed
        authorised: Any = AuthorizedSession
        credentials = nobody() if self._credentials is None else self._credentials
        session = authorised(credentials, auth_request=self._issuer, refresh_timeout=self._timeout[1])
        session.configure_mtls_channel()
        _trusting(session, access.connect)
        session.hooks["response"].append(self._bounded)
        options = {"api_endpoint": access.emulator} if access.emulator else None
        client = storage.Client(project="-", credentials=credentials, client_options=options, _http=session)
        # The SDK asks for the bucket's metadata in a thread of its own, for traces that nobody collects here.
        client._bucket_metadata_cache = None  # noqa: SLF001
        return client

    def find(self) -> Found:
        """See `Source.find`."""
        if not self.uri.is_directory:
            single = request(lambda: self._stat(self.uri.key, self.uri.name, self.uri.version))
            if single is not None:
                return Found((single,), directory=False)
            if self.uri.version:
                raise self._no_generation()
        return request(self._list)

    def _no_generation(self) -> NotFoundError:
        return NotFoundError(
            f"There is no {self.uri} of generation {self.uri.version}.",
            hint="`modelfetch inspect` shows the current one; `gcloud storage restore` brings a soft-deleted one back.",
        )

    def _stat(self, key: str, path: str, version: str | None = None) -> RemoteObject | None:
        generation = _generation(version)
        if generation is not None and generation > _MAX_GENERATION:
            raise self._no_generation()
        bucket = self._bucket()
        with self._explained(key), self._understood():
            blob = bucket.get_blob(key, generation=generation, timeout=self._timeout, retry=None)
            return None if blob is None else _object(blob, path)

    def _list(self) -> Found:
        prefix = self.uri.key if self.uri.is_directory else f"{self.uri.key}/"
        listing = Listing(prefix, self._max_listed)
        bucket = self._bucket()
        with self._explained(prefix), self._understood():
            blobs = bucket.list_blobs(prefix=prefix, fields=_FIELDS, timeout=self._timeout, retry=None)
            for page in blobs.pages:
                for blob in page:
                    listing.add(blob.name, int(blob.size), partial(_object, blob))
                if blobs.next_page_token == "":  # of the last (https://google.aip.dev/158); the SDK would begin again
                    break
                listing.end_page(blobs.next_page_token, more=blobs.next_page_token is not None)
        found = listing.found()
        if found is None:
            raise NotFoundError(
                f"There is nothing at {self.uri}.", hint="Check the path; `modelfetch inspect` lists what is there."
            )
        return found

    def beside(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.beside`."""
        return request(lambda: self._stat(obj.key + suffix, obj.path + suffix))

    def complete(self, obj: RemoteObject) -> RemoteObject:
        """See `Source.complete`; listings have the checksums already."""
        return obj

    def authorise(self, obj: RemoteObject, *, renew: bool = False) -> Request:
        """See `Source.authorise`: the media URL pinned to the generation, and a bearer token.

        `Accept-Encoding: gzip` asks for gzip objects as they are stored: https://cloud.google.com/storage/docs/transcoding
        """
        url = f"{self._media(obj.key)}?alt=media&generation={obj.version}"
        headers = {"Accept-Encoding": "gzip"}
        self._sign(url, headers, renew=renew)
        return Request(url, headers)

    def _sign(self, url: str, headers: dict[str, str], *, renew: bool = False) -> None:
        """Add a token that is good for a while, unless none is to be sent."""
        if self._credentials is None:
            return
        issuer = partial(self._issuer, timeout=self._timeout[1])
        with self._issued(), self._lock:
            if renew:
                self._credentials.refresh(issuer)
            self._credentials.before_request(issuer, "GET", url, headers)

    def _bucket(self) -> Any:  # noqa: ANN401
        """The SDK's bucket, and a token at hand: what goes wrong with tokens is not the store's word."""
        self._sign(self._client.api_endpoint, {})
        with self._explained():
            return self._client.bucket(self.uri.bucket)

    def _media(self, key: str) -> str:
        path = self._client.bucket(self.uri.bucket).blob(key).path
        return f"{self._client.api_endpoint}/download/storage/v1{path}"

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002
        """See `Source.checksums`; the metadata has them."""
        return {}

    def diagnose(self, obj: RemoteObject, status: int) -> ModelfetchError:
        """See `Source.diagnose`: the object's metadata asked through the SDK."""
        what = f"gs://{self.uri.bucket}/{obj.key}"
        try:
            now = self._stat(obj.key, obj.path)
            if now is None:
                return NotFoundError(f"{what} was deleted while it was being read.", hint="Upload it again.")
            if now.version != obj.version and not self.uri.version:
                return changed(what)
        except ModelfetchError as error:
            return error
        return by_status(status, what)

    def upload(self, path: Path, key: str, crc: str, advance: Callable[[int], None]) -> RemoteObject:
        """See `Store.upload`: the stated crc32c makes the store refuse other bytes."""
        blob = self._bucket().blob(key, chunk_size=_CHUNK)
        blob.crc32c = base64.b64encode(bytes.fromhex(crc)).decode()
        with path.open("rb") as file, self._explained(key, gcs_errors.HINT_WRITE):
            blob.upload_from_file(
                _Watched(file, advance),
                size=path.stat().st_size,
                content_type="application/octet-stream",
                checksum=None,  # it would be computed a second time
                timeout=self._timeout,
                retry=_UPLOAD_RETRY,
            )
        with self._understood():
            return _object(blob, path.name)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""

        def put() -> None:
            blob = self._bucket().blob(key)
            with self._explained(key, gcs_errors.HINT_WRITE):
                blob.upload_from_string(data, timeout=self._timeout, retry=None)

        request(put)

    @contextlib.contextmanager
    def _explained(self, key: str = "", denied: str = gcs_errors.HINT_READ) -> Iterator[None]:
        what = f"gs://{self.uri.bucket}/{key}"
        try:
            yield
        except api.GoogleAPICallError as error:
            raise gcs_errors.refusal(error, what, denied, self.uri.version) from error
        except gcs_errors.FAILURES as error:
            raise gcs_errors.failure(error, self._host(), self.connect.stall_timeout, had=self._had) from error

    @contextlib.contextmanager
    def _issued(self) -> Iterator[None]:
        """Explain what goes wrong with credentials; the SDK reads files and answers without much care."""
        try:
            yield
        except Exception as error:
            raise gcs_errors.unavailable(error, self.connect.stall_timeout, had=self._had) from error
        self._had = self._credentials is not None and self._credentials.token is not None

    def _bounded(self, reply: requests.Response, **_: object) -> None:
        reply.raw = Bounded(reply.raw, self._host())

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """A reply that lacks what Google's have, or has something else in its place, is no reply of Google's."""
        try:
            yield
        except (auth.GoogleAuthError, requests.RequestException):  # some of these are ValueErrors too
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise gcs_errors.nonsense(self._host()) from error

    def _host(self) -> str:
        client = getattr(self, "_client", None)
        return host(client.api_endpoint) if client else "Google Cloud Storage"


def _issuing(connect: Connect) -> requests.Session:
    """A session for those who issue tokens: never the one that sends tokens along."""
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=3))  # google-auth does not try again what did not connect
    _trusting(session, connect)
    return session


def _trusting(session: requests.Session, connect: Connect) -> None:
    """Give a session the certificates to trust."""
    if not connect.verify:
        session.verify = False
    elif connect.ca_bundle:
        session.verify = connect.ca_bundle


def _generation(version: str | None) -> int | None:
    """A generation as a number; one that is longer than any becomes one that there cannot be."""
    if version is None:
        return None
    return int(version) if len(version) <= len(str(_MAX_GENERATION)) else _MAX_GENERATION + 1


def _may_heal(error: Exception) -> bool:
    """Whether to send a part of an upload again; the SDK's own judgement includes certificates."""
    if isinstance(error, InvalidResponse):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, broken) and not isinstance(error, requests.exceptions.SSLError)


_UPLOAD_RETRY = Retry(predicate=_may_heal, initial=0.25, maximum=4.0, timeout=10.0)  # of one request: as in retry.py


class _Watched:
    """A file that tells of how far it was read: all that the SDK asks of a stream."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._advance(len(data))
        return data

    def tell(self) -> int:
        return self._file.tell()


def _object(blob: Any, path: str) -> RemoteObject:  # noqa: ANN401
    if blob.size < 0:
        raise ValueError(f"{blob.name!r} has {blob.size} bytes")
    checksums = {
        name: base64.b64decode(value).hex()
        for name, value in (("crc32c", blob.crc32c), ("md5", blob.md5_hash))
        if value
    }
    return RemoteObject(
        key=blob.name,
        path=path,
        size=int(blob.size),
        version=str(blob.generation),
        pins={"x-goog-generation": str(blob.generation)},
        checksums=checksums,
        gzip=blob.content_encoding == "gzip",
    )

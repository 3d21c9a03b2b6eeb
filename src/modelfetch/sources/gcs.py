"""Models on Google Cloud Storage. Its SDK finds and states, google-auth authorises; neither fetches bytes."""

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import google.auth
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import Request as AuthRequest
from google.cloud import storage
from google.cloud.storage.exceptions import InvalidResponse

from modelfetch.errors import (
    ConfigError,
    CredentialsError,
    ModelfetchError,
    NoCredentialsError,
    NotFoundError,
)
from modelfetch.pool import CONNECT_TIMEOUT, explain
from modelfetch.retry import request
from modelfetch.sources.base import Access, Found, RemoteObject, Request, by_status, changed, retry_after
from modelfetch.uri import ModelURI

_SCOPES = {
    False: ["https://www.googleapis.com/auth/devstorage.read_only"],
    True: ["https://www.googleapis.com/auth/devstorage.read_write"],
}
_FIELDS = "items(name,size,generation,crc32c,md5Hash,contentEncoding),nextPageToken"
_CHUNK = 16 * 1024**2  # bytes of a resumable upload that are held in memory and sent at a time
_HINT_WRITE = (
    "Allow storage.objects.create, .delete (to replace), .get and .list (role Storage Object User) to this identity."
)
_HINT_DENIED = "Allow storage.objects.get and storage.objects.list (role Storage Object Viewer) to this identity."
_HINT_NONE = (
    "Use workload identity, set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`;"
    " for a public bucket, --anonymous."
)


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
        self._lock = threading.Lock()
        with self._explained():
            self._client, self._credentials = _client(access)

    def find(self) -> Found:
        """See `Source.find`."""
        if not self.uri.is_directory:
            blob = request(self._blob)
            if blob is not None:
                return Found((_object(blob, self.uri.name),), directory=False)
            if self.uri.version:
                raise NotFoundError(
                    f"There is no {self.uri} of generation {self.uri.version}.",
                    hint="`modelfetch inspect` shows the current one.",
                )
        return request(self._list)

    def _blob(self) -> Any:  # noqa: ANN401
        with self._explained(self.uri.key):
            bucket = self._client.bucket(self.uri.bucket)
            generation = int(self.uri.version) if self.uri.version else None
            return bucket.get_blob(self.uri.key, generation=generation, timeout=self._timeout, retry=None)

    def _list(self) -> Found:
        prefix = self.uri.key if self.uri.is_directory else f"{self.uri.key}/"
        objects, folders = [], []
        with self._explained(prefix):
            blobs = self._client.list_blobs(
                self.uri.bucket, prefix=prefix, fields=_FIELDS, timeout=self._timeout, retry=None
            )
            for blob in blobs:
                path = blob.name.removeprefix(prefix)
                if path.endswith("/") and not blob.size:
                    folders.append(path.rstrip("/"))
                elif path:
                    objects.append(_object(blob, path))
        if not objects:
            raise NotFoundError(
                f"There is nothing at {self.uri}.", hint="Check the path; `modelfetch inspect` lists what is there."
            )
        return Found(tuple(objects), directory=True, folders=tuple(folders))

    def complete(self, obj: RemoteObject) -> RemoteObject:
        """See `Source.complete`; listings have the checksums already."""
        return obj

    def authorise(self, obj: RemoteObject, *, renew: bool = False) -> Request:
        """See `Source.authorise`: the media URL pinned to the generation, and a bearer token.

        `Accept-Encoding: gzip` asks for gzip objects as they are stored: https://cloud.google.com/storage/docs/transcoding
        """
        url = f"{self._media(obj.key)}?alt=media&generation={obj.version}"
        headers = {"Accept-Encoding": "gzip"}
        if self._credentials is not None:
            with self._explained(obj.key), self._lock:
                session = AuthRequest(self._client._http)  # noqa: SLF001  the SDK's own session: its proxies and certificates
                if renew:
                    self._credentials.refresh(session)
                self._credentials.before_request(session, "GET", url, headers)
        return Request(url, headers)

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
            with self._explained(obj.key):
                now = self._client.bucket(self.uri.bucket).get_blob(obj.key, timeout=self._timeout, retry=None)
            if now is None:
                return NotFoundError(f"{what} was deleted while it was being read.", hint="Upload it again.")
            if str(now.generation) != obj.version and not self.uri.version:
                return changed(what)
        except ModelfetchError as error:
            return error
        return by_status(status, what)

    def upload(self, path: Path, key: str, crc: str, advance: Callable[[int], None]) -> RemoteObject:
        """See `Store.upload`: the stated crc32c makes the store refuse other bytes."""
        blob = self._client.bucket(self.uri.bucket).blob(key, chunk_size=_CHUNK)
        blob.crc32c = base64.b64encode(bytes.fromhex(crc)).decode()
        with path.open("rb") as file, self._explained(key, _HINT_WRITE):
            blob.upload_from_file(
                _Watched(file, advance),
                size=path.stat().st_size,
                content_type="application/octet-stream",
                checksum=None,  # it would be computed a second time
                timeout=self._timeout,
                retry=_UPLOAD_RETRY,
            )
        return _object(blob, path.name)

    def mark(self, key: str) -> None:
        """See `Store.mark`."""

        def put() -> None:
            with self._explained(key, _HINT_WRITE):
                blob = self._client.bucket(self.uri.bucket).blob(key)
                blob.upload_from_string(b"", timeout=self._timeout, retry=None)

        request(put)

    @contextlib.contextmanager
    def _explained(self, key: str = "", denied: str = _HINT_DENIED) -> Iterator[None]:
        what = f"gs://{self.uri.bucket}/{key}"
        try:
            yield
        except api.GoogleAPICallError as error:
            raise _refusal(error, what, denied) from error
        except (auth.GoogleAuthError, api.RetryError, requests.RequestException, OSError, ValueError) as error:
            client = getattr(self, "_client", None)
            host = urlsplit(client.api_endpoint).netloc if client else "Google Cloud Storage"
            raise _failure(error, host, self.connect.stall_timeout) from error


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


def _client(access: Access) -> tuple[Any, Any]:
    """The SDK's client, and the credentials for the bytes: None where none are sent."""
    if access.emulator:
        options = {"api_endpoint": access.emulator}
        client = storage.Client(project="emulator", credentials=AnonymousCredentials(), client_options=options)  # type: ignore[no-untyped-call]  # google-auth's are partly typed
        credentials = None
    elif access.anonymous:
        client, credentials = storage.Client.create_anonymous_client(), None
    else:
        credentials, project = google.auth.default(scopes=_SCOPES[access.write])
        client = storage.Client(credentials=credentials, project=project)
    # The SDK asks for the bucket's metadata in a thread of its own, for traces that nobody collects here.
    client._bucket_metadata_cache = None  # noqa: SLF001
    session = client._http  # noqa: SLF001  the SDK has no public setting for certificates
    if not access.connect.verify:
        session.verify = False
    elif access.connect.ca_bundle:
        session.verify = access.connect.ca_bundle
    return client, credentials


def _object(blob: Any, path: str) -> RemoteObject:  # noqa: ANN401
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


def _refusal(error: api.GoogleAPICallError, what: str, denied: str) -> ModelfetchError:
    """The error for a reply that the SDK understood."""
    status = int(error.code or 0)
    detail = _detail(error)
    if status == 404:
        bucket = what.split("/")[2]
        # A missing object is no error to the SDK, but None.
        return NotFoundError(f"There is no bucket {bucket}.", hint="Check its name, and the project's.")
    if status in (401, 403):
        return CredentialsError(f"Access denied to {what} ({detail}).", hint=denied)
    wait = error.response.headers.get("retry-after") if error.response is not None else None
    return by_status(status, what, detail, wait=retry_after(wait))


def _detail(error: api.GoogleAPICallError) -> str:
    """The server's own words; the SDK's text carries the whole address."""
    first = error.errors[0] if error.errors else None
    text = first.get("message", "") if isinstance(first, dict) else ""
    if not text and error.response is not None:  # the SDK's uploads leave it there
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = error.response.json()["error"]["message"]
    return " ".join((text or type(error).__name__).split())[:300].rstrip(".")


def _failure(error: Exception, host: str, stall_timeout: float) -> ModelfetchError:
    """The error for a request that the SDK could not make or finish."""
    text = " ".join(str(error.args[0] if error.args else error).split())[:300].rstrip(".")
    match error:
        case auth.TransportError() | auth.RefreshError() if error.retryable:
            return NoCredentialsError(
                f"Google credentials could not be refreshed: {text}.",
                hint="Is the metadata server or token endpoint up?",
            )
        case auth.InvalidOperation():  # anonymous credentials, which the SDK tried to refresh after a 401
            return CredentialsError(f"{host} refuses requests without credentials.", hint=_HINT_NONE)
        case auth.RefreshError():
            return CredentialsError(f"Google refuses these credentials: {text}.", hint=_HINT_NONE)
        case auth.DefaultCredentialsError() if "default credentials were not found" not in text:
            return NoCredentialsError(f"Google credentials cannot be used: {text}.", hint=_HINT_NONE)
        case auth.DefaultCredentialsError():
            return NoCredentialsError("No Google credentials were found.", hint=_HINT_NONE)
        case auth.GoogleAuthError():
            return NoCredentialsError(f"Google credentials could not be had: {text}.", hint=_HINT_NONE)
        case requests.RequestException() | OSError():
            return explain(error, host, stall_timeout)
        case api.RetryError() if isinstance(error.cause, InvalidResponse):
            return by_status(error.cause.response.status_code, host)
        case api.RetryError():
            return explain(error.cause or error, host, stall_timeout)
        case _:
            return ConfigError(
                f"The Google Cloud configuration makes no sense: {text}.",
                hint="Check GOOGLE_* and STORAGE_EMULATOR_HOST.",
            )

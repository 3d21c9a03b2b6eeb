"""Uploads to Google Cloud Storage by the SDK. Imported by a push only."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import requests
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.storage.exceptions import InvalidResponse

from modelfetch.sources.gcs.credentials import make_token_transport, secure_session
from modelfetch.sources.gcs.spec import GCSOptions
from modelfetch.sources.response_limit import BoundedResponse

_CHUNK_BYTES = 16 * 1024**2  # bytes of a resumable upload that are held in memory and sent at a time


def create_client(options: GCSOptions, credentials: Any, timeout: float, host: str) -> Any:  # noqa: ANN401
    """Return the SDK's client, with the project's own transport for token requests.

    Args:
        options: options of the store.
        credentials: credentials of google-auth; None for anonymous access.
        timeout: seconds for a token request.
        host: host name of the store, for messages.
    """
    anonymous: Any = AnonymousCredentials  # google-auth's constructors are partly typed
    authorized_session: Any = AuthorizedSession
    effective = anonymous() if credentials is None else credentials
    session = authorized_session(effective, auth_request=make_token_transport(options.network), refresh_timeout=timeout)
    session.configure_mtls_channel()
    secure_session(session, options.network)

    def bounded(reply: requests.Response, **_: object) -> None:
        reply.raw = BoundedResponse(reply.raw, host)

    session.hooks["response"].append(bounded)
    endpoint = {"api_endpoint": options.emulator} if options.emulator else None
    sdk_client = storage.Client(project="-", credentials=effective, client_options=endpoint, _http=session)
    # The SDK would request bucket metadata in a separate thread, for traces that are not collected here.
    sdk_client._bucket_metadata_cache = None  # noqa: SLF001
    return sdk_client


def upload_file(blob: Any, path: Path, crc: str, on_sent: Callable[[int], None], timeout: tuple[float, float]) -> None:  # noqa: ANN401
    """Upload a file; the store compares the bytes with the stated CRC32C.

    Args:
        blob: blob of the SDK; describes the stored object afterwards.
        path: local file.
        crc: CRC32C of the file, in hexadecimal.
        on_sent: called with the number of bytes sent.
        timeout: seconds to connect, and without a byte.

    Raises:
        GoogleAPICallError: an error response; other exceptions of the SDK pass, too.
        OSError: the file cannot be read.
    """
    blob.chunk_size = _CHUNK_BYTES
    blob.crc32c = base64.b64encode(bytes.fromhex(crc)).decode()
    with path.open("rb") as file:
        blob.upload_from_file(
            _ProgressReader(file, on_sent),
            size=path.stat().st_size,
            content_type="application/octet-stream",
            checksum=None,  # computed already
            timeout=timeout,
            retry=_RETRY,
        )


def blob_resource(blob: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the resource of a stored object, in the form of the JSON API."""
    return {
        "name": blob.name,
        "size": blob.size,
        "generation": blob.generation,
        "crc32c": blob.crc32c,
        "md5Hash": blob.md5_hash,
        "contentEncoding": blob.content_encoding,
    }


def _is_retryable(error: Exception) -> bool:
    """Return whether to repeat a part of an upload; the SDK's own rule would repeat after certificate errors."""
    if isinstance(error, InvalidResponse):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, broken) and not isinstance(error, requests.exceptions.SSLError)


_RETRY = Retry(predicate=_is_retryable, initial=0.25, maximum=4.0, timeout=10.0)  # of one request, as in retry.py


class _ProgressReader:
    """File with the stream methods used by the SDK; reports the bytes read."""

    def __init__(self, file: BinaryIO, on_sent: Callable[[int], None]) -> None:
        self._file = file
        self._on_sent = on_sent

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_sent(len(data))
        return data

    def tell(self) -> int:
        return self._file.tell()

"""Models behind a plain URL: length, version and checksum are what its headers say (RFC 9110, RFC 9530)."""

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from modelfetch.errors import ModelfetchError, NotFoundError, RefusedError
from modelfetch.net.connection_pool import ConnectionPool
from modelfetch.net.retry import retry_request
from modelfetch.sources.base import (
    Access,
    Listing,
    RemoteObject,
    SignedRequest,
    error_for_status,
    parse_number,
    parse_retry_after,
)
from modelfetch.uri import ModelURI

_TOTAL = re.compile(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]+)\Z")
_REPR_DIGEST = re.compile(r"(sha-256|sha)=:([A-Za-z0-9+/=]+):")
_HEAD_UNSUPPORTED = (400, 403, 405, 501)  # presigned URLs are signed for GET alone and refuse HEAD with 403


class HTTPSource:
    """One file at an http or https URL."""

    def __init__(self, uri: ModelURI, access: Access) -> None:
        """Take the URL; no request is made yet."""
        self.uri = uri
        self.connect = access.connect
        self.pool = ConnectionPool(access.connect)
        self._headers = {"Accept-Encoding": "identity"}
        if access.bearer_token and not access.anonymous:
            self._headers["Authorization"] = f"Bearer {access.bearer_token}"

    def resolve(self) -> Listing:
        """See `Source.find`."""
        return Listing((retry_request(self._stat),), directory=False)

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:  # noqa: ARG002  there is one object
        """See `Source.beside`: the suffix goes to the end of the path, before the query."""
        try:
            return retry_request(lambda: self._stat(suffix))
        except NotFoundError:
            return None

    def _stat(self, suffix: str = "") -> RemoteObject:
        status, headers = self._ask("HEAD", suffix, {})
        if status in _HEAD_UNSUPPORTED or (status == 200 and "content-length" not in headers):
            status, headers = self._ask("GET", suffix, {"Range": "bytes=0-0"})
        if status not in (200, 206, 416):
            raise self._error(status, headers)
        total = _TOTAL.match(headers.get("content-range", ""))
        # The length of a part says nothing of the whole.
        size = (
            parse_number(total[1]) if total else parse_number(headers.get("content-length")) if status == 200 else None
        )
        pins = {
            name: headers[name]
            for name in ("etag", "last-modified")
            if name in headers and not headers[name].startswith("W/")
        }
        return RemoteObject(
            key=self.uri.key + suffix,
            path=unquote(urlsplit(self.uri.url).path, errors="surrogateescape").rpartition("/")[2] + suffix,
            size=size,
            version=headers.get("etag", headers.get("last-modified", "")).strip('"'),
            pins=pins,
            checksums=self.checksums(headers),
            ranges=status == 206 or headers.get("accept-ranges", "").lower() == "bytes",
        )

    def _url(self, suffix: str) -> str:
        parts = urlsplit(self.uri.url)
        return parts._replace(path=parts.path + suffix).geturl()

    def _ask(self, method: str, suffix: str, extra: dict[str, str]) -> tuple[int, Mapping[str, str]]:
        reply = self.pool.request(method, self._url(suffix), {**self._headers, **extra})
        if method == "HEAD":
            reply.drain_conn()  # there is no body, but so the connection is free for the next request
        else:
            reply.close()  # a server that ignores Range would send the whole file now
        return reply.status, {name.lower(): value for name, value in reply.headers.items()}

    def _error(self, status: int, headers: Mapping[str, str]) -> ModelfetchError:
        if status in (404, 410):
            return NotFoundError(f"There is no {self.uri} (HTTP {status}).", hint="Check the address.")
        error = error_for_status(status, str(self.uri), wait=parse_retry_after(headers.get("retry-after")))
        if status in (401, 403):
            error.hint = "Set MODELFETCH_BEARER_TOKEN, or use a fresh signed URL."
        if isinstance(error, RefusedError) and 300 <= status < 400:
            error.hint = "The redirect leads nowhere: check the address."
        return error

    def with_checksums(self, obj: RemoteObject) -> RemoteObject:
        """See `Source.complete`; the headers have said all."""
        return obj

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:  # noqa: ARG002
        """See `Source.authorise`."""
        match = {"If-Match": obj.pins["etag"]} if "etag" in obj.pins else {}
        return SignedRequest(self._url(obj.key.removeprefix(self.uri.key)), {**self._headers, **match})

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """See `Source.checksums`: Repr-Digest, and x-goog-hash where Google's store is behind the URL."""
        found = {}
        for name, value in _REPR_DIGEST.findall(headers.get("repr-digest", "")):
            found["sha256" if name == "sha-256" else "sha1"] = value
        for item in headers.get("x-goog-hash", "").split(","):
            name, _, value = item.strip().partition("=")
            if name in ("crc32c", "md5"):
                found[name] = value
        return {name: decoded for name, value in found.items() if (decoded := _hex(value))}

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:  # noqa: ARG002
        """See `Source.diagnose`."""
        return self._error(status, {})


def _hex(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""

"""Models behind a plain URL: length, version and checksum are what its headers say (RFC 9110, RFC 9530)."""

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from modelfetch.errors import ModelfetchError, NotFoundError, RefusedError
from modelfetch.pool import Pool
from modelfetch.retry import request
from modelfetch.sources.base import Access, Found, RemoteObject, Request, by_status, retry_after
from modelfetch.uri import ModelURI

_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)$")
_REPR_DIGEST = re.compile(r"(sha-256|sha)=:([A-Za-z0-9+/=]+):")
_HEAD_UNSUPPORTED = (400, 403, 405, 501)  # presigned URLs are signed for GET alone and refuse HEAD with 403


class HTTPSource:
    """One file at an http or https URL."""

    def __init__(self, uri: ModelURI, access: Access) -> None:
        """Take the URL; no request is made yet."""
        self.uri = uri
        self.connect = access.connect
        self._headers = {"Accept-Encoding": "identity"}
        if access.bearer_token and not access.anonymous:
            self._headers["Authorization"] = f"Bearer {access.bearer_token}"

    def find(self) -> Found:
        """See `Source.find`."""
        return request(self._find)

    def _find(self) -> Found:
        status, headers = self._ask("HEAD", {})
        if status in _HEAD_UNSUPPORTED or (status == 200 and "content-length" not in headers):
            status, headers = self._ask("GET", {"Range": "bytes=0-0"})
        if status not in (200, 206, 416):
            raise self._error(status, headers)
        total = _TOTAL.match(headers.get("content-range", ""))
        size = int(total[1]) if total else _length(headers)
        pins = {
            name: headers[name]
            for name in ("etag", "last-modified")
            if name in headers and not headers[name].startswith("W/")
        }
        obj = RemoteObject(
            key=self.uri.key,
            path=unquote(urlsplit(self.uri.url).path).rpartition("/")[2],
            size=size,
            version=headers.get("etag", headers.get("last-modified", "")).strip('"'),
            pins=pins,
            checksums=self.checksums(headers),
            ranges=status == 206 or headers.get("accept-ranges", "").lower() == "bytes",
        )
        return Found((obj,), directory=False)

    def _ask(self, method: str, extra: dict[str, str]) -> tuple[int, Mapping[str, str]]:
        pool = Pool(self.connect)
        try:
            reply = pool.open(method, self.uri.url, {**self._headers, **extra})
            reply.close()  # a server that ignores Range would send the whole file now
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}
        finally:
            pool.close()

    def _error(self, status: int, headers: Mapping[str, str]) -> ModelfetchError:
        if status in (404, 410):
            return NotFoundError(f"There is no {self.uri} (HTTP {status}).", hint="Check the address.")
        error = by_status(status, str(self.uri), wait=retry_after(headers.get("retry-after")))
        if status in (401, 403):
            error.hint = "Set MODELFETCH_BEARER_TOKEN, or use a fresh signed URL."
        if isinstance(error, RefusedError) and 300 <= status < 400:
            error.hint = "The redirect leads nowhere: check the address."
        return error

    def complete(self, obj: RemoteObject) -> RemoteObject:
        """See `Source.complete`; the headers have said all."""
        return obj

    def authorise(self, obj: RemoteObject, *, renew: bool = False) -> Request:  # noqa: ARG002
        """See `Source.authorise`."""
        match = {"If-Match": obj.pins["etag"]} if "etag" in obj.pins else {}
        return Request(self.uri.url, {**self._headers, **match})

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

    def diagnose(self, obj: RemoteObject, status: int) -> ModelfetchError:  # noqa: ARG002
        """See `Source.diagnose`."""
        return self._error(status, {})


def _length(headers: Mapping[str, str]) -> int | None:
    value = headers.get("content-length", "")
    return int(value) if value.isdecimal() else None


def _hex(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""

"""Plain URLs as a source: length, version and checksum from response headers (RFC 9110, RFC 9530)."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from modelfetch.errors import ModelfetchError, NotFoundError, RefusedError, UsageError
from modelfetch.net.connection_pool import Response
from modelfetch.net.retry import retry_request
from modelfetch.sources.base import (
    Listing,
    RemoteObject,
    SignedRequest,
    Source,
    SourceOptions,
    SourceSpec,
    error_for_status,
    parse_number,
    parse_retry_after,
)
from modelfetch.uri import ModelURI, show_address, split_scheme

_TOTAL = re.compile(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]+)\Z")
_REPR_DIGEST = re.compile(r"(sha-256|sha)=:([A-Za-z0-9+/=]+):")
_HEAD_UNSUPPORTED = (400, 403, 405, 501)  # presigned URLs are signed for GET alone and refuse HEAD with 403


@dataclass(frozen=True)
class HTTPSOptions(SourceOptions):
    """Options of plain URLs.

    Attributes:
        bearer_token: sent as `Authorization: Bearer …` (MODELFETCH_BEARER_TOKEN); empty for none.
    """

    bearer_token: str = field(default="", repr=False)


def parse_https_uri(text: str) -> ModelURI:
    """Parse `http(s)://host[:port]/path[?query]`; the fragment is dropped.

    Raises:
        UsageError: no host, no file name, or credentials in the URL.
    """
    scheme, _ = split_scheme(text)
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


def read_https_options(environ: Mapping[str, str], common: SourceOptions) -> HTTPSOptions:
    """Read the token from MODELFETCH_BEARER_TOKEN, without the line end of a file."""
    return replace(HTTPSOptions.of(common), bearer_token=environ.get("MODELFETCH_BEARER_TOKEN", "").strip())


class HTTPSource(Source):
    """One file at an http or https URL."""

    has_sidecars = False  # a stranger's server is asked for nothing but the file

    def __init__(self, uri: ModelURI, options: SourceOptions) -> None:
        """Keep the URL; makes no request."""
        own = HTTPSOptions.of(options)
        super().__init__(uri, own.network)
        self._headers = {"Accept-Encoding": "identity"}
        if own.bearer_token and not own.anonymous:
            self._headers["Authorization"] = f"Bearer {own.bearer_token}"

    def resolve(self) -> Listing:
        """See `Source.resolve`; asks with a HEAD, or a GET of one byte."""
        return Listing((retry_request(self._stat_object),), directory=False)

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:  # noqa: ARG002  there is one object
        """See `Source.sidecar`: the suffix goes to the end of the path, before the query."""
        try:
            return retry_request(lambda: self._stat_object(suffix))
        except NotFoundError:
            return None

    def _stat_object(self, suffix: str = "") -> RemoteObject:
        status, headers = self._send_request("HEAD", suffix, {})
        if status in _HEAD_UNSUPPORTED or (status == 200 and "content-length" not in headers):
            status, headers = self._send_request("GET", suffix, {"Range": "bytes=0-0"})
        if status not in (200, 206, 416):
            raise self._explain_status(status, headers)
        self._refuse_encoding(headers)
        total = _TOTAL.match(headers.get("content-range", ""))
        # The length of a part says nothing of the whole.
        size = (
            parse_number(total[1]) if total else parse_number(headers.get("content-length")) if status == 200 else None
        )
        # A weak ETag says nothing of bytes, but a change of it within one pull tells of another version.
        pins = {name: headers[name] for name in ("etag", "last-modified") if name in headers}
        return RemoteObject(
            key=self.uri.key + suffix,
            path=unquote(urlsplit(self.uri.url).path, errors="surrogateescape").rpartition("/")[2] + suffix,
            size=size,
            version=headers.get("etag", headers.get("last-modified", "")).strip('"'),
            pins=pins,
            checksums=self.checksums(headers),
            media_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
            ranges=bool(pins) and (status == 206 or headers.get("accept-ranges", "").lower() == "bytes"),
        )

    def _sidecar_url(self, suffix: str) -> str:
        parts = urlsplit(self.uri.url)
        return parts._replace(path=parts.path + suffix).geturl()

    def _send_request(self, method: str, suffix: str, extra: dict[str, str]) -> tuple[int, Mapping[str, str]]:
        reply = self.pool.request(method, self._sidecar_url(suffix), {**self._headers, **extra})
        if method == "HEAD":
            reply.drain_conn()  # there is no body, but so the connection is free for the next request
        else:
            reply.close()  # a server that ignores Range would send the whole file now
        return reply.status, {name.lower(): value for name, value in reply.headers.items()}

    def _explain_status(self, status: int, headers: Mapping[str, str]) -> ModelfetchError:
        if status in (404, 410):
            return NotFoundError(
                f"There is no {show_address(str(self.uri))} (HTTP {status}).", hint="Check the address."
            )
        error = error_for_status(status, str(self.uri), wait=parse_retry_after(headers.get("retry-after")))
        if status in (401, 403):
            error.hint = "Set MODELFETCH_BEARER_TOKEN, or use a fresh signed URL."
        if isinstance(error, RefusedError) and 300 <= status < 400:
            error.hint = "The redirect leads nowhere: check the address."
        return error

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:  # noqa: ARG002
        """See `Source.sign`: the bearer token, and If-Match with the ETag."""
        etag = obj.pins.get("etag", "")
        match = (
            {"If-Match": etag} if etag and not etag.startswith("W/") else {}
        )  # weak ones never match (RFC 9110, 13.1.1)
        return SignedRequest(self._sidecar_url(obj.key.removeprefix(self.uri.key)), {**self._headers, **match})

    def open_range(self, request: SignedRequest, headers: Mapping[str, str]) -> Response:
        """See `Source.open_range`; refuses a body in an encoding that was not asked for."""
        response = super().open_range(request, headers)
        if response.status in (200, 206):
            try:
                self._refuse_encoding(response.headers)
            except RefusedError:
                response.close()
                raise
        return response

    def _refuse_encoding(self, headers: Mapping[str, str]) -> None:
        """Refuse Content-Encoding: `identity` was asked for. The encoding that a file's name states is the file's own.

        Raises:
            RefusedError: the body is encoded.
        """
        encoding = headers.get("content-encoding", "").strip().lower()
        own = encoding in ("gzip", "x-gzip") and self.uri.key.lower().endswith((".gz", ".tgz"))
        if encoding not in ("", "identity") and not own:
            raise RefusedError(
                f"{self.uri} arrives encoded ({encoding[:40]}), although the file itself was asked for.",
                hint="Have the server, or the proxy before it, send the file without Content-Encoding.",
            )

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """See `Source.checksums`: Repr-Digest, and x-goog-hash where Google's store is behind the URL."""
        found = {}
        for name, value in _REPR_DIGEST.findall(headers.get("repr-digest", "")):
            found["sha256" if name == "sha-256" else "sha1"] = value
        for item in headers.get("x-goog-hash", "").split(","):
            name, _, value = item.strip().partition("=")
            if name in ("crc32c", "md5"):
                found[name] = value
        return {name: decoded for name, value in found.items() if (decoded := _decode_base64(value))}

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:  # noqa: ARG002
        """See `Source.explain_refusal`; explains by HTTP status alone."""
        return self._explain_status(status, {})


def _decode_base64(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""


SPEC = SourceSpec(("https", "http"), parse_https_uri, read_https_options, HTTPSource, secret_query=True)

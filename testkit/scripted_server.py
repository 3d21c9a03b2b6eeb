"""Server that sends scripted responses for S3, GCS's JSON API and plain HTTP: any key, any size, any malformed body.

Real servers refuse most of the responses of a hostile one. `s3_store` and `gcs_store` respond correctly for any keys;
responders that a test puts before them are sent unchanged.
"""

import hashlib
import html
import json
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

BUCKET = "b"
BodyPieces = Iterable[bytes]


@dataclass(frozen=True)
class ServerRequest:
    """A request: method, unescaped path and query, headers by lower-case name, body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class ServerResponse:
    """A response. Headers are sent unchanged; a Content-Length is added unless framed already or sent in pieces.

    Attributes:
        body: bytes, or pieces of unknown number, ended by the connection's end.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | BodyPieces = b""


Responder = Callable[[ServerRequest], ServerResponse | None]
StoreResponders = Callable[..., list[Responder]]


@dataclass
class ScriptedServer:
    """The server: the first responder that returns a response decides.

    Attributes:
        requests: every request, in order.
    """

    url: str
    responders: list[Responder] = field(default_factory=list)
    requests: list[ServerRequest] = field(default_factory=list)

    def respond_with(self, *speakers: Responder) -> None:
        """Use these responders from now on, in this order; forget recorded requests."""
        self.responders[:] = speakers
        self.requests.clear()

    @property
    def s3_env(self) -> dict[str, str]:
        """Return the variables that point a user at the server as S3."""
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
        return {"AWS_ENDPOINT_URL_S3": self.url, **keys}

    @property
    def gcs_env(self) -> dict[str, str]:
        """Return the variables that point a user at the server as GCS."""
        return {"STORAGE_EMULATOR_HOST": self.url}


@dataclass(frozen=True)
class ListedObject:
    """Entry of a listing, as text of any content; None leaves a field out."""

    key: str | None
    data: bytes = b"x"
    size: object = "right"
    etag: str | None = "right"
    more: Mapping[str, object] = field(default_factory=dict)  # of GCS's metadata

    @property
    def listed_size(self) -> object:
        """Return the size to list."""
        return len(self.data) if self.size == "right" else self.size

    @property
    def listed_etag(self) -> str | None:
        """Return the ETag to list."""
        return f'"{hashlib.md5(self.data).hexdigest()}"' if self.etag == "right" else self.etag


def s3_entry(item: ListedObject) -> str:
    """Return an entry of ListObjectsV2, its key URL-escaped as `encoding-type=url` demands."""
    parts = {
        "Key": None if item.key is None else quote(item.key.encode("utf-8", "surrogateescape")),
        "LastModified": "2026-01-01T00:00:00.000Z",
        "ETag": item.listed_etag,
        "Size": item.listed_size,
    }
    inner = "".join(f"<{k}>{html.escape(str(v), quote=False)}</{k}>" for k, v in parts.items() if v is not None)
    return f"<Contents>{inner}</Contents>"


def s3_page(
    items: Iterable[ListedObject], more: str = "<IsTruncated>false</IsTruncated>", head: str = ""
) -> ServerResponse:
    """Return a page of ListObjectsV2; `more` is the continuation XML, `head` precedes the root element."""
    inner = "".join(map(s3_entry, items))
    page = f"<ListBucketResult><EncodingType>url</EncodingType>{inner}{more}</ListBucketResult>"
    return ServerResponse(
        headers=(("Content-Type", "application/xml"),), body=f'<?xml version="1.0"?>{head}{page}'.encode()
    )


def respond_always(response: ServerResponse) -> Callable[[ServerRequest], ServerResponse]:
    """Return the same response to every request."""
    return lambda _: response


def s3_listing(response: Callable[[ServerRequest], ServerResponse]) -> Responder:
    """Respond to S3 listing requests."""
    return lambda request: response(request) if request.query.get("list-type") else None


def gcs_listing(response: Callable[[ServerRequest], ServerResponse]) -> Responder:
    """Respond to GCS listing requests."""
    return lambda request: response(request) if request.path == f"/storage/v1/b/{BUCKET}/o" else None


def gcs_metadata(item: ListedObject) -> dict[str, object]:
    """Return an object's metadata as listings contain them."""
    fields = {"name": item.key, "size": item.listed_size, "generation": "1", **item.more}
    return {name: str(value) if name == "size" else value for name, value in fields.items() if value is not None}


def gcs_page(items: Iterable[ListedObject], **more: object) -> ServerResponse:
    """Return a page of a GCS listing; `more` are additional fields."""
    return json_response({"kind": "storage#objects", "items": [gcs_metadata(item) for item in items], **more})


def json_response(value: object) -> ServerResponse:
    """Return a JSON response of a value."""
    return ServerResponse(headers=(("Content-Type", "application/json"),), body=json.dumps(value).encode())


def s3_store(*items: ListedObject) -> list[Responder]:
    """Respond as a correct S3 bucket of these objects."""
    return [s3_listing(respond_always(s3_page(items))), serve_objects(f"/{BUCKET}/", items)]


def gcs_store(*items: ListedObject) -> list[Responder]:
    """Respond as a correct GCS bucket of these objects."""
    named = {item.key: item for item in items}

    def state(request: ServerRequest) -> ServerResponse | None:
        found = re.fullmatch(rf"/storage/v1/b/{BUCKET}/o/(.+)", request.path, re.DOTALL)
        if not found:
            return None
        item = named.get(found[1])
        return json_response(gcs_metadata(item)) if item else ServerResponse(404, body=b"{}")

    return [
        gcs_listing(respond_always(gcs_page(items))),
        serve_objects(f"/download/storage/v1/b/{BUCKET}/o/", items),
        state,
    ]


def serve_objects(below: str, items: Iterable[ListedObject]) -> Responder:
    """Serve the bytes of objects and their HEAD responses below a path."""
    named = {f"{below}{item.key}": item for item in items}

    def respond(request: ServerRequest) -> ServerResponse | None:
        if not request.path.startswith(below):
            return None
        item = named.get(request.path)
        if item is None:
            return ServerResponse(404)
        tag = f'"{hashlib.md5(item.data).hexdigest()}"'
        return range_response(request, item.data, (("ETag", tag),))

    return respond


def range_response(request: ServerRequest, data: bytes, headers: tuple[tuple[str, str], ...] = ()) -> ServerResponse:
    """Return the whole body, or the requested range."""
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not span:
        return ServerResponse(200, headers, data)
    part = data[int(span[1]) : int(span[2]) + 1 if span[2] else None]
    stated = f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(data)}"
    return ServerResponse(206, (*headers, ("Content-Range", stated)), part)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    script: ScriptedServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # an OSError: the client has gone
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(parts.path, errors="surrogateescape")
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = ServerRequest(self.command, path, query, headers, body)
        self.server.script.requests.append(request)
        responses = (respond(request) for respond in self.server.script.responders)
        self._send_response(next((response for response in responses if response is not None), ServerResponse(404)))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def _send_response(self, response: ServerResponse) -> None:
        framed = any(name.lower() in ("content-length", "transfer-encoding") for name, _ in response.headers)
        headers, pieces = list(response.headers), response.body
        if isinstance(pieces, bytes):
            headers += [] if framed else [("Content-Length", str(len(pieces)))]
            pieces = [pieces]
        self.close_connection = framed or not isinstance(response.body, bytes)
        headers += [("Connection", "close")] if self.close_connection else []
        lines = [f"HTTP/1.1 {response.status} Scripted", *(f"{name}: {value}" for name, value in headers), "", ""]
        with suppress(OSError):  # the client may hang up before the end
            self.wfile.write("\r\n".join(lines).encode("latin-1"))
            for piece in pieces if self.command != "HEAD" else ():
                self.wfile.write(piece)


@contextmanager
def run_scripted_server(port: int = 0) -> Iterator[ScriptedServer]:
    """Run a server without responders, 404 to everything, on a free port unless one is given."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.script = ScriptedServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

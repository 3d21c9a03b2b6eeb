"""A server that speaks S3, GCS's JSON and plain HTTP, and says whatever a test wants: any key, any size, any nonsense.

The real servers refuse most of what a hostile one would send. `Liar.s3` and `Liar.gcs` answer honestly for any keys;
what a test puts in front of them is sent as it stands.
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
BODY = Iterable[bytes]


@dataclass(frozen=True)
class ServerRequest:
    """A request: its method, path and query undone of their escapes, its headers by name in lower case, its body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class ServerResponse:
    """A reply. Headers are sent as they stand; a length is added unless one is among them, or the body comes in pieces.

    Attributes:
        body: bytes, or pieces of unknown number: the connection ends after them.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | BODY = b""


Responder = Callable[[ServerRequest], ServerResponse | None]
Honest = Callable[..., list[Responder]]


@dataclass
class ScriptedServer:
    """The server: the first of its speakers that answers a request is heard.

    Attributes:
        asked: every request that came.
    """

    url: str
    responders: list[Responder] = field(default_factory=list)
    requests: list[ServerRequest] = field(default_factory=list)

    def respond_with(self, *speakers: Responder) -> None:
        """Answer by these from now on, in this order."""
        self.responders[:] = speakers
        self.requests.clear()

    @property
    def s3_env(self) -> dict[str, str]:
        """The variables with which a user reaches it as S3."""
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
        return {"AWS_ENDPOINT_URL_S3": self.url, **keys}

    @property
    def gcs_env(self) -> dict[str, str]:
        """The variables with which a user reaches it as GCS."""
        return {"STORAGE_EMULATOR_HOST": self.url}


@dataclass(frozen=True)
class ListedObject:
    """An entry of a listing, as text that need not make sense; what is None is left out."""

    key: str | None
    data: bytes = b"x"
    size: object = "right"
    etag: str | None = "right"
    more: Mapping[str, object] = field(default_factory=dict)  # of GCS's metadata

    @property
    def listed_size(self) -> object:
        """The size to list."""
        return len(self.data) if self.size == "right" else self.size

    @property
    def listed_etag(self) -> str | None:
        """The ETag to list."""
        return f'"{hashlib.md5(self.data).hexdigest()}"' if self.etag == "right" else self.etag


def s3_entry(item: ListedObject) -> str:
    """An entry of ListObjectsV2, its key escaped for URLs as `encoding-type=url` asks for."""
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
    """A page of ListObjectsV2; `more` says whether another follows, `head` comes before the root element."""
    inner = "".join(map(s3_entry, items))
    page = f"<ListBucketResult><EncodingType>url</EncodingType>{inner}{more}</ListBucketResult>"
    return ServerResponse(
        headers=(("Content-Type", "application/xml"),), body=f'<?xml version="1.0"?>{head}{page}'.encode()
    )


def respond_always(answer: ServerResponse) -> Callable[[ServerRequest], ServerResponse]:
    """Say the same to everything."""
    return lambda _: answer


def s3_listing(answer: Callable[[ServerRequest], ServerResponse]) -> Responder:
    """Answer requests for a listing."""
    return lambda asked: answer(asked) if asked.query.get("list-type") else None


def gcs_listing(answer: Callable[[ServerRequest], ServerResponse]) -> Responder:
    """Answer requests for a listing."""
    return lambda asked: answer(asked) if asked.path == f"/storage/v1/b/{BUCKET}/o" else None


def gcs_metadata(item: ListedObject) -> dict[str, object]:
    """An object's metadata, as far as it is asked for."""
    fields = {"name": item.key, "size": item.listed_size, "generation": "1", **item.more}
    return {name: str(value) if name == "size" else value for name, value in fields.items() if value is not None}


def gcs_page(items: Iterable[ListedObject], **more: object) -> ServerResponse:
    """A page of a listing; `more` are other fields of it."""
    return json_response({"kind": "storage#objects", "items": [gcs_metadata(item) for item in items], **more})


def json_response(value: object) -> ServerResponse:
    """A reply of JSON."""
    return ServerResponse(headers=(("Content-Type", "application/json"),), body=json.dumps(value).encode())


def s3_store(*items: ListedObject) -> list[Responder]:
    """An honest S3 bucket of these."""
    return [s3_listing(respond_always(s3_page(items))), serve_objects(f"/{BUCKET}/", items)]


def gcs_store(*items: ListedObject) -> list[Responder]:
    """An honest GCS bucket of these."""
    named = {item.key: item for item in items}

    def state(asked: ServerRequest) -> ServerResponse | None:
        found = re.fullmatch(rf"/storage/v1/b/{BUCKET}/o/(.+)", asked.path, re.DOTALL)
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
    """Serve objects' bytes, and what HEAD says of them."""
    named = {f"{below}{item.key}": item for item in items}

    def speak(asked: ServerRequest) -> ServerResponse | None:
        if not asked.path.startswith(below):
            return None
        item = named.get(asked.path)
        if item is None:
            return ServerResponse(404)
        tag = f'"{hashlib.md5(item.data).hexdigest()}"'
        return range_response(asked, item.data, (("ETag", tag),))

    return speak


def range_response(asked: ServerRequest, data: bytes, headers: tuple[tuple[str, str], ...] = ()) -> ServerResponse:
    """A body, or the range of it that is asked for."""
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
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
        asked = ServerRequest(self.command, path, query, headers, body)
        self.server.script.requests.append(asked)
        spoken = (speak(asked) for speak in self.server.script.responders)
        self._send_response(next((answer for answer in spoken if answer is not None), ServerResponse(404)))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def _send_response(self, answer: ServerResponse) -> None:
        framed = any(name.lower() in ("content-length", "transfer-encoding") for name, _ in answer.headers)
        headers, pieces = list(answer.headers), answer.body
        if isinstance(pieces, bytes):
            headers += [] if framed else [("Content-Length", str(len(pieces)))]
            pieces = [pieces]
        self.close_connection = framed or not isinstance(answer.body, bytes)
        headers += [("Connection", "close")] if self.close_connection else []
        lines = [f"HTTP/1.1 {answer.status} Said", *(f"{name}: {value}" for name, value in headers), "", ""]
        with suppress(OSError):  # whoever has heard enough hangs up
            self.wfile.write("\r\n".join(lines).encode("latin-1"))
            for piece in pieces if self.command != "HEAD" else ():
                self.wfile.write(piece)


@contextmanager
def run_scripted_server(port: int = 0) -> Iterator[ScriptedServer]:
    """A server that has nothing to say yet: 404 to everything. It listens at a free port, if none is given."""
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

"""Small HTTPS server of static files: ranges, ETags, and switches for features that some servers lack."""

import hashlib
import re
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme


@dataclass
class HttpsServer:
    """Content and behaviour of the server, set by the test.

    Attributes:
        url: address of the server.
        ca: file with the certificate of the authority.
        tls: server side of TLS, for other servers at 127.0.0.1.
        files: content by path, with the leading slash.
        redirects: new location by path.
        ranges: whether to serve ranges.
        length: whether to state a body's length; otherwise the body is chunked.
        etag: whether to send an ETag and honour If-Match.
        head: whether to accept HEAD requests.
        token: bearer token to require.
        headers: additional headers for every response with content.
        requests: (method, path, headers) of each request.
    """

    url: str
    ca: Path
    tls: ssl.SSLContext
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    length: bool = True
    etag: bool = True
    head: bool = True
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """Return the variable that makes a user trust the server."""
        return {"SSL_CERT_FILE": str(self.ca)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    web: HttpsServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(
            sys.exc_info()[1], OSError
        ):  # an OSError: the client has gone, or does not trust the authority
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def web(self) -> HttpsServer:
        assert isinstance(self.server, _Server)
        return self.server.web

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve_request(body=False)

    def do_GET(self) -> None:
        self._serve_request(body=True)

    def _serve_request(self, *, body: bool) -> None:
        web = self.web
        path = self.path.partition("?")[0]
        web.requests.append((self.command, self.path, dict(self.headers.items())))
        if path in web.redirects:
            return self._send_reply(302, {"Location": web.redirects[path]})
        if web.token and self.headers.get("Authorization") != f"Bearer {web.token}":
            return self._send_reply(401, {"WWW-Authenticate": "Bearer"})
        if self.command == "HEAD" and not web.head:
            return self._send_reply(405, {"Allow": "GET"})
        if path not in web.files:
            return self._send_reply(404, {})
        return self._send_content(web, web.files[path], body=body)

    def _send_content(self, web: HttpsServer, data: bytes, *, body: bool) -> None:
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        if web.etag and self.headers.get("If-Match", tag) != tag:
            return self._send_reply(412, {})
        headers = {**web.headers, **({"ETag": tag} if web.etag else {})}
        status, part = 200, data
        if web.ranges:
            headers["Accept-Ranges"] = "bytes"
            if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
                if first >= len(data):
                    return self._send_reply(416, {"Content-Range": f"bytes */{len(data)}"})
                status, part = 206, data[first : last + 1]
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send_reply(status, headers, part, body=body, length=web.length)

    def _send_reply(
        self, status: int, headers: dict[str, str], data: bytes = b"", *, body: bool = True, length: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header(*(("Content-Length", str(len(data))) if length else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        if body and length:
            self.wfile.write(data)
        elif body:
            for start in range(0, len(data), 50_000):
                piece = data[start : start + 50_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def run_https_server(directory: Path) -> Iterator[HttpsServer]:
    """Run a server for 127.0.0.1 and localhost, certified by a fresh authority."""
    authority = trustme.CA()
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.web = HttpsServer(f"https://127.0.0.1:{server.server_address[1]}", ca, context)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

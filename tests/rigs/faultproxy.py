"""A reverse proxy that does, on demand, what networks, proxies and stores do on bad days.

It stands in front of any HTTP server and streams: it never holds an object. The client's Host header is passed on
unchanged, for S3 signatures cover it. Every request is recorded, so that a test can count them and the bytes they cost.
"""

import contextlib
import fcntl
import http.client
import re
import select
import socket
import ssl
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from rigs.faults import Request, Rule

CHUNK = 64 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}


class FaultProxy:
    """The proxy; it listens from the start until `close`.

    Attributes:
        url: where it listens.
        requests: all that came, in order.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        """Stand in front of `upstream`, a URL with host and port; speak TLS to clients if given a context."""
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Request] = []
        self.errors: list[BaseException | None] = []
        self.closing = threading.Event()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self, tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def add(self, **what: Any) -> Rule:
        """Add a rule, given by its attributes; of several that match a request, the one added first takes it."""
        rule = Rule(**what)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget rules and requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def came(self, method: str | None = None, path: str = "", query: str = "") -> list[Request]:
        """The recorded requests that match."""
        return [request for request in list(self.requests) if request.matches(method, path, query)]

    def sent(self, path: str = "") -> int:
        """Bytes of the bodies sent in answer to GETs of a path."""
        return sum(request.sent for request in self.came("GET", path))

    def wait_for(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it did not come to be.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so within {seconds} s; requests: {self.requests}")
            time.sleep(0.01)

    def close(self) -> None:
        """Stop; raises what went wrong in the proxy itself, if anything did."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for error in filter(None, self.errors):
            raise error

    def record(self, request: Request) -> Rule:
        """Take a request down and choose what befalls it."""
        with self._lock:
            self.requests.append(request)
            request.rule = next((rule for rule in self._rules if rule.takes(request)), None)
        return request.rule or Rule()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: FaultProxy, tls: ssl.SSLContext | None) -> None:
        super().__init__(address, _Handler)
        self.proxy = proxy
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # the inherited one sends a FIN first, where a reset may be wanted

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) and not self.proxy.closing.is_set():  # an OSError: the client has gone
            self.proxy.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: http.client.HTTPConnection | None = None

    @property
    def proxy(self) -> FaultProxy:
        assert isinstance(self.server, _Server)
        return self.server.proxy

    def finish(self) -> None:
        if self.upstream:
            self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass

    def relay(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, parts.query, headers)
        rule = self.proxy.record(request)
        try:
            if rule.before:
                rule.before()
            if rule.mute:
                self._stall(rule.stall_seconds)
                self._reset()
            elif rule.reset:
                self._reset()
            elif rule.redirect:
                self._answer(rule, request, 307, [("Location", f"http://{self.headers['Host']}{self.path}")])
            elif rule.status is not None:
                self._answer(rule, request, rule.status, [])
            else:
                self._forward(rule, request)
        finally:
            request.done = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = relay  # noqa: N815

    def _answer(self, rule: Rule, request: Request, status: int, headers: list[tuple[str, str]]) -> None:
        for _ in self._request_body():  # what is left unread would be taken for the next request
            pass
        self._head(request, status, "", rule.altered([*headers, ("Content-Length", str(len(rule.body)))]))
        if self.command != "HEAD":
            self._send(request, rule.body)

    def _forward(self, rule: Rule, request: Request) -> None:
        reply = self._ask(rule)
        came = [(name, value) for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP]
        start = _first_byte(came)
        headers = rule.altered(came)
        bodiless = self.command == "HEAD" or reply.status in (204, 304)
        chunked = reply.chunked and not bodiless and not rule.drop
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif not bodiless and "content-length" not in {name.lower() for name, _ in headers}:
            self.close_connection = True
        self._head(request, reply.status, reply.reason, headers)
        if bodiless:
            reply.read()
        else:
            self._body(rule, request, _pieces(reply, rule, start), chunked=chunked)

    def _ask(self, rule: Rule) -> http.client.HTTPResponse:
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=120)
        connection = self.upstream
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP and not (rule.whole and name.lower() == "range"):
                connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for piece in self._request_body():
            connection.send(_framed(piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
        return connection.getresponse()

    def _request_body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(CHUNK, left))
            if not piece:
                raise ConnectionAbortedError("the client stopped in the middle of its request")
            left -= len(piece)
            yield piece

    def _head(self, request: Request, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        request.status = status
        self.send_response_only(status, reason or None)
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _body(self, rule: Rule, request: Request, pieces: Iterator[bytes], *, chunked: bool) -> None:
        stall = rule.stall_after
        for whole in pieces:
            piece = whole
            if stall is not None and request.sent + len(piece) > stall:
                room = stall - request.sent
                self._send(request, piece[:room], chunked=chunked)
                piece, stall = piece[room:], None
                if self._stall(rule.stall_seconds):
                    return self._reset()
            if rule.cut_after is not None and request.sent + len(piece) > rule.cut_after:
                self._send(request, piece[: rule.cut_after - request.sent], chunked=chunked)
                return self._hang_up(rule)
            self._send(request, piece, chunked=chunked)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        return None

    def _send(self, request: Request, data: bytes, *, chunked: bool = False) -> None:
        if data:
            self.wfile.write(_framed(data) if chunked else data)
            request.sent += len(data)

    def _stall(self, seconds: float) -> bool:
        """Say nothing until the client hangs up, which is True, or the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.proxy.closing.is_set():
            if select.select([self.connection], [], [], 0.05)[0]:
                return True
        return False

    def _hang_up(self, rule: Rule) -> None:
        if rule.clean:
            self.close_connection = True
        else:
            self._reset()

    def _reset(self) -> None:
        """End the connection by RST, once all that was sent has reached the client's kernel."""
        self.close_connection = True
        deadline = time.monotonic() + 1
        while any(fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def _first_byte(headers: list[tuple[str, str]]) -> int:
    value = next((value for name, value in headers if name.lower() == "content-range"), "")
    span = re.match(r"bytes (\d+)-", value)
    return int(span[1]) if span else 0


def _pieces(reply: http.client.HTTPResponse, rule: Rule, start: int) -> Iterator[bytes]:
    """The body, with what the rule does to its bytes and its pace."""
    size, pause = rule.trickle or (CHUNK, 0.0)
    offset = start
    while piece := reply.read(size):
        at = -1 if rule.flip_at is None else rule.flip_at - offset
        offset += len(piece)
        yield piece[:at] + bytes([piece[at] ^ 0x01]) + piece[at + 1 :] if 0 <= at < len(piece) else piece
        time.sleep(pause)
    if rule.extra:
        yield rule.extra

"""Connection handler of the fault proxy: forwards each request and breaks its response by rule."""

import contextlib
import fcntl
import http.client
import re
import select
import socket
import struct
import termios
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import urlsplit

from testkit.fault_rules import FaultRule, Request

CHUNK = 64 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}


class RuleSource(Protocol):
    """Interface of the proxy towards its connection handlers."""

    @property
    def upstream(self) -> str:
        """Return host and port of the server."""
        ...

    @property
    def closing(self) -> threading.Event:
        """Return the event that ends all waiting."""
        ...

    def record_request(self, request: Request) -> FaultRule:
        """Record a request and return its rule."""
        ...


class FaultHandler(BaseHTTPRequestHandler):
    """Forwards the requests of one connection and sends the responses back, or breaks either by rule."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: http.client.HTTPConnection | None = None
    line_pause = 0.0
    _headers_buffer: list[bytes]

    @property
    def proxy(self) -> RuleSource:
        """Return the proxy that owns the connection."""
        proxy: RuleSource = self.server.proxy  # type: ignore[attr-defined]
        return proxy

    def finish(self) -> None:
        """Close the connections to client and server."""
        if self.upstream:
            self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Write no log line for a request."""

    def handle_request(self) -> None:
        """Forward the request, or break the exchange as its rule says."""
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, parts.query, headers)
        rule = self.proxy.record_request(request)
        try:
            if rule.before:
                rule.before()
            if rule.silent:
                self._stall_connection(rule.stall_seconds)
                self._reset_connection()
            elif rule.reset:
                self._reset_connection()
            elif rule.raw:
                self._send_raw(rule, request)
            elif rule.redirect:
                self._send_response(
                    rule, request, rule.redirect, [("Location", f"http://{self.headers['Host']}{self.path}")]
                )
            elif rule.status is not None:
                self._send_response(rule, request, rule.status, [])
            else:
                self._forward_request(rule, request)
        finally:
            request.done = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = handle_request  # noqa: N815

    def _send_raw(self, rule: FaultRule, request: Request) -> None:
        for _ in self._request_body():  # unread bytes would reset the connection
            pass
        self.close_connection = True
        self._send_bytes(request, rule.raw)

    def _send_response(self, rule: FaultRule, request: Request, status: int, headers: list[tuple[str, str]]) -> None:
        for _ in self._request_body():  # unread bytes would be parsed as the next request
            pass
        headers = rule.alter_headers([*headers, ("Content-Length", str(len(rule.body)))])
        self._send_head(rule, request, status, "", headers)
        if self.command != "HEAD":
            self._send_bytes(request, rule.body)

    def _forward_request(self, rule: FaultRule, request: Request) -> None:
        reply = self._request_upstream(rule, request)
        received = [(name, value) for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP]
        start = _first_offset(received)
        pieces = _body_pieces(reply, rule, start)
        if rule.edit:
            edited = rule.edit(b"".join(pieces))
            pieces = iter([edited])
            received = [(name, value) for name, value in received if name.lower() != "content-length"]
            received.append(("Content-Length", str(len(edited))))
        bodiless = self.command == "HEAD" or reply.status in (204, 304)
        headers = rule.alter_headers(received, body=not bodiless)
        chunked = (
            (rule.sends_chunks or (reply.chunked and not rule.drop and not rule.edit))
            and not rule.http10
            and not bodiless
        )
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif not bodiless and "content-length" not in {name.lower() for name, _ in headers}:
            self.close_connection = True
        self._send_head(rule, request, reply.status, reply.reason, headers)
        if bodiless:
            reply.read()
        else:
            self._send_body(rule, request, pieces, start, chunked=chunked)

    def _request_upstream(self, rule: FaultRule, request: Request) -> http.client.HTTPResponse:
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=120)
        connection = self.upstream
        path, headers = self._rewrite_request(rule, request)
        connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP and not (rule.whole and name.lower() == "range"):
                connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for piece in self._request_body():
            connection.send(_frame_chunk(piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
        return connection.getresponse()

    def _rewrite_request(self, rule: FaultRule, request: Request) -> tuple[str, list[tuple[str, str]]]:
        if not rule.rewrite:
            return self.path, list(self.headers.items())
        copy = Request(request.method, request.path, request.query, dict(request.headers))
        rule.rewrite(copy)
        return f"{copy.path}?{copy.query}", list(copy.headers.items())

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

    def _send_head(
        self, rule: FaultRule, request: Request, status: int, reason: str, headers: list[tuple[str, str]]
    ) -> None:
        request.status = status
        self.line_pause = rule.slow_head
        if rule.http10:
            self.protocol_version, self.close_connection = "HTTP/1.0", True
        self.send_response_only(status, reason or None)
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def flush_headers(self) -> None:
        """Send the head of a response, line by line if the rule slows it down."""
        if not self.line_pause:
            return super().flush_headers()
        lines, self._headers_buffer = self._headers_buffer, []
        for line in lines:
            time.sleep(self.line_pause)
            self.wfile.write(line)
        return None

    def _send_body(
        self, rule: FaultRule, request: Request, pieces: Iterator[bytes], start: int, *, chunked: bool
    ) -> None:
        stall = rule.stall_after
        cut = rule.cut_after if rule.cut_at is None else rule.cut_at - start
        for whole in pieces:
            piece = whole
            if stall is not None and request.sent + len(piece) > stall:
                room = stall - request.sent
                self._send_bytes(request, piece[:room], chunked=chunked)
                piece, stall = piece[room:], None
                if self._stall_connection(rule.stall_seconds):
                    return self._reset_connection()
            if cut is not None and request.sent + len(piece) > cut:
                self._send_bytes(request, piece[: cut - request.sent], chunked=chunked)
                return self._hang_up(rule)
            if rule.bad_chunk is not None and request.sent >= rule.bad_chunk:
                self.wfile.write(b"no number\r\n")
                return self._hang_up(rule)
            self._send_bytes(request, piece, chunked=chunked)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        return None

    def _send_bytes(self, request: Request, data: bytes, *, chunked: bool = False) -> None:
        if data:
            self.wfile.write(_frame_chunk(data) if chunked else data)
            request.sent += len(data)

    def _stall_connection(self, seconds: float) -> bool:
        """Send nothing until the client hangs up (returns True) or the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.proxy.closing.is_set():
            if select.select([self.connection], [], [], 0.05)[0]:
                return True
        return False

    def _hang_up(self, rule: FaultRule) -> None:
        if rule.clean:
            self.close_connection = True
        else:
            self._reset_connection()

    def _reset_connection(self) -> None:
        """End the connection by RST, once all sent bytes have reached the client's kernel."""
        self.close_connection = True
        deadline = time.monotonic() + 1
        while any(fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _frame_chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def _first_offset(headers: list[tuple[str, str]]) -> int:
    value = next((value for name, value in headers if name.lower() == "content-range"), "")
    span = re.match(r"bytes (\d+)-", value)
    return int(span[1]) if span else 0


def _body_pieces(reply: http.client.HTTPResponse, rule: FaultRule, start: int) -> Iterator[bytes]:
    """Yield the body, altered and paced by the rule."""
    size, pause = rule.trickle or (CHUNK, 0.0)
    offset = start
    compressor = zlib.compressobj(1, wbits=31) if rule.compress else None
    while piece := reply.read(size):
        at = -1 if rule.flip_at is None else rule.flip_at - offset
        offset += len(piece)
        altered = piece[:at] + bytes([piece[at] ^ 0x01]) + piece[at + 1 :] if 0 <= at < len(piece) else piece
        yield compressor.compress(altered) if compressor else altered
        time.sleep(pause)
    if compressor:
        yield compressor.flush()
    if rule.extra:
        yield rule.extra

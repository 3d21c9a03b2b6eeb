"""HTTP/1.1 GET client over keep-alive connections; responses need a Content-Length, all else falls back to urllib3.

For a small object urllib3 and http.client cost more CPU than everything else, and both put each piece of a large body
into new memory. urllib3 still opens the connections. Response heads are parsed by httptools (llhttp), bodies are read
straight into the caller's buffer. Rules: RFC 9112.
"""

import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import lru_cache
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import NamedTuple
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from urllib3.connection import HTTPConnection
from urllib3.util import parse_url

_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_FRAMING_FIELDS = ("content-length", "transfer-encoding")  # a second one may be meant to deceive
_BODILESS_STATUSES = (204, 304)  # no body, whatever the length says (RFC 9112, 6.3)
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_MAX_REDIRECT_BODY = 64 * 1024  # bytes to read so that the connection stays usable; stores send a few hundred
_MAX_LENGTH_DIGITS = 19  # 2**63 has as many
_HEAD_CHUNK = 16 * 1024  # bytes read at a time until the head is complete
_MAX_HEAD = 64 * 1024  # bytes; http.client takes no longer line


class UnsupportedResponse(Exception):  # noqa: N818  no error: urllib3 sends the request instead
    """Raised when the request or response needs urllib3 (redirect, chunked body, unusual field)."""


class RedirectedResponse(UnsupportedResponse):
    """Raised instead of a redirect whose body has been read: the connection is free for the next request."""

    def __init__(self, location: str) -> None:
        """Keep the Location field, as sent."""
        super().__init__(location)
        self.location = location


class ResponseHead(NamedTuple):
    """Status line and fields of a response.

    Attributes:
        status: status code.
        headers: field values by field name in lower case; values of a repeated field are joined by commas.
        length: bytes of the body that are to be read; 0 for a refusal, whose body nobody reads.
        keeps_alive: whether the connection can be used again after the body.
    """

    status: int
    headers: Mapping[str, str]
    length: int
    keeps_alive: bool


def split_origin(url: str) -> tuple[str, str]:
    """Split a URL into its origin (scheme and authority) and the request target, without the fragment."""
    scheme, netloc, *_ = urlsplit(url)
    origin = f"{scheme}://{netloc}"
    target = url[len(origin) :].partition("#")[0]  # fragments are for the client only
    return origin, target if target.startswith("/") else f"/{target}"


def host_header(url: str) -> str:
    """Return the Host field for a URL: the host in lower case, no default port of the scheme (RFC 9110, 7.2)."""
    address = parse_url(url)
    default_port = {"http": 80, "https": 443}.get(address.scheme or "")
    return f"{address.host}{'' if address.port in (None, default_port) else f':{address.port}'}"


def parse_head(head: bytes) -> ResponseHead:
    """Parse the head of a response to a GET, from the status line to the empty line at its end.

    Raises:
        UnsupportedResponse: the head states no plain length, or is refused by httptools: folded fields, LF without CR,
            control characters in field values, two lengths.
    """
    if not head.startswith(_VERSIONS):  # httptools skips empty lines before the head, and reads RTSP and HTTP/2.0 too
        raise UnsupportedResponse
    collector = _FieldCollector()
    parser = HttpResponseParser(collector)
    try:
        parser.feed_data(head)
    except (HttpParserError, HttpParserUpgrade) as error:
        raise UnsupportedResponse from error
    status, headers = parser.get_status_code(), collector.headers
    redirects = status in REDIRECT_STATUSES and "location" in headers
    if status // 100 not in (2, 4, 5) and status not in _BODILESS_STATUSES and not redirects:
        raise UnsupportedResponse
    refused = status >= 400
    length = 0 if refused else _body_length(status, headers)
    closes = head.startswith(b"HTTP/1.0") or "close" in headers.get("connection", "").lower()
    return ResponseHead(status, headers, length, keeps_alive=not refused and not closes)


class KeepAliveConnections:
    """Keep-alive connections to one server; each carries one response at a time."""

    def __init__(self, connect: Callable[[], HTTPConnection], host: str) -> None:
        """Keep the function that opens a connection, and the value of the Host field."""
        self._connect = connect
        self._host = host
        self._idle: list[HTTPConnection] = []
        self._lock = threading.Lock()
        self._closed = False
        weakref.finalize(self, _close_connections, self._idle)  # for a thread's last request after the end of a pull

    @property
    def has_idle(self) -> bool:
        """Whether a connection is idle."""
        return bool(self._idle)

    def get(self, target: str, headers: Mapping[str, str]) -> "KeepAliveResponse":
        """Send a GET and read the head of the response; the body is left unread.

        Raises:
            RedirectedResponse: the response redirects.
            UnsupportedResponse: the request has characters that need escaping or checks, or the response does not
                state its length.
            OSError: the server was not reached, or broke off.
            HTTPException: the server broke off, or sent a head without end.
        """
        pending = self.send_ahead(target, headers)
        if pending is not None:
            try:
                return pending.read_head()
            except (RemoteDisconnected, ConnectionError):
                pass  # the server had closed the idle connection: nothing was answered yet
        return self._send_request(self._connect(), self._format_request(target, headers)).read_head()

    def send_ahead(self, target: str, headers: Mapping[str, str]) -> "PendingResponse | None":
        """Send a GET on an idle connection; None without an idle connection, or if the connection turns out to be dead.

        Raises:
            UnsupportedResponse: the request has characters that need escaping or checks.
        """
        request = self._format_request(target, headers)
        connection = self._pop_idle()
        try:
            return self._send_request(connection, request) if connection is not None else None
        except OSError:
            return None

    def close(self) -> None:
        """Close the idle connections now, and the others as soon as they are idle."""
        with self._lock:
            self._closed = True
            _close_connections(self._idle)

    def give_back(self, connection: HTTPConnection) -> None:
        """Take a connection back at the end of a response."""
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _pop_idle(self) -> HTTPConnection | None:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_connected:  # connected: no bytes and no end have arrived since
                return connection
            connection.close()

    def _format_request(self, target: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"GET {target} HTTP/1.1", f"Host: {self._host}", *(f"{k}: {v}" for k, v in headers.items())]
        if " " in target or not all(line.isascii() and line.isprintable() for line in lines):
            raise UnsupportedResponse
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _send_request(self, connection: HTTPConnection, request: bytes) -> "PendingResponse":
        try:
            connection.sock.sendall(request)
        except BaseException:
            connection.close()
            raise
        return PendingResponse(connection, self.give_back)


class PendingResponse:
    """Response to a request that has been sent; the head is still to be read."""

    def __init__(self, connection: HTTPConnection, give_back: Callable[[HTTPConnection], None]) -> None:
        """Keep the request's connection, and the function that takes the connection back after the body."""
        self._connection = connection
        self._give_back = give_back

    def read_head(self) -> "KeepAliveResponse":
        """Wait for the head of the response; to be called once.

        Raises:
            RedirectedResponse: the response redirects.
            UnsupportedResponse: the response does not state its length.
            OSError: the server broke off.
            HTTPException: the server broke off, or sent a head without end.
        """
        try:
            head, buffered = _receive_head(self._connection.sock)
            response = KeepAliveResponse(parse_head(head), buffered, self._connection, self._give_back)
            if response.status not in REDIRECT_STATUSES:
                return response
            response.discard_body(_MAX_REDIRECT_BODY)
        except BaseException:
            self._connection.close()
            raise
        raise RedirectedResponse(response.headers["location"])

    def close(self) -> None:
        """Close the connection without reading the response."""
        self._connection.close()


class KeepAliveResponse:
    """Response whose body is still to be read.

    Attributes:
        status: status code.
        headers: field values by field name in lower case.
        url: URL of the answered request; set by the connection pool.
        request_headers: headers of the answered request; set by the connection pool.
    """

    url = ""
    request_headers: Mapping[str, str] = {}

    def __init__(
        self,
        head: ResponseHead,
        buffered: memoryview,
        connection: HTTPConnection,
        give_back: Callable[[HTTPConnection], None],
    ) -> None:
        """Keep the head, the bytes of the body that arrived with the head, and the way to give the connection back."""
        self.status, self.headers, self._remaining, self._keeps_alive = head
        self._buffered = buffered
        self._connection: HTTPConnection | None = connection
        self._give_back = give_back
        if not self._remaining:
            self._end_body()

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into `buffer`, as many as have arrived; return their number, 0 at the end.

        Raises:
            OSError: the connection broke.
            IncompleteRead: the body ended too early.
        """
        room = buffer[: self._remaining]
        if not room or self._connection is None:
            return 0
        count = min(len(room), len(self._buffered))
        room[:count] = self._buffered[:count]
        self._buffered = self._buffered[count:]
        if count < len(room):
            count += self._connection.sock.recv_into(room[count:])
        if not count:
            self.close()
            raise IncompleteRead(b"", self._remaining)
        self._remaining -= count
        if not self._remaining:
            self._end_body()
        return count

    def discard_body(self, limit: int) -> None:
        """Read the body and give the connection back; close the connection if more than `limit` bytes follow."""
        if self._remaining <= limit:
            scratch = memoryview(bytearray(self._remaining))
            while self.readinto(scratch):
                pass
        self.close()

    def close(self) -> None:
        """Close the connection, unless already given back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def shutdown(self) -> None:
        """Wake a thread that waits for bytes."""
        connection = self._connection
        if connection is not None:
            connection.sock.shutdown(socket.SHUT_RD)

    def _end_body(self) -> None:
        if not self._keeps_alive or self._buffered:  # bytes beyond the length would pass for the next response
            self.close()
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            self._give_back(connection)


class _FieldCollector:
    """Fields of one response, called back by httptools for each."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = _lower_name(name), value.rstrip(b" \t").decode("latin-1")
        if key not in self.headers:
            self.headers[key] = text
        elif key in _FRAMING_FIELDS:
            raise UnsupportedResponse
        else:
            self.headers[key] += f", {text}"


@lru_cache(maxsize=256)  # a server uses the same few names
def _lower_name(name: bytes) -> str:
    return name.decode("ascii").lower()


def _body_length(status: int, headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise UnsupportedResponse
    if status in _BODILESS_STATUSES:
        return 0
    stated = headers.get("content-length", "")
    if not (stated.isascii() and stated.isdigit() and len(stated) <= _MAX_LENGTH_DIGITS):
        raise UnsupportedResponse
    return int(stated)


def _receive_head(sock: socket.socket) -> tuple[bytes, memoryview]:
    """Receive the head of a response; return the head with its empty line, and the bytes received after the head."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        if received.count(b"\n") != received.count(b"\r\n"):  # LF alone: CRLF CRLF may never come
            raise UnsupportedResponse
        if len(received) > _MAX_HEAD:
            raise HTTPException("the head of the reply has no end")
        data = sock.recv(_HEAD_CHUNK)
        if not data:
            raise IncompleteRead(received) if received else RemoteDisconnected("no reply")
        received += data
    end += len(b"\r\n\r\n")
    return received[:end], memoryview(received)[end:]


def _close_connections(connections: list[HTTPConnection]) -> None:
    while connections:
        connections.pop().close()

"""Plain exchanges of HTTP/1.1: a GET, and a reply whose length is stated, over connections that are kept open.

For a small object urllib3 and http.client cost more than all the rest; and they put each piece of a large one into new
memory. They still open the connections, and whoever gets `NotPlain` asks through them. Rules: RFC 9112.
"""

import re
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import lru_cache
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection
from urllib3.util import parse_url

_LINE = re.compile(rb"HTTP/1\.([01]) ([2-5][0-9][0-9])(?: .*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = ("content-length", "transfer-encoding")  # said twice, they may be meant to deceive
_HEAD = 16 * 1024  # bytes read at a time until the head is there
_MAX_HEAD = 64 * 1024  # bytes; http.client takes no longer line


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


class UnsupportedResponse(Exception):  # noqa: N818  no error: there is another way to ask
    """It takes a whole library to make this request, or to read this reply."""


class KeepAliveConnections:
    """The connections to one server; each is used by one reply at a time."""

    def __init__(self, connect: Callable[[], HTTPConnection], host: str) -> None:
        """Take how to connect, and what to call the server."""
        self._connect = connect
        self._host = host
        self._idle: list[HTTPConnection] = []
        self._lock = threading.Lock()
        self._closed = False
        weakref.finalize(self, _close_all, self._idle)  # nobody closes what a thread asks by once a pull has ended

    @property
    def has_idle(self) -> bool:
        """Whether a connection is."""
        return bool(self._idle)

    def get(self, target: str, headers: Mapping[str, str]) -> "KeepAliveResponse":
        """Ask; the body is left to be read.

        Raises:
            NotPlain: the request has characters that want care, or the reply redirects, or does not state its length.
            OSError: the server was not reached, or broke off.
            HTTPException: the same.
        """
        ahead = self.send_ahead(target, headers)
        if ahead is not None:
            try:
                return ahead.read_head()
            except (RemoteDisconnected, ConnectionError):
                pass  # it was closed in the meantime: nothing was answered yet
        return self._send(self._connect(), self._request(target, headers)).read_head()

    def send_ahead(self, target: str, headers: Mapping[str, str]) -> "PendingResponse | None":
        """Send a request if a connection is idle; None if there is none, or it turns out to have ended.

        Raises:
            NotPlain: the request has characters that want care.
        """
        request = self._request(target, headers)
        connection = self._pop()
        try:
            return self._send(connection, request) if connection is not None else None
        except OSError:
            return None

    def close(self) -> None:
        """Close what is idle now or later."""
        with self._lock:
            self._closed = True
            _close_all(self._idle)

    def give_back(self, connection: HTTPConnection) -> None:
        """Take a connection back, at the end of a reply."""
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _pop(self) -> HTTPConnection | None:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_connected:  # nothing has come since, not even its end
                return connection
            connection.close()

    def _request(self, target: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"GET {target} HTTP/1.1", f"Host: {self._host}", *(f"{k}: {v}" for k, v in headers.items())]
        if " " in target or not all(line.isascii() and line.isprintable() for line in lines):
            raise UnsupportedResponse
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _send(self, connection: HTTPConnection, request: bytes) -> "PendingResponse":
        try:
            connection.sock.sendall(request)
        except BaseException:
            connection.close()
            raise
        return PendingResponse(connection, self.give_back)


class PendingResponse:
    """A request that has been sent."""

    def __init__(self, connection: HTTPConnection, keep: Callable[[HTTPConnection], None]) -> None:
        """Take the connection it was sent on, and who takes it back."""
        self._connection = connection
        self._keep = keep

    def read_head(self) -> "KeepAliveResponse":
        """Wait for the head of the reply; once.

        Raises:
            NotPlain: the reply redirects, or does not state its length.
            OSError: the server broke off.
            HTTPException: the same.
        """
        try:
            head, rest = _read_head(self._connection.sock)
            return KeepAliveResponse(head, rest, self._connection, self._keep)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Have no reply."""
        self._connection.close()


class KeepAliveResponse:
    """A reply whose body is yet to come.

    Attributes:
        status: its code.
        headers: by their names in lower case.
    """

    def __init__(
        self, head: bytes, rest: bytes, connection: HTTPConnection, keep: Callable[[HTTPConnection], None]
    ) -> None:
        """Take the head of the reply, what came with it of the body, and who takes the connection at its end."""
        line, *lines = head.split(b"\r\n")
        found = _LINE.fullmatch(line)
        if not found or found[2][:1] == b"3":
            raise UnsupportedResponse
        self.status = int(found[2])
        self.headers: Mapping[str, str] = _headers(lines)
        refused = self.status >= 400  # the status says it all: nobody reads what comes with it
        self._left = 0 if refused else _length(self.headers)
        self._rest = memoryview(rest)
        closes = found[1] == b"0" or "close" in self.headers.get("connection", "").lower()
        self._keeps = not refused and not closes
        self._connection: HTTPConnection | None = connection
        self._keep = keep
        if not self._left:
            self._end()

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes, as many as have come; 0 at the end.

        Raises:
            OSError: the connection broke.
            IncompleteRead: it ended too early.
        """
        room = buffer[: self._left]
        if not room or self._connection is None:
            return 0
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        if count < len(room):
            count += self._connection.sock.recv_into(room[count:])
        if not count:
            self.close()
            raise IncompleteRead(b"", self._left)
        self._left -= count
        if not self._left:
            self._end()
        return count

    def close(self) -> None:
        """Close the connection, unless it has been given back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def shutdown(self) -> None:
        """Wake a thread that waits for bytes."""
        connection = self._connection
        if connection is not None:
            connection.sock.shutdown(socket.SHUT_RD)

    def _end(self) -> None:
        if not self._keeps or self._rest:  # more than was stated: what comes next cannot be told apart
            self.close()
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            self._keep(connection)


def _close_all(connections: list[HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head of a reply without its empty line, and what came after it."""
    came = b""
    while (end := came.find(b"\r\n\r\n")) < 0:
        if len(came) > _MAX_HEAD:
            raise HTTPException("the head of the reply has no end")
        more = sock.recv(_HEAD)
        if not more:
            raise RemoteDisconnected("no reply") if not came else IncompleteRead(came)
        came += more
    return came[:end], came[end + 4 :]


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        key = _key(name)
        if b"\n" in value or b"\r" in value or (key in headers and key in _FRAMING):
            raise UnsupportedResponse
        said = value.strip(b" \t").decode("latin-1")
        headers[key] = f"{headers[key]}, {said}" if key in headers else said
    return headers


@lru_cache(maxsize=256)  # a server uses the same few
def _key(name: bytes) -> str:
    if not _NAME.fullmatch(name):
        raise UnsupportedResponse
    return name.decode("ascii").lower()


def _length(headers: Mapping[str, str]) -> int:
    stated = headers.get("content-length", "")
    if "transfer-encoding" in headers or not (stated.isascii() and stated.isdigit() and len(stated) < 20):
        raise UnsupportedResponse
    return int(stated)

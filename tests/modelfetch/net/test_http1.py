"""HTTP/1.1 GET client: responses read without urllib3, responses left to urllib3, and connections used again."""

import socket
import threading
from contextlib import closing
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

import pytest
from urllib3.connection import HTTPConnection

from modelfetch.net.http1 import KeepAliveConnections, KeepAliveResponse, UnsupportedResponse, parse_head
from testkit.file_tree import random_bytes
from testkit.raw_server import CLOSE, RawServer

pytestmark = pytest.mark.server

BODY = random_bytes(70_000, 3)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Note: yes\r\n\r\n" % len(BODY) + BODY


def connect_to(port: int) -> KeepAliveConnections:
    """Return keep-alive connections to a port on loopback."""

    def connect() -> HTTPConnection:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.connect()
        return connection

    return KeepAliveConnections(connect, f"127.0.0.1:{port}")


def read_body(response: KeepAliveResponse, size: int = 10_000) -> bytes:
    """Return a whole body, read in pieces of `size` bytes."""
    received, buffer = b"", memoryview(bytearray(size))
    while count := response.readinto(buffer):
        received += buffer[:count]
    return received


@pytest.mark.parametrize("size", [1000, 16 * 1024, 256 * 1024])
def test_body_is_read_to_its_stated_length(raw_server: RawServer, size: int) -> None:
    """Pieces of any size, first those received with the head; after the last byte a read returns 0."""
    with closing(connect_to(raw_server.start([OK]))) as connections:
        response = connections.get("/a%20b?c=d", {"X-Test": "yes"})

        assert (response.status, response.headers["x-note"]) == (200, "yes")
        assert read_body(response, size) == BODY
        assert response.readinto(memoryview(bytearray(10))) == 0
    assert raw_server.requests[0][0].startswith(b"GET /a%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Test: yes\r\n" in raw_server.requests[0][0]


def test_connection_is_used_again_after_the_whole_body(raw_server: RawServer) -> None:
    """Three requests share a connection, each sent after the body before was read."""
    with closing(connect_to(raw_server.start([OK, OK, OK]))) as connections:
        assert [read_body(connections.get(f"/{number}", {})) for number in range(3)] == [BODY] * 3
    assert len(raw_server.requests[0]) == 3


@pytest.mark.parametrize(
    "first",
    [
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK.replace(b"X-Note: yes", b"Connection: close"),
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 503 Slow Down\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n",
    ],
    ids=["HTTP/1.0", "close", "more than the stated length", "refused"],
)
def test_connection_in_doubt_is_not_used_again(raw_server: RawServer, first: bytes) -> None:
    """Bytes left on the connection would pass for the next response."""
    with closing(connect_to(raw_server.start([first], [OK]))) as connections:
        read_body(connections.get("/1", {}))
        assert connections.send_ahead("/ahead", {}) is None
        assert read_body(connections.get("/2", {})) == BODY
    assert [len(requests) for requests in raw_server.requests] == [1, 1]


def test_unread_body_closes_its_connection(raw_server: RawServer) -> None:
    """The rest of the body would pass for the next response."""
    with closing(connect_to(raw_server.start([OK], [OK]))) as connections:
        connections.get("/1", {}).close()
        assert read_body(connections.get("/2", {})) == BODY
    assert [len(requests) for requests in raw_server.requests] == [1, 1]


@pytest.mark.parametrize("end", [CLOSE, b""], ids=["before the request", "after it"])
def test_request_is_repeated_when_an_idle_connection_was_closed(raw_server: RawServer, end: bytes) -> None:
    """Servers close idle connections, and a client may notice too late."""
    with closing(connect_to(raw_server.start([OK, end], [OK]))) as connections:
        assert [read_body(connections.get(f"/{number}", {})) for number in range(2)] == [BODY] * 2
    assert [len(requests) for requests in raw_server.requests][1:] == [1]


def test_request_is_sent_ahead_on_an_idle_connection(raw_server: RawServer) -> None:
    """Without an idle connection nothing is sent: no connection is opened for a request ahead."""
    with closing(connect_to(raw_server.start([OK, OK]))) as connections:
        idle = [connections.has_idle]
        assert connections.send_ahead("/0", {}) is None
        read_body(connections.get("/1", {}))
        idle.append(connections.has_idle)
        pending = connections.send_ahead("/2", {})
        assert pending is not None
        idle.append(connections.has_idle)
        assert connections.send_ahead("/3", {}) is None
        assert read_body(pending.read_head()) == BODY
        assert [*idle, connections.has_idle] == [False, True, False, True]
    assert [request.split()[1] for request in raw_server.requests[0]] == [b"/1", b"/2"]


def test_request_sent_ahead_and_closed_leaves_no_connection(raw_server: RawServer) -> None:
    """The unread response would pass for the next response."""
    with closing(connect_to(raw_server.start([OK, OK]))) as connections:
        read_body(connections.get("/1", {}))
        (connection,) = connections._idle
        pending = connections.send_ahead("/2", {})
        assert pending is not None
        pending.close()
        assert connection.sock is None
        assert not connections.has_idle


def test_no_request_is_sent_ahead_on_an_ended_connection(raw_server: RawServer) -> None:
    """The end of the connection is noticed before the request is sent."""
    with closing(connect_to(raw_server.start([OK, OK]))) as connections:
        read_body(connections.get("/1", {}))
        (connection,) = connections._idle
        connection.sock.shutdown(socket.SHUT_RDWR)
        assert connections.send_ahead("/2", {}) is None
        assert not connections.has_idle


def test_server_without_a_response_is_an_error(raw_server: RawServer) -> None:
    """A request on a fresh connection is not repeated."""
    with closing(connect_to(raw_server.start([b""]))) as connections, pytest.raises(RemoteDisconnected):
        connections.get("/", {})


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX-Bad : a\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX-Bad: a\nb: c\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n12345",
        b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
        b"HTTP/2 200\r\nContent-Length: 5\r\n\r\n12345",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\nContent-Length: 5\r\n\r\n12345",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\n12345",
        b"HTTP/1.1 200 OK\r\nX-Tab: a\r\n\tb\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX-Control: a\0b\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX-Control: a\x1bb\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX-Control: a\x7fb\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX-Control: a\rb\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 20 + b"\r\n\r\n12345",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_unsupported_response_is_left_to_urllib3(raw_server: RawServer, head: bytes) -> None:
    """Another framing, a redirect, an ambiguous head, or no HTTP at all."""
    with closing(connect_to(raw_server.start([head]))) as connections, pytest.raises(UnsupportedResponse):
        connections.get("/", {})


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_response_without_a_body_leaves_the_connection_for_the_next_request(
    raw_server: RawServer, status: bytes
) -> None:
    """Responses with status 204 and 304 end with the head, whatever length is stated."""
    bodiless = b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n"
    with closing(connect_to(raw_server.start([bodiless, OK]))) as connections:
        response = connections.get("/1", {})
        assert (response.status, read_body(response)) == (int(status[:3]), b"")
        assert read_body(connections.get("/2", {})) == BODY
    assert len(raw_server.requests[0]) == 2


def test_field_values_are_read_as_latin_1_without_surrounding_whitespace() -> None:
    """Empty values and tabs are kept, and values of fields that are only similar in name are not joined."""
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 005\r\nX-A:\r\nX-B: \t a\tb\xe4\x85 \t\r\nX-Ab: c\r\n\r\n")

    assert head == (200, {"content-length": "005", "x-a": "", "x-b": "a\tb\xe4\x85", "x-ab": "c"}, 5, True)


@pytest.mark.parametrize(
    ("target", "value"),
    [("/a b", "x"), ("/a\r\nX-Y: z", "x"), ("/ä", "x"), ("/", "x\r\nX-Y: z"), ("/", "ä"), ("/", "\x00")],
)
def test_unsafe_characters_in_a_request_are_not_sent(target: str, value: str) -> None:
    """Target and field values with such characters need urllib3; no connection is made."""

    def connect() -> HTTPConnection:
        raise AssertionError("connected")

    with pytest.raises(UnsupportedResponse):
        KeepAliveConnections(connect, "host").get(target, {"X-Test": value})


def test_repeated_field_is_joined_by_commas(raw_server: RawServer) -> None:
    """Google states its checksums in two fields of the same name."""
    response = b"HTTP/1.1 200 OK\r\nX-Goog-Hash: crc32c=a\r\nx-goog-hash:md5=b\r\nContent-Length: 0\r\n\r\n"
    with closing(connect_to(raw_server.start([response]))) as connections:
        assert connections.get("/", {}).headers["x-goog-hash"] == "crc32c=a, md5=b"


@pytest.mark.parametrize(
    ("sent", "error"),
    [(OK[:-1], IncompleteRead), (b"HTTP/1.1 200 OK\r\nX-", IncompleteRead), (b"x" * 100_000, HTTPException)],
    ids=["in the body", "in the head", "head without end"],
)
def test_response_that_ends_early_is_an_error(raw_server: RawServer, sent: bytes, error: type[Exception]) -> None:
    """Neither an incomplete head nor an incomplete body is taken for the whole."""
    with closing(connect_to(raw_server.start([sent, CLOSE]))) as connections, pytest.raises(error):
        read_body(connections.get("/", {}))


def test_shutdown_wakes_a_thread_that_waits_for_bytes(raw_server: RawServer) -> None:
    """A pull that has failed elsewhere does not wait for stalled connections."""
    with closing(connect_to(raw_server.start([OK[:-1]]))) as connections, closing(connections.get("/", {})) as response:
        assert response.readinto(memoryview(bytearray(1000)))
        waker = threading.Timer(0.2, response.shutdown)
        waker.start()
        with pytest.raises(IncompleteRead):
            read_body(response)
        waker.join()


def test_forgotten_connections_are_closed(raw_server: RawServer) -> None:
    """A thread that sends one more request after the end of a pull leaves no connection behind."""
    connections = connect_to(raw_server.start([OK]))
    read_body(connections.get("/", {}))
    (connection,) = connections._idle
    del connections

    assert connection.sock is None

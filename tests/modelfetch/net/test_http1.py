"""Plain exchanges: what is read by ourselves, what is left to urllib3, and which connections are used again."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

import pytest
from urllib3.connection import HTTPConnection

from modelfetch.errors import TransientError
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions
from modelfetch.net.http1 import KeepAliveConnections, KeepAliveResponse, UnsupportedResponse
from testkit.file_tree import random_bytes

pytestmark = pytest.mark.server

BODY = random_bytes(70_000, 3)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Said: so\r\n\r\n" % len(BODY) + BODY
CLOSE = b"at once"
Serve = Callable[..., int]


def talk(connection: socket.socket, replies: list[bytes], came: list[bytes]) -> None:
    """Answer each request with the next reply."""
    with connection, suppress(OSError):
        for reply in replies:
            if reply is CLOSE:
                return
            asked = b""
            while b"\r\n\r\n" not in asked:
                more = connection.recv(65536)
                if not more:
                    return
                asked += more
            came.append(asked)
            connection.sendall(reply)
        if replies and replies[-1]:
            connection.settimeout(60)
            connection.recv(1)


@pytest.fixture
def served() -> Iterator[tuple[Serve, list[list[bytes]]]]:
    """Called with replies for each connection in turn, it returns a port; and the requests that came by each.

    After its last reply a connection is closed once the client has closed it or sent something more; or at once.
    """
    requests: list[list[bytes]] = []
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept(connections: tuple[list[bytes], ...]) -> None:
        for replies in connections:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            requests.append([])
            talk(connection, replies, requests[-1])

    def start(*connections: list[bytes]) -> int:
        threads.append(threading.Thread(target=accept, args=[connections]))
        threads[0].start()
        return int(listener.getsockname()[1])

    yield start, requests
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(60)


def kept(port: int) -> KeepAliveConnections:
    """Connections to the server there."""

    def connect() -> HTTPConnection:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.connect()
        return connection

    return KeepAliveConnections(connect, f"127.0.0.1:{port}")


def whole(reply: KeepAliveResponse, size: int = 10_000) -> bytes:
    """All of a body, read so many bytes at a time."""
    came, buffer = b"", memoryview(bytearray(size))
    while count := reply.readinto(buffer):
        came += buffer[:count]
    return came


@pytest.mark.parametrize("size", [1000, 16 * 1024, 256 * 1024])
def test_a_body_is_read_to_the_length_that_was_stated(served: tuple[Serve, list[list[bytes]]], size: int) -> None:
    """In pieces of any size, those that came with the head included; and then there is no more."""
    serve, requests = served
    with closing(kept(serve([OK]))) as server:
        reply = server.get("/a%20b?c=d", {"X-Asked": "yes"})

        assert (reply.status, reply.headers["x-said"]) == (200, "so")
        assert whole(reply, size) == BODY
        assert reply.readinto(memoryview(bytearray(10))) == 0
    assert requests[0][0].startswith(b"GET /a%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Asked: yes\r\n" in requests[0][0]


def test_a_connection_is_used_again(served: tuple[Serve, list[list[bytes]]]) -> None:
    """Once the body before has been read."""
    serve, requests = served
    with closing(kept(serve([OK, OK, OK]))) as server:
        assert [whole(server.get(f"/{number}", {})) for number in range(3)] == [BODY] * 3
    assert len(requests[0]) == 3


@pytest.mark.parametrize(
    "first",
    [
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK.replace(b"X-Said: so", b"Connection: close"),
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 503 Slow Down\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n",
    ],
    ids=["HTTP/1.0", "close", "more than was stated", "a refusal"],
)
def test_a_connection_that_cannot_be_trusted_is_not_used_again(
    served: tuple[Serve, list[list[bytes]]], first: bytes
) -> None:
    """What is left on it would pass for the next reply."""
    serve, requests = served
    with closing(kept(serve([first], [OK]))) as server:
        whole(server.get("/1", {}))
        assert whole(server.get("/2", {})) == BODY
    assert [len(asked) for asked in requests] == [1, 1]


def test_a_body_that_is_left_closes_its_connection(served: tuple[Serve, list[list[bytes]]]) -> None:
    """The rest of it would pass for the next reply."""
    serve, requests = served
    with closing(kept(serve([OK], [OK]))) as server:
        server.get("/1", {}).close()
        assert whole(server.get("/2", {})) == BODY
    assert [len(asked) for asked in requests] == [1, 1]


@pytest.mark.parametrize("end", [CLOSE, b""], ids=["before the request", "after it"])
def test_a_connection_that_was_closed_meanwhile_is_opened_anew(
    served: tuple[Serve, list[list[bytes]]], end: bytes
) -> None:
    """Servers close what is idle, and a client may see that too late."""
    serve, requests = served
    with closing(kept(serve([OK, end], [OK]))) as server:
        assert [whole(server.get(f"/{number}", {})) for number in range(2)] == [BODY] * 2
    assert [len(asked) for asked in requests][1:] == [1]


def test_a_request_goes_ahead_by_a_connection_that_is_idle(served: tuple[Serve, list[list[bytes]]]) -> None:
    """By no other: nobody waits for one to be opened."""
    serve, requests = served
    with closing(kept(serve([OK, OK]))) as server:
        idle = [server.has_idle]
        assert server.send_ahead("/0", {}) is None
        whole(server.get("/1", {}))
        idle.append(server.has_idle)
        asked = server.send_ahead("/2", {})
        assert asked is not None
        idle.append(server.has_idle)
        assert server.send_ahead("/3", {}) is None
        assert whole(asked.read_head()) == BODY
        assert [*idle, server.has_idle] == [False, True, False, True]
    assert [asked.split()[1] for asked in requests[0]] == [b"/1", b"/2"]


def test_a_request_ahead_that_nobody_waits_for_leaves_nothing(served: tuple[Serve, list[list[bytes]]]) -> None:
    """Its reply would pass for the next one."""
    serve, _ = served
    with closing(kept(serve([OK, OK]))) as server:
        whole(server.get("/1", {}))
        (connection,) = server._idle
        asked = server.send_ahead("/2", {})
        assert asked is not None
        asked.close()
        assert connection.sock is None
        assert not server.has_idle


def test_no_request_goes_ahead_by_a_connection_that_has_ended(served: tuple[Serve, list[list[bytes]]]) -> None:
    """That is seen before anything is sent."""
    serve, _ = served
    with closing(kept(serve([OK, OK]))) as server:
        whole(server.get("/1", {}))
        (connection,) = server._idle
        connection.sock.shutdown(socket.SHUT_RDWR)
        assert server.send_ahead("/2", {}) is None
        assert not server.has_idle


def test_a_server_that_does_not_answer_is_told_of(served: tuple[Serve, list[list[bytes]]]) -> None:
    """On a fresh connection, that is: it is not asked for ever."""
    serve, _ = served
    with closing(kept(serve([b""]))) as server, pytest.raises(RemoteDisconnected):
        server.get("/", {})


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
    ],
)
def test_what_wants_a_library_is_left_to_one(served: tuple[Serve, list[list[bytes]]], head: bytes) -> None:
    """Replies that are framed in another way, that lead elsewhere, or that are none."""
    serve, _ = served
    with closing(kept(serve([head]))) as server, pytest.raises(UnsupportedResponse):
        server.get("/", {})


@pytest.mark.parametrize(
    ("target", "value"),
    [("/a b", "x"), ("/a\r\nX-Y: z", "x"), ("/ä", "x"), ("/", "x\r\nX-Y: z"), ("/", "ä"), ("/", "\x00")],
)
def test_characters_that_want_care_are_not_sent(target: str, value: str) -> None:
    """Nor is a connection made."""

    def connect() -> HTTPConnection:
        raise AssertionError("connected")

    with pytest.raises(UnsupportedResponse):
        KeepAliveConnections(connect, "host").get(target, {"X-Asked": value})


def test_what_is_said_twice_is_joined(served: tuple[Serve, list[list[bytes]]]) -> None:
    """As Google states its checksums."""
    serve, _ = served
    said = b"HTTP/1.1 200 OK\r\nX-Goog-Hash: crc32c=a\r\nx-goog-hash:md5=b\r\nContent-Length: 0\r\n\r\n"
    with closing(kept(serve([said]))) as server:
        assert server.get("/", {}).headers["x-goog-hash"] == "crc32c=a, md5=b"


@pytest.mark.parametrize(
    ("sent", "error"),
    [(OK[:-1], IncompleteRead), (b"HTTP/1.1 200 OK\r\nX-", IncompleteRead), (b"x" * 100_000, HTTPException)],
    ids=["in the body", "in the head", "a head without end"],
)
def test_a_reply_that_ends_early_is_no_whole_one(
    served: tuple[Serve, list[list[bytes]]], sent: bytes, error: type[Exception]
) -> None:
    """However much of it has come."""
    serve, _ = served
    with closing(kept(serve([sent, CLOSE]))) as server, pytest.raises(error):
        whole(server.get("/", {}))


def test_a_thread_that_waits_for_bytes_is_woken(served: tuple[Serve, list[list[bytes]]]) -> None:
    """A pull that has failed elsewhere does not wait for its stalled connections."""
    serve, _ = served
    with closing(kept(serve([OK[:-1]]))) as server, closing(server.get("/", {})) as reply:
        assert reply.readinto(memoryview(bytearray(1000)))
        waker = threading.Timer(0.2, reply.shutdown)
        waker.start()
        with pytest.raises(IncompleteRead):
            whole(reply)
        waker.join()


def test_the_pool_asks_through_urllib3_what_is_not_plain(served: tuple[Serve, list[list[bytes]]]) -> None:
    """From then on at once, for the next reply of the same server will not be plain either."""
    serve, requests = served
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: x\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    port = serve([chunked], [chunked, chunked])
    buffer = memoryview(bytearray(100))
    with closing(ConnectionPool(NetworkOptions())) as pool:
        for _ in range(2):
            with closing(pool.get(f"http://127.0.0.1:{port}/", {})) as reply:
                assert (reply.status, reply.headers["etag"]) == (200, "x")
                assert bytes(buffer[: reply.readinto(buffer)]) == b"hello"
                assert reply.readinto(buffer) == 0
    assert [len(asked) for asked in requests] == [1, 2]


def test_the_pool_follows_redirects(served: tuple[Serve, list[list[bytes]]]) -> None:
    """To the bytes, wherever they are."""
    serve, _ = served
    away = b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    port = serve([away], [away, OK])
    with closing(ConnectionPool(NetworkOptions())) as pool, closing(pool.get(f"http://127.0.0.1:{port}/", {})) as reply:
        assert reply.status == 200
        assert reply.readinto(memoryview(bytearray(len(BODY))))


def test_a_server_that_falls_silent_is_left(served: tuple[Serve, list[list[bytes]]]) -> None:
    """After the time that was set, in plain words."""
    serve, _ = served
    port = serve([b"HTTP"])
    with (
        closing(ConnectionPool(NetworkOptions(stall_timeout=0.5))) as pool,
        pytest.raises(TransientError, match=r"no byte for 0\.5 s"),
    ):
        pool.get(f"http://127.0.0.1:{port}/", {})


def test_the_schemes_own_port_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As signatures are made without it; any other is."""
    named: list[str] = []

    def note(_: object, host: str) -> None:
        named.append(host)
        raise OSError

    monkeypatch.setattr("modelfetch.net.connection_pool.KeepAliveConnections", note)
    for url in ("http://h:80/", "http://h:443/", "https://h/", "http://[::1]:80/", "http://[::1]:9000/"):
        with closing(ConnectionPool(NetworkOptions())) as pool, pytest.raises(TransientError):
            pool.get(url, {})
    assert named == ["h", "h:443", "h", "[::1]", "[::1]:9000"]


def test_what_a_redirect_leads_to_elsewhere_gets_no_credentials(served: tuple[Serve, list[list[bytes]]]) -> None:
    """Neither a signature nor a token: the host there may be anybody's."""
    serve, requests = served
    port = serve([OK])
    away = b"HTTP/1.1 307 Elsewhere\r\nLocation: http://localhost:%d/other\r\nContent-Length: 0\r\n\r\n" % port
    with socket.create_server(("127.0.0.1", 0)) as first:

        def lead_away() -> None:
            for _ in range(2):  # the second one asks by urllib3
                talk(first.accept()[0], [away], [])

        thread = threading.Thread(target=lead_away)
        thread.start()
        url = f"http://127.0.0.1:{first.getsockname()[1]}/"
        with closing(ConnectionPool(NetworkOptions())) as pool:
            pool.get(url, {"Authorization": "secret", "X-Amz-Security-Token": "secret", "Cookie": "secret"}).close()
        thread.join(60)
    assert requests[-1]
    assert not any(b"secret" in asked for connection in requests for asked in connection)


def test_what_is_forgotten_is_closed(served: tuple[Serve, list[list[bytes]]]) -> None:
    """A thread that asks once more when a pull has ended leaves no connection behind."""
    serve, _ = served
    server = kept(serve([OK]))
    whole(server.get("/", {}))
    (connection,) = server._idle
    del server

    assert connection.sock is None

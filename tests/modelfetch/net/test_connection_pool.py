"""Connection pool: keep-alive connections, urllib3 for the rest, redirects and credentials."""

import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from modelfetch.errors import TransientError
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions, check_endpoint
from testkit.file_tree import random_bytes
from testkit.raw_server import RawServer, answer_requests

BODY = random_bytes(70_000, 3)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def test_usable_endpoint_passes_the_check(tmp_path: Path) -> None:
    """A bundle of certificates may be a directory, and no bundle is needed."""
    check_endpoint(NetworkOptions(ca_bundle=str(tmp_path)), "https://h/")
    check_endpoint(NetworkOptions(), "https://h/")


def test_pool_uses_urllib3_when_the_response_is_chunked(raw_server: RawServer) -> None:
    """Later requests go to urllib3 at once, for the same server's next response will be chunked too."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: x\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    port = raw_server.start([chunked], [chunked, chunked])
    buffer = memoryview(bytearray(100))
    with closing(ConnectionPool(NetworkOptions())) as pool:
        for _ in range(2):
            with closing(pool.get(f"http://127.0.0.1:{port}/", {})) as response:
                assert (response.status, response.headers["etag"]) == (200, "x")
                assert bytes(buffer[: response.readinto(buffer)]) == b"hello"
                assert response.readinto(buffer) == 0
    assert [len(requests) for requests in raw_server.requests] == [1, 2]


def test_pool_follows_redirects(raw_server: RawServer) -> None:
    """The response of the redirect's target is returned, with its body."""
    redirect = b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    port = raw_server.start([redirect], [redirect, OK])
    with (
        closing(ConnectionPool(NetworkOptions())) as pool,
        closing(pool.get(f"http://127.0.0.1:{port}/", {})) as response,
    ):
        assert response.status == 200
        assert response.readinto(memoryview(bytearray(len(BODY))))


@pytest.mark.server
def test_silent_server_is_a_transient_error_after_the_stall_timeout(raw_server: RawServer) -> None:
    """The message states the seconds without a byte in plain words."""
    port = raw_server.start([b"HTTP"])
    with (
        closing(ConnectionPool(NetworkOptions(stall_timeout=0.5))) as pool,
        pytest.raises(TransientError, match=r"no byte for 0\.5 s"),
    ):
        pool.get(f"http://127.0.0.1:{port}/", {})


def test_host_field_leaves_out_the_default_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures are made without the scheme's default port; any other port is named."""
    named: list[str] = []

    def note_host(_: object, host: str) -> None:
        named.append(host)
        raise OSError

    monkeypatch.setattr("modelfetch.net.connection_pool.KeepAliveConnections", note_host)
    for url in ("http://h:80/", "http://h:443/", "https://h/", "http://[::1]:80/", "http://[::1]:9000/"):
        with closing(ConnectionPool(NetworkOptions())) as pool, pytest.raises(TransientError):
            pool.get(url, {})
    assert named == ["h", "h:443", "h", "[::1]", "[::1]:9000"]


def test_redirect_to_another_host_gets_no_credentials(raw_server: RawServer) -> None:
    """Neither a signature nor a token is sent on: the other host may be anybody's."""
    port = raw_server.start([OK])
    redirect = b"HTTP/1.1 307 Elsewhere\r\nLocation: http://localhost:%d/other\r\nContent-Length: 0\r\n\r\n" % port
    with socket.create_server(("127.0.0.1", 0)) as first:

        def redirect_twice() -> None:
            for _ in range(2):  # the second request comes through urllib3
                answer_requests(first.accept()[0], [redirect], [])

        thread = threading.Thread(target=redirect_twice)
        thread.start()
        url = f"http://127.0.0.1:{first.getsockname()[1]}/"
        with closing(ConnectionPool(NetworkOptions())) as pool:
            pool.get(url, {"Authorization": "secret", "X-Amz-Security-Token": "secret", "Cookie": "secret"}).close()
        thread.join(60)
    assert raw_server.requests[-1]
    assert not any(b"secret" in request for requests in raw_server.requests for request in requests)

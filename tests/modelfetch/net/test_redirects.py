"""Redirects of a GET: next URL, headers that go there, and connections that stay usable."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from modelfetch.errors import RefusedError
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions, Response
from modelfetch.net.http1 import KeepAliveResponse
from modelfetch.net.redirects import MAX_REDIRECTS, follow_redirect
from testkit.raw_server import RawServer

HUB = "https://hub.test/models/m.bin?revision=1"
SECRETS = {
    "Authorization": "a",
    "authorization": "b",
    "Cookie": "c",
    "Proxy-Authorization": "d",
    "X-Amz-Security-Token": "e",
}
HARMLESS = {"Range": "bytes=0-9", "If-Match": '"v1"'}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def target() -> Iterator[RawServer]:
    """Server that a redirect leads to."""
    with closing(RawServer()) as scripted:
        yield scripted


def redirect_to(location: str) -> bytes:
    """Return a redirect with a body of known length."""
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved".encode()


def chunked_redirect_to(location: str) -> bytes:
    """Return a redirect whose chunked body only urllib3 reads."""
    return (
        f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nmoved\r\n0\r\n\r\n"
    ).encode()


def read_text(response: Response) -> bytes:
    """Return the first hundred bytes of a body and close the response."""
    buffer = memoryview(bytearray(100))
    with closing(response):
        received = bytes(buffer[: response.readinto(buffer)])
        assert response.readinto(buffer) == 0
        return received


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/other?a=b", "https://hub.test/other?a=b"),
        ("other", "https://hub.test/models/other"),
        ("https://hub.test/other", "https://hub.test/other"),
        ("https://HUB.test:443/other", "https://HUB.test:443/other"),
    ],
    ids=["absolute path", "relative path", "same origin", "default port and capitals"],
)
def test_redirect_within_one_origin_keeps_all_headers(location: str, expected: str) -> None:
    """Scheme, host and port are equal, so the same server may learn the secrets."""
    assert follow_redirect(HUB, {**SECRETS, **HARMLESS}, location) == (expected, {**SECRETS, **HARMLESS})


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://cdn.test/x", "https://cdn.test/x"),
        ("//cdn.test/x", "https://cdn.test/x"),
        ("https://hub.test:8443/x", "https://hub.test:8443/x"),
        ("https://hub.test.evil.test/x", "https://hub.test.evil.test/x"),
    ],
    ids=["other host", "other host without scheme", "other port", "longer host"],
)
def test_redirect_to_another_origin_removes_secrets_only(location: str, expected: str) -> None:
    """Range and precondition go along; credentials, cookies and session tokens stay, in any spelling."""
    assert follow_redirect(HUB, {**SECRETS, **HARMLESS}, location) == (expected, HARMLESS)


@pytest.mark.parametrize(
    "location", ["ftp://cdn.test/x", "file:///etc/passwd", "javascript:x", "https://[x/", "https://:80/x"]
)
def test_redirect_to_anything_but_a_web_address_is_refused(location: str) -> None:
    """The message names the host that redirected, not the hostile location."""
    with pytest.raises(RefusedError, match=r"hub\.test redirects to what is no web address"):
        follow_redirect(HUB, {}, location)


@pytest.mark.server
@pytest.mark.parametrize("location", ["http://hub.test/m", "HTTP://other.test/m", "http://hub.test:443/m"])
def test_redirect_from_https_to_http_is_refused(location: str) -> None:
    """Anyone on the way could alter the model, or read the headers."""
    with pytest.raises(RefusedError, match=r"hub\.test redirects from https to http"):
        follow_redirect(HUB, {}, location)


def test_redirect_from_http_to_http_is_followed() -> None:
    """An address without protection gains none by a refusal."""
    assert follow_redirect("http://a.test/m", {}, "http://b.test/m") == ("http://b.test/m", {})


def test_hub_connection_is_reused_after_a_redirect_with_a_body(raw_server: RawServer, target: RawServer) -> None:
    """Both requests share one connection to the hub, and one to the target."""
    location = f"http://127.0.0.1:{target.start([OK, OK])}/x"
    hub = f"http://127.0.0.1:{raw_server.start([redirect_to(location)] * 2)}/m"
    with closing(ConnectionPool(NetworkOptions())) as pool:
        for _ in range(2):
            response = pool.get(hub, {"Authorization": "secret", "Range": "bytes=0-4"})
            assert (response.url, response.request_headers) == (location, {"Range": "bytes=0-4"})
            assert read_text(response) == b"hello"
    assert [len(requests) for requests in raw_server.requests] == [2]
    assert [len(requests) for requests in target.requests] == [2]


@pytest.mark.server
def test_redirect_loop_is_refused_after_five_redirects(raw_server: RawServer) -> None:
    """The first request and five redirects are sent, then no more."""
    port = raw_server.start([redirect_to("/again")] * (MAX_REDIRECTS + 2))
    with (
        closing(ConnectionPool(NetworkOptions())) as pool,
        pytest.raises(RefusedError, match="in a loop, or too often"),
    ):
        pool.get(f"http://127.0.0.1:{port}/", {})
    assert [len(requests) for requests in raw_server.requests] == [MAX_REDIRECTS + 1]


@pytest.mark.server
def test_chunked_redirect_leads_to_a_keep_alive_response_of_the_target(
    raw_server: RawServer, target: RawServer
) -> None:
    """Only the hub needs urllib3: the target's responses are still read without."""
    location = f"http://127.0.0.1:{target.start([OK, OK])}/x"
    moved = chunked_redirect_to(location)
    hub = f"http://127.0.0.1:{raw_server.start([moved], [moved, moved])}/m"
    with closing(ConnectionPool(NetworkOptions())) as pool:
        for _ in range(2):
            response = pool.get(hub, {"Authorization": "secret"})
            assert isinstance(response, KeepAliveResponse)
            assert (response.url, read_text(response)) == (location, b"hello")
    assert [len(requests) for requests in raw_server.requests] == [1, 2]
    assert [len(requests) for requests in target.requests] == [2]
    assert not any(b"secret" in request for requests in target.requests for request in requests)

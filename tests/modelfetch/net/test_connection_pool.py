"""Connections: through the environment's proxies; and why one failed, without the address that holds a signature."""

import base64
import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import Message
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import requests
import trustme
from urllib3 import exceptions as u3

from modelfetch.errors import ConfigError, CredentialsError, ModelfetchError, RefusedError, TransientError
from modelfetch.net.connection_pool import (
    ConnectionPool,
    NetworkOptions,
    check_endpoint,
    explain_network_error,
    host_of,
)
from testkit.library_errors import CONNECTION, POOL, SECRET, URL, max_retry_error, untrusted_certificate


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            max_retry_error(u3.NameResolutionError("store.invalid", CONNECTION, socket.gaierror(-2, "x"))),
            TransientError,
            "resolved",
        ),
        (max_retry_error(u3.NewConnectionError(CONNECTION, "refused")), TransientError, "broke the connection off"),
        (ConnectionRefusedError(111, "refused"), TransientError, "nothing listens"),
        (max_retry_error(u3.ConnectTimeoutError(CONNECTION, "x")), TransientError, "in time"),
        (max_retry_error(u3.ReadTimeoutError(POOL, URL, "x")), TransientError, "no byte for 5 s"),
        (u3.ReadTimeoutError(POOL, URL, "x"), TransientError, "no byte for 5 s"),
        (TimeoutError("timed out"), TransientError, "no byte for 5 s"),
        (max_retry_error(u3.SSLError(untrusted_certificate())), RefusedError, "self-signed certificate"),
        (max_retry_error(u3.SSLError(ssl.SSLError(1, "WRONG_VERSION_NUMBER"))), TransientError, "TLS"),
        (ssl.SSLEOFError(8, "eof"), TransientError, "TLS"),
        (max_retry_error(u3.ProxyError("x", OSError("y"))), TransientError, "proxy"),
        (u3.ProxyError("x", OSError("Tunnel connection failed: 407 Who?")), CredentialsError, "proxy"),
        (u3.ProxyError("x", OSError("Tunnel connection failed: 403 No")), RefusedError, "proxy"),
        (u3.ProxyError("x", OSError("Tunnel connection failed: 502 Bad")), TransientError, "proxy"),
        (max_retry_error(u3.ResponseError("too many redirects")), RefusedError, "redirects in a loop"),
        (u3.ProtocolError("broken", ConnectionResetError(104, "reset")), TransientError, "ConnectionResetError"),
        (u3.ProtocolError("broken", IncompleteRead(b"x", 5)), TransientError, "broke the connection off"),
        (u3.IncompleteRead(1, 5), TransientError, "broke the connection off"),
        (u3.InvalidHeader("x"), TransientError, "broke the connection off"),
        (u3.LocationParseError("x"), ConfigError, "not an address"),
        (u3.LocationValueError("no host"), ConfigError, "not an address"),
        (ValueError("label too long"), ConfigError, "not an address"),
        (OSError(errno.ENETUNREACH, "unreachable"), TransientError, "broke the connection off"),
        (BrokenPipeError(32, "pipe"), TransientError, "BrokenPipeError"),
        (requests.ConnectionError(max_retry_error(u3.NewConnectionError(CONNECTION, "x"))), TransientError, "broke"),
        (
            requests.exceptions.SSLError(max_retry_error(u3.SSLError(untrusted_certificate()))),
            RefusedError,
            "self-signed",
        ),
        (requests.ReadTimeout(u3.ReadTimeoutError(POOL, URL, "x")), TransientError, "no byte"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_failure_is_told_in_plain_words(error: Exception, kind: type[ModelfetchError], said: str) -> None:
    """The host is named, the address never; and there is a next step."""
    told = explain_network_error(error, "store.invalid", 5.0)

    assert type(told) is kind
    assert "store.invalid" in told.message
    assert said in told.message
    assert told.hint
    assert SECRET not in f"{told.message} {told.hint}"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"Invalid header value b'{SECRET}\\n'"),
        requests.exceptions.InvalidHeader(f"Invalid character in header value: {SECRET}"),
        UnicodeEncodeError("latin-1", SECRET, 0, 1, "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_credential_that_cannot_be_sent_is_a_matter_of_configuration(error: Exception) -> None:
    """78, and where to look for the line break; http.client quotes the credential."""
    told = explain_network_error(error, "store.invalid", 5.0)

    assert type(told) is ConfigError
    assert "line break" in told.hint
    assert SECRET not in f"{told.message} {told.hint}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h:1/x", "h:1"),
        ("https://me:s3cr3t@h:1/x", "h:1"),
        ("https://me:s3@cr3t@[::1]:1", "[::1]:1"),
        ("nonsense", "the endpoint"),
        ("http://[::1", "the endpoint"),
        ("", "the endpoint"),
    ],
)
def test_an_address_is_shown_without_name_and_password(url: str, shown: str) -> None:
    """Even one that makes no sense."""
    assert host_of(url) == shown


class Proxy(BaseHTTPRequestHandler):
    """Answers whatever it is asked for, as a proxy for plain HTTP does."""

    asked: ClassVar[list[tuple[str, Message]]]

    def do_GET(self) -> None:
        """Answer."""
        self.asked.append((self.path, self.headers))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[tuple[int, list[tuple[str, Message]]]]:
    """A proxy's port, and what it was asked for."""

    class Handler(Proxy):
        asked: ClassVar = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1], Handler.asked
        server.shutdown()
        thread.join()


def get(url: str) -> bytes:
    """A page."""
    with closing(ConnectionPool(NetworkOptions())) as pool, closing(pool.request("GET", url, {})) as reply:
        return reply.read()


@pytest.mark.server
@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "//127.0.0.1:{}/"])
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    """Also one named without a scheme, as the SDKs take it."""
    with serving() as (port, asked):
        monkeypatch.setenv(name, form.format(port))
        assert get("http://store.invalid/k") == b"ok"

    assert [url for url, _ in asked] == ["http://store.invalid/k"]
    assert asked[0][1]["User-Agent"].startswith("modelfetch/")
    assert "Proxy-Authorization" not in asked[0][1]


@pytest.mark.server
def test_a_proxy_gets_the_credentials_of_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the SDKs send them."""
    with serving() as (port, asked):
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
        assert get("http://store.invalid/k") == b"ok"

    scheme, _, sent = asked[0][1]["Proxy-Authorization"].partition(" ")
    assert (scheme, base64.b64decode(sent)) == ("Basic", b"me:p@ss")


@pytest.mark.server
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("value", ["127.0.0.1", "other,127.0.0.1", "*"])
@pytest.mark.parametrize("user", ["", "me:p4ss@"])
def test_what_no_proxy_names_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, user: str
) -> None:
    """The proxy is not asked, nor need it be there."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with serving() as (port, asked):
        assert get(f"http://{user}127.0.0.1:{port}/k") == b"ok"

    assert [url for url, _ in asked] == ["/k"]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://[::1", "http://h:port"])
def test_a_proxy_that_cannot_be_used_is_a_matter_of_configuration(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """78."""
    monkeypatch.setenv("http_proxy", proxy)

    with pytest.raises(ConfigError):
        get("http://store.invalid/k")
    with pytest.raises(ConfigError):
        check_endpoint(NetworkOptions(), "http://store.invalid/k")


def test_certificates_that_cannot_be_loaded_are_a_matter_of_configuration(tmp_path: Path) -> None:
    """78, naming the file."""
    (tmp_path / "ca.pem").write_text("no certificate")
    for bundle in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with (
            closing(ConnectionPool(NetworkOptions(ca_bundle=str(bundle)))) as pool,
            pytest.raises(ConfigError, match=bundle.name),
        ):
            pool.request("GET", "https://127.0.0.1:9/", {})
    with pytest.raises(ConfigError, match=r"none\.pem"):
        check_endpoint(NetworkOptions(ca_bundle=str(tmp_path / "none.pem")), "https://h/")


def test_what_the_sdks_may_be_asked_with_passes(tmp_path: Path) -> None:
    """A bundle may be a directory."""
    check_endpoint(NetworkOptions(ca_bundle=str(tmp_path)), "https://h/")
    check_endpoint(NetworkOptions(), "https://h/")


@contextmanager
def answering(*records: bytes, ca: Path) -> Iterator[str]:
    """The address of a server that answers over TLS with these records, and goes away without a word."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def answer() -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(65536)
            for record in records:
                connection.sendall(record)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()


def body(url: str, ca: Path, size: int) -> bytes:
    """What is read from there, `size` bytes at a time."""
    whole = b""
    with (
        closing(ConnectionPool(NetworkOptions(ca_bundle=str(ca)))) as pool,
        closing(pool.request("GET", url, {})) as reply,
    ):
        while piece := reply.read(size):
            whole += piece
    return whole


PIECES = [bytes([number]) * length for number, length in enumerate([1, 16384, 7, 40_000, 16383, 200_000, 16385, 3])]


@pytest.mark.server
@pytest.mark.parametrize("size", [1000, 16 * 1024, 256 * 1024])
@pytest.mark.parametrize("stated", [True, False])
def test_records_of_any_length_are_put_together(tmp_path: Path, size: int, *, stated: bool) -> None:
    """Where no length is stated the body ends with the connection, even if TLS is not closed as it should be."""
    whole = b"".join(PIECES)
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: %d\r\n" % len(whole) if stated else b"") + b"\r\n"
    with answering(head, *PIECES, ca=tmp_path / "ca.pem") as url:
        assert body(url, tmp_path / "ca.pem", size) == whole


@pytest.mark.server
@pytest.mark.parametrize("size", [1000, 16 * 1024, 256 * 1024])
def test_records_are_put_together_the_short_way_too(tmp_path: Path, size: int) -> None:
    """By what reads objects, without urllib3 and http.client."""
    whole, ca = b"".join(PIECES), tmp_path / "ca.pem"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole)
    came, buffer = b"", memoryview(bytearray(size))
    with answering(head, *PIECES, ca=ca) as url, closing(ConnectionPool(NetworkOptions(ca_bundle=str(ca)))) as pool:
        reply = pool.get(url, {})
        while count := reply.readinto(buffer):
            came += buffer[:count]
    assert came == whole


@pytest.mark.server
def test_a_body_over_tls_that_ends_early_is_no_whole_one(tmp_path: Path) -> None:
    """Its length was stated."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n"
    with answering(head, *PIECES, ca=tmp_path / "ca.pem") as url, pytest.raises(u3.HTTPError):
        body(url, tmp_path / "ca.pem", 256 * 1024)
    ca, buffer = tmp_path / "ca.pem", memoryview(bytearray(256 * 1024))
    with answering(head, *PIECES, ca=ca) as url, closing(ConnectionPool(NetworkOptions(ca_bundle=str(ca)))) as pool:
        reply = pool.get(url, {})
        with pytest.raises((IncompleteRead, ssl.SSLError)):
            sum(iter(lambda: reply.readinto(buffer), 0))

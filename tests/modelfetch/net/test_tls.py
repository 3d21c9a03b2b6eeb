"""TLS: certificates that cannot be loaded, and bodies read many records at a time."""

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import IncompleteRead
from pathlib import Path

import certifi
import pytest
import trustme
from urllib3 import exceptions as u3

from modelfetch.errors import ConfigError
from modelfetch.net import tls
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions, check_endpoint

PIECES = [bytes([number]) * length for number, length in enumerate([1, 16384, 7, 40_000, 16383, 200_000, 16385, 3])]
BODY = b"".join(PIECES)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture(params=["bulk reads", "record by record"])
def ssl_object(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Python with the private attribute that bulk reads use, and a Python without."""
    if request.param == "record by record":
        monkeypatch.setattr(tls, "_SSL_OBJECT", "_renamed_in_a_later_python")
    return str(request.param)


@contextmanager
def serve_records(*records: bytes, ca: Path, close_notify: bool = False) -> Iterator[str]:
    """Serve these records over TLS, with or without TLS's own end; yield the URL and write the CA to `ca`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def answer_once() -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(65536)
            with suppress(OSError):  # a client that closes early
                for record in records:
                    connection.sendall(record)
                if close_notify:
                    connection.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()


def read_by_urllib3(url: str, ca: Path, size: int) -> bytes:
    """Return the body of a URL, read by urllib3 in pieces of `size` bytes."""
    body = b""
    with (
        closing(ConnectionPool(NetworkOptions(ca_bundle=str(ca)))) as pool,
        closing(pool.request("GET", url, {})) as response,
    ):
        while piece := response.read(size):
            body += piece
    return body


def test_unreadable_certificates_are_a_config_error_that_names_the_file(tmp_path: Path) -> None:
    """A file without certificates and a missing file both exit with code 78."""
    (tmp_path / "ca.pem").write_text("no certificate")
    for bundle in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with (
            closing(ConnectionPool(NetworkOptions(ca_bundle=str(bundle)))) as pool,
            pytest.raises(ConfigError, match=bundle.name),
        ):
            pool.request("GET", "https://127.0.0.1:9/", {})
    with pytest.raises(ConfigError, match=r"none\.pem"):
        check_endpoint(NetworkOptions(ca_bundle=str(tmp_path / "none.pem")), "https://h/")


def test_certifi_is_used_when_the_system_has_no_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Images without a store of certificates trust certifi's, and none without certifi."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls.make_tls_context(ca_bundle=None, verify=True, client_cert=None).get_ca_certs()

    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "none.pem"))
    assert not tls.make_tls_context(ca_bundle=None, verify=True, client_cert=None).get_ca_certs()
    monkeypatch.setitem(sys.modules, "certifi", None)
    assert not tls.make_tls_context(ca_bundle=None, verify=True, client_cert=None).get_ca_certs()


@pytest.mark.server
@pytest.mark.parametrize("size", [1000, 16 * 1024, 256 * 1024])
@pytest.mark.parametrize("has_length", [True, False])
def test_urllib3_reads_records_of_any_length(tmp_path: Path, ssl_object: str, size: int, *, has_length: bool) -> None:
    """A body without a stated length ends with the connection, if TLS is closed properly."""
    head = HEAD if has_length else b"HTTP/1.1 200 OK\r\n\r\n"
    with serve_records(head, *PIECES, ca=tmp_path / "ca.pem", close_notify=not has_length) as url:
        assert read_by_urllib3(url, tmp_path / "ca.pem", size) == BODY


@pytest.mark.server
@pytest.mark.parametrize("size", [1000, 16 * 1024, 256 * 1024])
def test_keep_alive_connection_reads_records_of_any_length(tmp_path: Path, ssl_object: str, size: int) -> None:
    """Objects are read without urllib3 and http.client, with bulk reads and without."""
    ca, received, buffer = tmp_path / "ca.pem", b"", memoryview(bytearray(size))
    with (
        serve_records(HEAD, *PIECES, ca=ca) as url,
        closing(ConnectionPool(NetworkOptions(ca_bundle=str(ca)))) as pool,
    ):
        response = pool.get(url, {})
        while count := response.readinto(buffer):
            received += buffer[:count]
    assert received == BODY


@pytest.mark.server
def test_bulk_read_fills_a_buffer_of_many_records_in_one_call(tmp_path: Path, ssl_object: str) -> None:
    """Python has the private attribute; without the attribute a call returns at most a record."""
    ca, buffer = tmp_path / "ca.pem", memoryview(bytearray(len(BODY)))
    with (
        serve_records(HEAD, *PIECES, ca=ca) as url,
        closing(ConnectionPool(NetworkOptions(ca_bundle=str(ca)))) as pool,
        closing(pool.get(url, {})) as response,
    ):
        count = response.readinto(buffer)

    assert (count == len(BODY)) == (ssl_object == "bulk reads")
    assert bytes(buffer[:count]) == BODY[:count]


@pytest.mark.server
def test_open_body_without_close_notify_is_an_error(tmp_path: Path, ssl_object: str) -> None:
    """Anyone on the way could have cut the body short."""
    with serve_records(b"HTTP/1.1 200 OK\r\n\r\n", *PIECES, ca=tmp_path / "ca.pem") as url, pytest.raises(u3.HTTPError):
        read_by_urllib3(url, tmp_path / "ca.pem", 16 * 1024)


@pytest.mark.server
def test_body_over_tls_that_ends_early_is_an_error(tmp_path: Path, ssl_object: str) -> None:
    """Fewer bytes than the stated length are never taken for the whole body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n"
    with serve_records(head, *PIECES, ca=tmp_path / "ca.pem") as url, pytest.raises(u3.HTTPError):
        read_by_urllib3(url, tmp_path / "ca.pem", 256 * 1024)
    ca, buffer = tmp_path / "ca.pem", memoryview(bytearray(256 * 1024))
    with (
        serve_records(head, *PIECES, ca=ca) as url,
        closing(ConnectionPool(NetworkOptions(ca_bundle=str(ca)))) as pool,
        closing(pool.get(url, {})) as response,
        pytest.raises((IncompleteRead, ssl.SSLError)),
    ):
        sum(iter(lambda: response.readinto(buffer), 0))

"""Proxies of the environment: used for every host that NO_PROXY does not name."""

import base64
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from modelfetch.errors import ConfigError
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions, check_endpoint
from modelfetch.net.proxies import Proxy, find_proxy


class ProxyHandler(BaseHTTPRequestHandler):
    """Handler that answers every GET, as a proxy for plain HTTP does, and notes the requests."""

    received: ClassVar[list[tuple[str, Message]]]

    def do_GET(self) -> None:
        """Answer with a short body."""
        self.received.append((self.path, self.headers))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Write nothing to standard error."""


@contextmanager
def run_proxy() -> Iterator[tuple[int, list[tuple[str, Message]]]]:
    """Run a proxy; yield its port and the list of received requests."""

    class Handler(ProxyHandler):
        received: ClassVar = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1], Handler.received
        server.shutdown()
        thread.join()


def read_page(url: str) -> bytes:
    """Return the body of a page, read through a new pool."""
    with closing(ConnectionPool(NetworkOptions())) as pool, closing(pool.request("GET", url, {})) as response:
        return response.read()


@pytest.mark.server
@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "//127.0.0.1:{}/"])
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    """A proxy without a scheme is used too, as in the SDKs."""
    with run_proxy() as (port, received):
        monkeypatch.setenv(name, form.format(port))
        assert read_page("http://store.invalid/k") == b"ok"

    assert [url for url, _ in received] == ["http://store.invalid/k"]
    assert received[0][1]["User-Agent"].startswith("modelfetch/")
    assert "Proxy-Authorization" not in received[0][1]


@pytest.mark.server
def test_proxy_gets_the_credentials_of_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """User name and password are decoded and sent as Basic credentials, as in the SDKs."""
    with run_proxy() as (port, received):
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
        assert read_page("http://store.invalid/k") == b"ok"

    scheme, _, credentials = received[0][1]["Proxy-Authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials)) == ("Basic", b"me:p@ss")


def test_find_proxy_returns_url_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy without credentials has no headers; without a proxy the connection is direct."""
    monkeypatch.setenv("https_proxy", "127.0.0.1:3128")

    assert find_proxy("https://store.invalid/k") == Proxy("http://127.0.0.1:3128", {})
    assert find_proxy("http://store.invalid/k") is None


@pytest.mark.server
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("value", ["127.0.0.1", "other,127.0.0.1", "*"])
@pytest.mark.parametrize("user", ["", "me:p4ss@"])
def test_host_in_no_proxy_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, user: str
) -> None:
    """The proxy is not used, and need not be running."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with run_proxy() as (port, received):
        assert read_page(f"http://{user}127.0.0.1:{port}/k") == b"ok"

    assert [url for url, _ in received] == ["/k"]


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "http://[::1", "http://h:port", "http://\u20ac:p@127.0.0.1:1"]
)
def test_invalid_proxy_is_a_config_error(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Requests and the check of an endpoint both exit with code 78."""
    monkeypatch.setenv("http_proxy", proxy)

    with pytest.raises(ConfigError):
        read_page("http://store.invalid/k")
    with pytest.raises(ConfigError):
        check_endpoint(NetworkOptions(), "http://store.invalid/k")

"""Connection pool: keep-alive GETs where possible, else urllib3; proxies and certificates as in the SDKs' requests."""

import os
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from modelfetch import __version__
from modelfetch.errors import ConfigError, RefusedError
from modelfetch.net.http1 import (
    REDIRECT_STATUSES,
    KeepAliveConnections,
    PendingResponse,
    RedirectedResponse,
    UnsupportedResponse,
    host_header,
    split_origin,
)
from modelfetch.net.network_errors import CERTIFICATES_HINT, NETWORK_ERRORS, explain_network_error, host_of
from modelfetch.net.proxies import Proxy, find_proxy
from modelfetch.net.redirects import MAX_REDIRECTS, follow_redirect
from modelfetch.net.tls import make_tls_context

CONNECT_TIMEOUT = 10.0  # seconds
DEFAULT_CONNECTIONS = 32  # kept open to one host, unless the options say another number
_NO_RETRIES = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=0)
_BASE_HEADERS = {"User-Agent": f"modelfetch/{__version__}"}
_GET_HEADERS = {**_BASE_HEADERS, "Accept-Encoding": "identity"}

_Sent = TypeVar("_Sent")


class NetworkOptions(NamedTuple):
    """Options of all connections to servers.

    Attributes:
        stall_timeout: seconds without a byte after which a connection counts as dead.
        ca_bundle: file of trusted certificates; None for the system's.
        verify: whether certificates are checked at all.
        client_cert: file of the certificate (with key) to show to servers.
        connections: number of connections kept open to one host.
    """

    stall_timeout: float = 30.0
    ca_bundle: str | None = None
    verify: bool = True
    client_cert: str | None = None
    connections: int = DEFAULT_CONNECTIONS

    @property
    def timeout(self) -> urllib3.Timeout:
        """Timeouts of one request: seconds to connect, seconds without a byte."""
        return urllib3.Timeout(connect=min(CONNECT_TIMEOUT, self.stall_timeout), read=self.stall_timeout)


class LeftoverCheckingConnection(HTTPSConnection):
    """HTTPS connection that counts as dead while decrypted bytes are left: they would pass for the next response.

    urllib3 asks the kernel for bytes, and does not see those that TLS has read already.
    """

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open, and no byte has arrived that nobody asked for."""
        return super().is_connected and not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending())


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = LeftoverCheckingConnection  # type: ignore[mutable-override]  # urllib3's own way


_POOL_CLASSES = {"http": HTTPConnectionPool, "https": _HTTPSPool}


class Response(Protocol):
    """Head of a response whose body is still to be read.

    Attributes:
        status: status code.
        headers: field values by field name in lower case.
        url: URL of the answered request, after redirects.
        request_headers: headers of the answered request: without secrets if a redirect led to a different host.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    request_headers: Mapping[str, str]

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes of the body into `buffer`; return their number, 0 at the end."""
        ...

    def close(self) -> None:
        """Leave the rest of the body unread."""
        ...

    def shutdown(self) -> None:
        """Wake a thread that waits for bytes."""
        ...


class _Urllib3Response:
    """Response whose body urllib3 reads."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str, request_headers: Mapping[str, str]) -> None:
        self.url = url
        self.request_headers = request_headers
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response

    def readinto(self, buffer: memoryview) -> int:
        data = self._response.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._response.close()  # a body read to its end has given its connection back already

    def shutdown(self) -> None:
        self._response.shutdown()


class ConnectionPool:
    """Keep-alive connections to any number of hosts, direct or through the environment's proxies."""

    def __init__(self, options: NetworkOptions) -> None:
        """Keep the options; the first request opens the first connection."""
        self._options = options
        self._context: ssl.SSLContext | None = None
        self._managers: dict[str | None, urllib3.PoolManager] = {}  # by the proxy's URL
        self._proxies: dict[str, Proxy | None] = {}  # by origin
        self._kept: dict[str, KeepAliveConnections | None] = {}  # by origin; None for those that need urllib3
        self._lock = threading.Lock()
        self._timeout = options.timeout

    def request(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Send a request through urllib3 and follow at most five redirects; the body is left unread and undecoded.

        Raises:
            ModelfetchError: the server was not reached, did not begin to answer in time, or redirects without end.
        """

        def send_once(url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
            return self._request_urllib3(method, url, headers)

        return _follow_redirects(send_once, url, headers)

    def _request_urllib3(self, method: str, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Send one request through urllib3; a redirect raises RedirectedResponse."""
        arguments: dict[str, Any] = {
            "headers": {**_BASE_HEADERS, **headers},
            "preload_content": False,
            "decode_content": False,
            "retries": _NO_RETRIES,
            "timeout": self._timeout,
            "redirect": False,
        }
        try:
            response = self._manager_for(url).request(method, url, **arguments)
        except NETWORK_ERRORS as error:
            raise explain_network_error(error, host_of(url), self._options.stall_timeout) from error
        if response.status in REDIRECT_STATUSES and (location := response.headers.get("location")):
            response.drain_conn()
            raise RedirectedResponse(location)
        return response

    def get(self, url: str, headers: Mapping[str, str]) -> Response:
        """Send a GET over a keep-alive connection, or through urllib3; follow at most five redirects.

        The response holds the final URL, for direct later requests.

        Raises:
            ModelfetchError: the server was not reached, did not begin to answer in time, or redirects without end.
        """
        return _follow_redirects(self._get_once, url, headers)

    def _get_once(self, url: str, headers: Mapping[str, str]) -> Response:
        """Send one GET; a redirect raises RedirectedResponse."""
        origin, target = split_origin(url)
        try:
            kept = self._kept[origin] if origin in self._kept else self._connections_to(origin, url)
            if kept is not None:
                response = kept.get(target, {**_GET_HEADERS, **headers})
                response.url, response.request_headers = url, headers
                return response
        except RedirectedResponse:
            raise
        except UnsupportedResponse:
            self._kept[origin] = None  # the same server's next response would need urllib3 too
        except NETWORK_ERRORS as error:
            raise explain_network_error(error, host_of(url), self._options.stall_timeout) from error
        return _Urllib3Response(self._request_urllib3("GET", url, headers), url, headers)

    @property
    def has_idle(self) -> bool:
        """Whether a connection is idle, for a request to be sent ahead."""
        return any(kept is not None and kept.has_idle for kept in list(self._kept.values()))

    def send_ahead(self, url: str, headers: Mapping[str, str]) -> PendingResponse | None:
        """Send a GET on an idle connection; None without one, or if the request needs urllib3: `get` will handle it."""
        origin, target = split_origin(url)
        kept = self._kept.get(origin)
        try:
            return kept.send_ahead(target, {**_GET_HEADERS, **headers}) if kept is not None else None
        except UnsupportedResponse:
            return None

    def close(self) -> None:
        """Close idle connections; a connection in use is closed with its response."""
        while self._kept:
            _, kept = self._kept.popitem()
            if kept is not None:
                kept.close()
        for manager in self._managers.values():
            manager.clear()

    def _connections_to(self, origin: str, url: str) -> KeepAliveConnections | None:
        """Return the keep-alive connections to a server; None behind a proxy, or with a password in the URL."""
        with self._lock:
            if origin not in self._kept:
                self._kept[origin] = None
                if self._proxy_for(url) is None and "@" not in origin:
                    self._kept[origin] = KeepAliveConnections(partial(self._connect_to, origin), host_header(origin))
            return self._kept[origin]

    def _connect_to(self, origin: str) -> HTTPConnection:
        address, timeout = urllib3.util.parse_url(origin), self._timeout.connect_timeout
        host = (address.host or "").strip("[]")
        if address.scheme == "https":
            connection: HTTPConnection = LeftoverCheckingConnection(
                host, address.port, timeout=timeout, ssl_context=self._tls_context()
            )
        else:
            connection = HTTPConnection(host, address.port, timeout=timeout)
        try:
            connection.connect()
            connection.sock.settimeout(self._options.stall_timeout)
        except BaseException:
            connection.close()
            raise
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        ca_bundle, verify, client_cert = self._options.ca_bundle, self._options.verify, self._options.client_cert
        with self._lock:  # to load the system's certificates takes long: once for all threads
            if self._context is None:
                self._context = make_tls_context(ca_bundle=ca_bundle, verify=verify, client_cert=client_cert)
            return self._context

    def _proxy_for(self, url: str) -> Proxy | None:
        origin, _ = split_origin(url)  # the environment is read once for each origin, not for each request
        if origin not in self._proxies:
            self._proxies[origin] = find_proxy(url)
        return self._proxies[origin]

    def _manager_for(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxy_for(url)
        key = proxy.url if proxy else None
        if key not in self._managers:
            context = self._tls_context() if url.startswith("https:") or proxy else self._context
            size = self._options.connections
            manager = (
                urllib3.ProxyManager(
                    proxy.url,
                    maxsize=size,
                    ssl_context=context,
                    proxy_ssl_context=context,
                    proxy_headers=proxy.headers,
                )
                if proxy
                else urllib3.PoolManager(maxsize=size, ssl_context=context)
            )
            manager.pool_classes_by_scheme = _POOL_CLASSES
            self._managers[key] = manager
        return self._managers[key]


def check_endpoint(options: NetworkOptions, url: str) -> None:
    """Refuse an endpoint at once that an SDK would fail with late and unclearly.

    Raises:
        ConfigError: the environment's proxy for `url`, or the certificates, cannot be used; or `url` is no URL.
    """
    try:
        find_proxy(url)
    except ValueError as error:
        raise explain_network_error(error, host_of(url), options.stall_timeout) from error
    if options.ca_bundle and not os.path.exists(options.ca_bundle):  # noqa: PTH110  Path.exists raises for a text too long
        raise ConfigError(f"There are no certificates at {options.ca_bundle}.", hint=CERTIFICATES_HINT)


def _follow_redirects(
    send_once: Callable[[str, Mapping[str, str]], _Sent], url: str, headers: Mapping[str, str]
) -> _Sent:
    """Send a request by `send_once`, and again wherever a RedirectedResponse leads, at most five times."""
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return send_once(url, headers)
        except RedirectedResponse as redirect:
            url, headers = follow_redirect(url, headers, redirect.location)
    raise RefusedError(f"{host_of(url)} redirects in a loop, or too often.", hint="Check the endpoint and the address.")

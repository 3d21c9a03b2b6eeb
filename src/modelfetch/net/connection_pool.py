"""The HTTP connections: one urllib3 pool with the proxies and the certificates that the SDKs' calls use too."""

import contextlib
import re
import ssl
import threading
from collections.abc import Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from modelfetch import __version__
from modelfetch.errors import ConfigError, CredentialsError, ModelfetchError, RefusedError, TransientError
from modelfetch.net.http1 import KeepAliveConnections, PendingResponse, UnsupportedResponse

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_TIMEOUT = 10.0  # seconds
DEFAULT_CONNECTIONS = 32  # kept open to one host, unless another number is wanted
NETWORK_ERRORS = (
    urllib3.exceptions.HTTPError,
    HTTPException,
    OSError,
    ValueError,
)  # what a request or its body may raise
_RECORD = 16 * 1024  # bytes: the most that one record of TLS holds (RFC 8446, 5.1)
_REDIRECTS = urllib3.Retry(
    total=None,
    connect=0,
    read=0,
    status=0,
    other=0,
    redirect=5,
    # Of what another host must not learn, urllib3 knows all but the token of temporary credentials.
    remove_headers_on_redirect=[*urllib3.Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT, "x-amz-security-token"],
)
_OURS = {"User-Agent": f"modelfetch/{__version__}"}
_PLAIN = {**_OURS, "Accept-Encoding": "identity"}
_USER_INFO = re.compile(r"//[^\s/'\"`]*@")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_HINT_CERTIFICATES = "Check AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE and SSL_CERT_FILE."
_HINT_PROXY = "Check HTTPS_PROXY and HTTP_PROXY: http://host:port or http://user:password@host:port."
# What requests, which Google's SDK uses, raises is known by its name only: it is not imported for its types.
_NO_ADDRESS = {
    "LocationParseError", "LocationValueError", "URLSchemeUnknown", "InvalidURL", "InvalidSchema", "MissingSchema",
    "URLRequired",
}  # fmt: skip
_NO_PROXY_ADDRESS = {"InvalidProxyURL", "ProxySchemeUnknown", "ProxySchemeUnsupported"}


class NetworkOptions(NamedTuple):
    """How to reach servers.

    Attributes:
        stall_timeout: seconds without a byte after which a connection counts as dead.
        ca_bundle: file of trusted certificates; None for the system's.
        verify: whether certificates are checked at all.
        client_cert: certificate (with key) to show to servers.
        connections: how many are kept open to one host.
    """

    stall_timeout: float = 30.0
    ca_bundle: str | None = None
    verify: bool = True
    client_cert: str | None = None
    connections: int = DEFAULT_CONNECTIONS

    @property
    def timeout(self) -> urllib3.Timeout:
        """The timeouts of one request."""
        return urllib3.Timeout(connect=min(CONNECT_TIMEOUT, self.stall_timeout), read=self.stall_timeout)


class Response(Protocol):
    """The head of a reply, and a body that is yet to be read."""

    status: int
    headers: Mapping[str, str]  # by their names in lower case

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes, at most as many as there is room for; 0 at the end."""
        ...

    def close(self) -> None:
        """Leave the rest of it unread."""
        ...

    def shutdown(self) -> None:
        """Wake a thread that waits for bytes."""
        ...


class _Urllib3Response:
    """A reply that urllib3 reads."""

    def __init__(self, reply: urllib3.BaseHTTPResponse) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in reply.headers.items()}
        self._reply = reply

    def readinto(self, buffer: memoryview) -> int:
        data = self._reply.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._reply.close()  # a body read to its end has given its connection back already

    def shutdown(self) -> None:
        self._reply.shutdown()


class _BulkReadSocket(ssl.SSLSocket):
    """Fills a large buffer in one call: a record has 16 KiB at most, and each costs three Python frames otherwise."""

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0) -> int:
        view = memoryview(buffer).cast("B")[: nbytes or None]
        records = getattr(self, "_sslobj", None)  # SSLSocket.read is the same, and one frame more
        if len(view) <= _RECORD or records is None or flags:
            return super().recv_into(buffer, nbytes, flags)  # all that waits: a reply's head, or the end of its body
        got = 0
        with contextlib.suppress(ssl.SSLEOFError):  # as SSLSocket has it: whoever reads knows how much is to come
            while got < len(view) and (count := records.read(len(view) - got, view[got:])):
                got += count
        return got


def _tls(connect: NetworkOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=connect.ca_bundle)
        context.sslsocket_class = _BulkReadSocket
        if connect.client_cert:
            context.load_cert_chain(connect.client_cert)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The certificates in {connect.ca_bundle or connect.client_cert} cannot be loaded: {error}.",
            hint=_HINT_CERTIFICATES,
        ) from error
    if not connect.ca_bundle and not context.get_ca_certs() and _bundled():
        context.load_verify_locations(_bundled())
    if not connect.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _bundled() -> str | None:
    """The certificates that certifi brings, for images without a system's store."""
    try:
        import certifi  # noqa: PLC0415  only where the system has none
    except ImportError:
        return None
    return certifi.where() if Path(certifi.where()).exists() else None


class ConnectionPool:
    """Keep-alive connections to any number of hosts, direct or through the environment's proxies."""

    def __init__(self, connect: NetworkOptions) -> None:
        """Take how to reach servers; connects only when asked for a page."""
        self._connect = connect
        self._context: ssl.SSLContext | None = None
        self._managers: dict[str | None, urllib3.PoolManager] = {}  # by proxy
        self._proxies: dict[str, str | None] = {}  # by scheme and host
        self._kept: dict[
            str, KeepAliveConnections | None
        ] = {}  # by scheme and host; None of those that are not asked in this way
        self._lock = threading.Lock()
        self._timeout = connect.timeout

    def request(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Send a request; the body is left to be read, undecoded. Follows at most five redirects.

        Raises:
            ModelfetchError: the server was not reached, or did not begin to answer in time.
        """
        options: dict[str, Any] = {
            "headers": {**_OURS, **headers},
            "preload_content": False,
            "decode_content": False,
            "retries": _REDIRECTS,
            "timeout": self._timeout,
        }
        try:
            return self._manager_for(url).request(method, url, **options)
        except NETWORK_ERRORS as error:
            if isinstance(error, urllib3.exceptions.LocationValueError) and _is_address(url):
                refused = f"{host_of(url)} redirects to what is no web address."
                raise RefusedError(refused, hint="Check the endpoint and the address.") from error
            raise explain_network_error(error, host_of(url), self._connect.stall_timeout) from error

    def get(self, url: str, headers: dict[str, str]) -> Response:
        """Ask for an object's bytes, by the shortest way there is; else as `open`.

        Raises:
            ModelfetchError: the server was not reached, or did not begin to answer in time.
        """
        origin, target = split_origin(url)
        try:
            kept = self._kept[origin] if origin in self._kept else self._keep_alive_to(origin, url)
            if kept is not None:
                return kept.get(target, {**_PLAIN, **headers})
        except UnsupportedResponse:
            self._kept[origin] = None  # nor will the next one be
        except NETWORK_ERRORS as error:
            raise explain_network_error(error, host_of(url), self._connect.stall_timeout) from error
        return _Urllib3Response(self.request("GET", url, headers))

    @property
    def has_idle(self) -> bool:
        """Whether a connection waits for something to ask."""
        return any(kept is not None and kept.has_idle for kept in list(self._kept.values()))

    def send_ahead(self, url: str, headers: dict[str, str]) -> PendingResponse | None:
        """Send a request ahead, if a connection is idle; None if not, or if it cannot be: `get` will tell why."""
        origin, target = split_origin(url)
        kept = self._kept.get(origin)
        try:
            return kept.send_ahead(target, {**_PLAIN, **headers}) if kept is not None else None
        except UnsupportedResponse:
            return None

    def close(self) -> None:
        """Close what is idle; connections in use are closed by their users."""
        while self._kept:
            _, kept = self._kept.popitem()
            if kept is not None:
                kept.close()
        for manager in self._managers.values():
            manager.clear()

    def _keep_alive_to(self, origin: str, url: str) -> KeepAliveConnections | None:
        """The connections to a server; None if it is reached by a proxy, or its address is none that one can read."""
        with self._lock:
            if origin not in self._kept:
                self._kept[origin] = None
                if type(self._manager_for(url)) is urllib3.PoolManager and "@" not in origin:
                    self._kept[origin] = KeepAliveConnections(partial(self._connect_to, origin), host_header(origin))
            return self._kept[origin]

    def _connect_to(self, origin: str) -> HTTPConnection:
        address, timeout = urllib3.util.parse_url(origin), self._timeout.connect_timeout
        host = (address.host or "").strip("[]")
        if address.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(
                host, address.port, timeout=timeout, ssl_context=self._tls_context()
            )
        else:
            connection = HTTPConnection(host, address.port, timeout=timeout)
        try:
            connection.connect()
            connection.sock.settimeout(self._connect.stall_timeout)
        except BaseException:
            connection.close()
            raise
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = _tls(self._connect)
        return self._context

    def _manager_for(self, url: str) -> urllib3.PoolManager:
        origin, _ = split_origin(url)  # the environment is read once for each, not for each request
        if origin not in self._proxies:
            self._proxies[origin] = _proxy(url)
        proxy = self._proxies[origin]
        if proxy not in self._managers:
            context = self._tls_context() if url.startswith("https:") or proxy else self._context
            size = self._connect.connections
            self._managers[proxy] = (
                urllib3.ProxyManager(
                    proxy,
                    maxsize=size,
                    ssl_context=context,
                    proxy_ssl_context=context,
                    proxy_headers=_proxy_headers(proxy),
                )
                if proxy
                else urllib3.PoolManager(maxsize=size, ssl_context=context)
            )
        return self._managers[proxy]


def split_origin(url: str) -> tuple[str, str]:
    """Scheme and host of an address, and what to ask that host for."""
    scheme, netloc, *_ = urlsplit(url)
    origin = f"{scheme}://{netloc}"
    target = url[len(origin) :].partition("#")[0]  # what a fragment names is not the server's concern
    return origin, target if target.startswith("/") else f"/{target}"


def host_header(url: str) -> str:
    """What a server is called in a request: in lower case, and without the scheme's own port (RFC 9110, 7.2)."""
    address = urllib3.util.parse_url(url)
    own = {"http": 80, "https": 443}.get(address.scheme or "")
    return f"{address.host}{'' if address.port in (None, own) else f':{address.port}'}"


def _proxy(url: str) -> str | None:
    """The environment's proxy for an address; one named without a scheme speaks http, as the SDKs have it."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc.rpartition("@")[2]) else getproxies().get(parts.scheme)
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy.lstrip('/')}"
    try:
        scheme = urllib3.util.parse_url(proxy).scheme
    except urllib3.exceptions.LocationParseError:
        scheme = ""
    if scheme not in ("http", "https"):
        raise ConfigError(
            f"The proxy on the way to {host_of(url)} has an address that makes no sense.", hint=_HINT_PROXY
        )
    return proxy


def check_endpoint(connect: NetworkOptions, url: str) -> None:
    """Refuse at once what an SDK would fail with late and unclearly.

    Raises:
        ConfigError: the environment's proxy for `url`, or the certificates, cannot be used; or it is no URL.
    """
    try:
        _proxy(url)
    except ValueError as error:
        raise _no_address(host_of(url)) from error
    if connect.ca_bundle and not Path(connect.ca_bundle).exists():
        raise ConfigError(f"There are no certificates at {connect.ca_bundle}.", hint=_HINT_CERTIFICATES)


def _is_address(url: str) -> bool:
    try:
        return bool(urllib3.util.parse_url(url).host)
    except urllib3.exceptions.LocationParseError:
        return False


def host_of(url: str, *, or_else: str = "the endpoint") -> str:
    """The host and port of an address, for messages: without the name and the password that it may hold."""
    try:
        netloc = urlsplit(url).netloc
    except ValueError:
        netloc = ""
    return netloc.rpartition("@")[2] or or_else


def _proxy_headers(proxy: str) -> dict[str, str]:
    """The credentials that the proxy's address holds: urllib3 does not send them by itself."""
    user = urllib3.util.parse_url(proxy).auth
    return dict(urllib3.util.make_headers(proxy_basic_auth=unquote(user))) if user else {}


def explain_network_error(error: BaseException, host: str, stall_timeout: float) -> ModelfetchError:
    """Say why a server was not reached or broke off; without the addresses asked for, which hold signatures."""
    chain = list(_causes(error))
    untrusted = next((one for one in chain if isinstance(one, ssl.SSLCertVerificationError)), None)
    if untrusted is not None:
        return RefusedError(
            f"The certificate of {host} is not trusted: {untrusted.verify_message}.",
            hint="Give the authority's certificate with AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or SSL_CERT_FILE.",
        )
    refused = _misconfigured(chain, host) or _proxy_refusal(chain, host)
    if refused is not None:
        return refused
    if _first(chain, urllib3.exceptions.ResponseError) or "TooManyRedirects" in {type(one).__name__ for one in chain}:
        return RefusedError(f"{host} redirects in a loop.", hint="Check the endpoint and the address.")
    return TransientError(_trouble(chain, host, stall_timeout), hint=_where_to_look(chain))


def _misconfigured(chain: list[BaseException], host: str) -> ModelfetchError | None:
    """The error for a request that could never be made."""
    names = {type(one).__name__ for one in chain}
    # Of all that a connection needs, only certificates are files; a firewall's EPERM comes with a NewConnectionError.
    missing = _first(chain, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    certificates = any(getattr(one, "reason", "") == "NO_CERTIFICATE_OR_CRL_FOUND" for one in chain)
    if certificates or (missing and "NewConnectionError" not in names):
        return ConfigError("The certificates to trust or to show cannot be loaded.", hint=_HINT_CERTIFICATES)
    if _unsendable(chain):
        return ConfigError(
            "A credential holds a line break, or another character that cannot be sent.",
            hint="Look for a line break in AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN or MODELFETCH_BEARER_TOKEN.",
        )
    if names & _NO_PROXY_ADDRESS:
        return ConfigError(f"The proxy on the way to {host} has an address that makes no sense.", hint=_HINT_PROXY)
    if names & _NO_ADDRESS or (
        _first(chain, ValueError) and not _first(chain, OSError, urllib3.exceptions.ProtocolError)
    ):
        return _no_address(host)
    return None


def _unsendable(chain: list[BaseException]) -> bool:
    """Whether a header has a value that HTTP cannot carry; http.client says so by the text alone."""
    latin = (one for one in chain if isinstance(one, UnicodeEncodeError))
    return (
        any(one.encoding == "latin-1" for one in latin)
        or any(type(one).__name__ == "InvalidHeader" and isinstance(one, ValueError) for one in chain)
        or any(isinstance(one, ValueError) and str(one).startswith("Invalid header value") for one in chain)
    )


def _no_address(host: str) -> ConfigError:
    return ConfigError(
        f"{host!r} is not an address that can be connected to.", hint="Check the endpoint's URL, and HTTPS_PROXY."
    )


def _proxy_refusal(chain: list[BaseException], host: str) -> ModelfetchError | None:
    """The error for a proxy that opens no tunnel: http.client has its status in the text alone."""
    found = next((m for one in chain if isinstance(one, OSError) and (m := _TUNNEL.search(str(one)))), None)
    if found is None or found[1].startswith("5"):
        return None
    if found[1] == "407":
        return CredentialsError(f"The proxy on the way to {host} wants a name and a password.", hint=_HINT_PROXY)
    return RefusedError(
        f"The proxy on the way to {host} does not let it through (HTTP {found[1]}).",
        hint="Have the host allowed there, or name it in NO_PROXY.",
    )


def _trouble(chain: list[BaseException], host: str, stall_timeout: float) -> str:
    names = " ".join(type(one).__name__ for one in chain)
    if "Proxy" in names:
        return f"The proxy on the way to {host} cannot be reached, or failed."
    if "gaierror" in names or "NameResolution" in names:
        return f"The name of {host} cannot be resolved."
    if _first(chain, ConnectionRefusedError):
        return f"{host} refuses the connection: nothing listens there."
    if "ConnectTimeout" in names or "ConnectionTimeout" in names:
        return f"{host} did not answer the connection in time."
    if "Timeout" in names:
        return f"{host} sent no byte for {stall_timeout:g} s."
    if any(getattr(one, "reason", "") == "WRONG_VERSION_NUMBER" for one in chain):
        return f"{host} does not speak TLS (is it http, not https?), or something on the way broke it."
    if "SSL" in names:
        return f"The TLS connection to {host} broke: {chain[-1].__class__.__name__}."
    return f"{host} broke the connection off ({chain[-1].__class__.__name__})."


def _where_to_look(chain: list[BaseException]) -> str:
    unreached = any(
        "NewConnection" in type(e).__name__ or "EndpointConnection" in type(e).__name__ or "Connect" in type(e).__name__
        for e in chain
    )
    if unreached or _first(chain, ConnectionRefusedError):
        return "Check the endpoint (AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST), the network and HTTPS_PROXY/NO_PROXY."
    return "Try again later; if it stays so, look at the network between here and the store."


def _first(chain: list[BaseException], *kinds: type[BaseException]) -> "BaseException | None":
    return next((one for one in chain if isinstance(one, kinds)), None)


def error_text(error: object) -> str:
    """What an SDK's error says: one line without a full stop, and without names and passwords in addresses."""
    return _USER_INFO.sub("//***@", " ".join(str(error).split()))[:500].rstrip(".: ")


def _causes(error: BaseException) -> "list[BaseException]":
    """The error and all that it wraps, outermost first: SDKs and urllib3 keep the cause in different places."""
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            todo += [
                getattr(one, "reason", None),
                one.__cause__,
                one.__context__,
                *one.args,
                *getattr(one, "kwargs", {}).values(),
            ]
    return seen

"""The HTTP connections: one urllib3 pool with the proxies and the certificates that the SDKs' calls use too."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from modelfetch import __version__
from modelfetch.errors import ConfigError, ModelfetchError, RefusedError, TransientError

CONNECT_TIMEOUT = 10.0  # seconds
_REDIRECTS = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)


@dataclass(frozen=True)
class Connect:
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
    connections: int = 8

    @property
    def timeout(self) -> urllib3.Timeout:
        """The timeouts of one request."""
        return urllib3.Timeout(connect=min(CONNECT_TIMEOUT, self.stall_timeout), read=self.stall_timeout)


def _tls(connect: Connect) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=connect.ca_bundle)
        if connect.client_cert:
            context.load_cert_chain(connect.client_cert)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The certificates in {connect.ca_bundle or connect.client_cert} cannot be loaded: {error}.",
            hint="Check AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE and SSL_CERT_FILE.",
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


class Pool:
    """Keep-alive connections to any number of hosts, direct or through the environment's proxies."""

    def __init__(self, connect: Connect) -> None:
        """Take how to reach servers; connects only when asked for a page."""
        self._connect = connect
        self._context: ssl.SSLContext | None = None
        self._managers: dict[str | None, urllib3.PoolManager] = {}

    def open(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Send a request; the body is left to be read, undecoded. Follows at most five redirects.

        Raises:
            ModelfetchError: the server was not reached, or did not begin to answer in time.
        """
        try:
            return self._manager(url).request(
                method,
                url,
                headers={"User-Agent": f"modelfetch/{__version__}", **headers},
                preload_content=False,
                decode_content=False,
                retries=_REDIRECTS,
                timeout=self._connect.timeout,
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise explain(error, urlsplit(url).netloc, self._connect.stall_timeout) from error

    def close(self) -> None:
        """Close what is idle; connections in use are closed by their users."""
        for manager in self._managers.values():
            manager.clear()

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = _proxy(parts.scheme, parts.netloc)
        if proxy not in self._managers:
            if self._context is None and (parts.scheme == "https" or proxy):
                self._context = _tls(self._connect)
            size, context = self._connect.connections, self._context
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


def _proxy(scheme: str, host: str) -> str | None:
    """The environment's proxy for a host; one named without a scheme speaks http, as the SDKs have it."""
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    return proxy if not proxy or "://" in proxy else f"http://{proxy.lstrip('/')}"


def _proxy_headers(proxy: str) -> dict[str, str]:
    """The credentials that the proxy's address holds: urllib3 does not send them by itself."""
    user = urllib3.util.parse_url(proxy).auth
    return dict(urllib3.util.make_headers(proxy_basic_auth=unquote(user))) if user else {}


def explain(error: BaseException, host: str, stall_timeout: float) -> ModelfetchError:
    """Say why a server was not reached or broke off; without the addresses asked for, which hold signatures."""
    chain = list(_causes(error))
    untrusted = next((one for one in chain if isinstance(one, ssl.SSLCertVerificationError)), None)
    if untrusted is not None:
        return RefusedError(
            f"The certificate of {host} is not trusted: {untrusted.verify_message}.",
            hint="Give the authority's certificate with AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or SSL_CERT_FILE.",
        )
    # What requests, which Google's SDK uses, raises is known by its name only: it is not imported for its type.
    if _first(chain, urllib3.exceptions.ResponseError) or "TooManyRedirects" in {type(one).__name__ for one in chain}:
        return RefusedError(f"{host} redirects in a loop.", hint="Check the endpoint and the address.")
    if _first(
        chain, urllib3.exceptions.LocationParseError, urllib3.exceptions.LocationValueError, ValueError
    ) and not _first(chain, OSError, urllib3.exceptions.ProtocolError):
        return ConfigError(f"{host!r} is not an address that can be connected to.", hint="Check the endpoint's URL.")
    return TransientError(_trouble(chain, host, stall_timeout), hint=_where_to_look(chain))


def _trouble(chain: list[BaseException], host: str, stall_timeout: float) -> str:
    names = " ".join(type(one).__name__ for one in chain)
    if "gaierror" in names or "NameResolution" in names:
        return f"The name of {host} cannot be resolved."
    if _first(chain, ConnectionRefusedError):
        return f"{host} refuses the connection: nothing listens there."
    if "ConnectTimeout" in names or "ConnectionTimeout" in names:
        return f"{host} did not answer the connection in time."
    if "Timeout" in names:
        return f"{host} sent no byte for {stall_timeout:g} s."
    if "SSL" in names:
        return f"The TLS connection to {host} broke: {chain[-1].__class__.__name__}."
    if "ProxyError" in names:
        return f"The proxy on the way to {host} failed."
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

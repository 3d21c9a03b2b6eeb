"""Proxies of the environment: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as the SDKs read them."""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from modelfetch.errors import ConfigError
from modelfetch.net.network_errors import PROXY_HINT, host_of


class Proxy(NamedTuple):
    """Proxy for some hosts.

    Attributes:
        url: http or https URL; may hold a user name and a password.
        headers: header with the credentials of `url`, not sent by urllib3 on its own; empty without credentials.
    """

    url: str
    headers: dict[str, str]


def find_proxy(url: str) -> Proxy | None:
    """Return the environment's proxy for `url`; None for a direct connection.

    A proxy without a scheme speaks http, as the SDKs have it.

    Raises:
        ConfigError: the proxy's URL cannot be parsed, or its scheme is neither http nor https.
        ValueError: `url` cannot be parsed, or the proxy's credentials hold characters not allowed in HTTP.
    """
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc.rpartition("@")[2]) else getproxies().get(parts.scheme)
    if not proxy:
        return None
    proxy_url = proxy if "://" in proxy else f"http://{proxy.lstrip('/')}"
    try:
        parsed = urllib3.util.parse_url(proxy_url)
    except urllib3.exceptions.LocationParseError:
        parsed = None
    if parsed is None or parsed.scheme not in ("http", "https"):
        raise ConfigError(
            f"The proxy on the way to {host_of(url)} has an address that makes no sense.", hint=PROXY_HINT
        )
    return Proxy(proxy_url, dict(urllib3.util.make_headers(proxy_basic_auth=unquote(parsed.auth or ""))))

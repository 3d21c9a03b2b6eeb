"""Redirects of a GET: the next URL, and which headers go there."""

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import urllib3

from modelfetch.errors import RefusedError
from modelfetch.net.http1 import host_header
from modelfetch.net.network_errors import host_of

MAX_REDIRECTS = 5
# Only the first host may learn these: urllib3's list lacks the token of temporary AWS credentials.
SECRET_HEADERS = frozenset({*urllib3.Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT, "x-amz-security-token"})
_SECRET_NAMES = frozenset(name.lower() for name in SECRET_HEADERS)


def follow_redirect(url: str, headers: Mapping[str, str], location: str) -> tuple[str, Mapping[str, str]]:
    """Return URL and headers of the next request.

    Args:
        url: URL that redirected.
        headers: headers of that request.
        location: Location field (RFC 9110, 10.2.2), absolute or relative.

    Returns:
        The next URL, and the headers: without secrets if scheme, host or port differ.

    Raises:
        RefusedError: the location is not an http(s) URL.
    """
    target = _join_url(url, location)
    if target is None:
        raise RefusedError(
            f"{host_of(url)} redirects to what is no web address.", hint="Check the endpoint and the address."
        )
    if _origin(target) == _origin(url):
        return target, headers
    return target, {name: value for name, value in headers.items() if name.lower() not in _SECRET_NAMES}


def _join_url(url: str, location: str) -> str | None:
    """Return the absolute URL of a location; None for anything but http(s) with a host."""
    try:
        target = urljoin(url, location)
        has_host = bool(urllib3.util.parse_url(target).host)
    except (ValueError, urllib3.exceptions.LocationParseError):
        return None
    return target if has_host and urlsplit(target).scheme in ("http", "https") else None


def _origin(url: str) -> tuple[str, str]:
    return urlsplit(url).scheme, host_header(url)

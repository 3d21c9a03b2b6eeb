"""Redirects of a GET: the next URL, and the headers allowed there."""

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import urllib3

from modelfetch.errors import RefusedError
from modelfetch.net.http1 import host_header
from modelfetch.net.network_errors import host_of

MAX_REDIRECTS = 5
# Headers that a different host may see. Everything else may authorise: a token, a signature, a session.
_HARMLESS = frozenset({"accept", "accept-encoding", "if-match", "range", "user-agent"})


def follow_redirect(url: str, headers: Mapping[str, str], location: str) -> tuple[str, Mapping[str, str]]:
    """Return URL and headers of the next request.

    Args:
        url: URL of the redirected request.
        headers: headers of the redirected request.
        location: Location field (RFC 9110, 10.2.2), absolute or relative.

    Returns:
        The next URL, and the headers: only harmless ones if scheme, host or port differ.

    Raises:
        RefusedError: the location is not an http(s) URL, or leaves https for http: anyone on the way could read the
            headers and alter the model.
    """
    target = _join_url(url, location)
    if target is None:
        raise RefusedError(
            f"{host_of(url)} redirects to what is no web address.", hint="Check the endpoint and the address."
        )
    if _loses_protection(url, target):
        raise RefusedError(
            f"{host_of(url)} redirects from https to http: anyone on the way could alter the model.",
            hint="Have the server redirect to https; only an address with http:// itself is fetched unprotected.",
        )
    if _origin(target) == _origin(url):
        return target, headers
    return target, {name: value for name, value in headers.items() if name.lower() in _HARMLESS}


def _loses_protection(url: str, target: str) -> bool:
    """Return whether a redirect leaves https for http."""
    return urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http"


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

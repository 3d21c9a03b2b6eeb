"""Google credentials from the SDK's usual places. Imported on demand: the import takes 0.1 s."""

from typing import Any

import google.auth
import requests
from google.auth.transport.requests import Request
from requests.adapters import HTTPAdapter

from modelfetch.net.connection_pool import NetworkOptions
from modelfetch.net.redirects import follow_redirect

_SCOPES = {
    False: ["https://www.googleapis.com/auth/devstorage.read_only"],
    True: ["https://www.googleapis.com/auth/devstorage.read_write"],
}


def make_token_transport(network: NetworkOptions) -> Request:
    """Return the transport for token requests: a session of its own, which sends no token along."""
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=3))  # google-auth does not retry failed connections
    secure_session(session, network)
    request_class: Any = Request  # google-auth's constructors are partly typed
    request: Request = request_class(session)
    return request


def find_credentials(transport: Request, *, write: bool) -> tuple[Any, str]:
    """Return the credentials and their universe domain.

    Raises:
        Exception: any failure of google-auth; see `explain_credentials_failure`.
    """
    credentials, _ = google.auth.default(scopes=_SCOPES[write], request=transport)
    return credentials, credentials.universe_domain


def secure_session(session: requests.Session, network: NetworkOptions) -> None:
    """Give a session the trusted certificates; let no redirect lead from https to http."""
    if network.ca_bundle:
        session.verify = network.ca_bundle
    session.hooks["response"].append(_check_redirect)


def _check_redirect(response: requests.Response, **_: object) -> None:
    """Refuse the redirects that `follow_redirect` refuses; requests calls this before a redirect is followed.

    Raises:
        RefusedError: the redirect leads from https to http, or to no web address.
    """
    if response.is_redirect:
        follow_redirect(response.url, {}, response.headers["location"])

"""Google's credentials, from the SDK's usual places. Imported only if some are needed: it takes 0.1 s."""

from typing import Any

import google.auth
import requests
from google.auth.transport.requests import Request
from requests.adapters import HTTPAdapter

from modelfetch.net.connection_pool import NetworkOptions

_SCOPES = {
    False: ["https://www.googleapis.com/auth/devstorage.read_only"],
    True: ["https://www.googleapis.com/auth/devstorage.read_write"],
}


def issuer(connect: NetworkOptions) -> Request:
    """How to ask those who issue tokens: never by the session that sends tokens along."""
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=3))  # google-auth does not try again what did not connect
    trusting(session, connect)
    asking: Any = Request  # google-auth's constructors are partly typed
    request: Request = asking(session)
    return request


def default(asked: Request, *, write: bool) -> tuple[Any, str]:
    """The credentials, and the domain of the cloud that they are good for.

    Raises:
        Exception: whatever google-auth meets; see `gcs_errors.unavailable`.
    """
    credentials, _ = google.auth.default(scopes=_SCOPES[write], request=asked)
    return credentials, credentials.universe_domain


def trusting(session: requests.Session, connect: NetworkOptions) -> None:
    """Give a session the certificates to trust."""
    if not connect.verify:
        session.verify = False
    elif connect.ca_bundle:
        session.verify = connect.ca_bundle

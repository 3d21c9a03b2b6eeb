"""Credential issuers of the clouds, each a responder for `testkit.scripted_server`."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from testkit.scripted_server import Responder, ServerRequest, ServerResponse, json_response
from testkit.stores import S3Server

ROLE = "arn:aws:iam::123456789012:role/reader"
WEB_IDENTITY = "AssumeRoleWithWebIdentity"


@dataclass(frozen=True)
class TemporaryKeys:
    """Temporary AWS keys and their stated expiry."""

    key: str
    secret: str
    token: str
    ends: str

    def as_profile(self) -> str:
        """Format the keys as a shared credentials file."""
        named = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret, "aws_session_token": self.token}
        return "[default]\n" + "".join(f"{name}={value}\n" for name, value in named.items())

    def as_json(self, token: str = "SessionToken", **more: object) -> str:
        """Format the keys as programs and servers print them; they disagree on the token's name."""
        keys = {"AccessKeyId": self.key, "SecretAccessKey": self.secret, token: self.token, "Expiration": self.ends}
        return json.dumps({**keys, **more})


def issue_temporary_keys(server: S3Server, minutes: float = 300) -> TemporaryKeys:
    """Get new keys from the server's own STS; `minutes` is their stated lifetime."""
    keys = server.temporary_keys()
    ends = f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
    return TemporaryKeys(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], ends)


def container_endpoint(keys: Callable[[], TemporaryKeys]) -> Responder:
    """Respond at `/keys` as the AWS_CONTAINER_CREDENTIALS_FULL_URI of ECS and EKS Pod Identity."""

    def respond(request: ServerRequest) -> ServerResponse | None:
        return ServerResponse(body=keys().as_json("Token").encode()) if request.path == "/keys" else None

    return respond


def sts_endpoint(keys: Callable[[str], TemporaryKeys | None]) -> Responder:
    """Respond as STS for web identities: `keys` maps a token to keys, None refuses the token."""

    def respond(request: ServerRequest) -> ServerResponse | None:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if form.get("Action") != WEB_IDENTITY:
            return None
        issued = keys(form["WebIdentityToken"])
        if issued is None:
            error = "<Error><Code>InvalidIdentityToken</Code><Message>No such token.</Message></Error>"
            return ServerResponse(400, body=f"<ErrorResponse>{error}</ErrorResponse>".encode())
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in json.loads(issued.as_json()).items())
        inner = f"<{WEB_IDENTITY}Result><Credentials>{inner}</Credentials></{WEB_IDENTITY}Result>"
        return ServerResponse(body=f"<{WEB_IDENTITY}Response>{inner}</{WEB_IDENTITY}Response>".encode())

    return respond


def google_token_endpoint(token: Callable[[], str], seconds: float = 3600) -> Responder:
    """Respond as Google's token endpoint at `/token` and as a metadata server with a service account."""
    accounts = "/computeMetadata/v1/instance/service-accounts"

    def respond(request: ServerRequest) -> ServerResponse | None:
        if request.path == "/token" or re.fullmatch(f"{accounts}/[^/]+/token", request.path):
            return _add_metadata_flavor(
                json_response({"access_token": token(), "expires_in": seconds, "token_type": "Bearer"})
            )
        if re.fullmatch(f"{accounts}/[^/]+/", request.path):
            return _add_metadata_flavor(
                json_response({"email": "reader@p.iam.gserviceaccount.com", "scopes": [], "aliases": []})
            )
        if request.path == "/":
            return _add_metadata_flavor(ServerResponse())
        return None

    return respond


def _add_metadata_flavor(response: ServerResponse) -> ServerResponse:
    return ServerResponse(response.status, (*response.headers, ("Metadata-Flavor", "Google")), response.body)


def new_private_key() -> str:
    """Return a fresh RSA key in the format of a service account's file."""
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def write_service_account(path: Path, token_uri: str, key: str) -> Path:
    """Write the key file of a service account."""
    fields = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": key,
        "client_email": "reader@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(fields))
    return path

"""Who issues credentials, as clouds have them; each is a speaker for `testkit.scripted_server`."""

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
    """Keys of AWS that are good for a time, with when they say that it ends."""

    key: str
    secret: str
    token: str
    ends: str

    def as_profile(self) -> str:
        """As a file of credentials has them."""
        named = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret, "aws_session_token": self.token}
        return "[default]\n" + "".join(f"{name}={value}\n" for name, value in named.items())

    def as_json(self, token: str = "SessionToken", **more: object) -> str:
        """As programs and servers have them, which do not agree on the token's name."""
        keys = {"AccessKeyId": self.key, "SecretAccessKey": self.secret, token: self.token, "Expiration": self.ends}
        return json.dumps({**keys, **more})


def issue_temporary_keys(server: S3Server, minutes: float = 300) -> TemporaryKeys:
    """New keys from the server's own STS; `minutes` are what they are said to be good for."""
    got = server.temporary_keys()
    ends = f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
    return TemporaryKeys(got["AccessKeyId"], got["SecretAccessKey"], got["SessionToken"], ends)


def container_endpoint(keys: Callable[[], TemporaryKeys]) -> Responder:
    """What AWS_CONTAINER_CREDENTIALS_FULL_URI leads to in ECS and with EKS Pod Identity: at `/keys`."""

    def speak(asked: ServerRequest) -> ServerResponse | None:
        return ServerResponse(body=keys().as_json("Token").encode()) if asked.path == "/keys" else None

    return speak


def sts_endpoint(keys: Callable[[str], TemporaryKeys | None]) -> Responder:
    """STS for web identities: asked for the keys of a token; it refuses those for which there are none."""

    def speak(asked: ServerRequest) -> ServerResponse | None:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if form.get("Action") != WEB_IDENTITY:
            return None
        got = keys(form["WebIdentityToken"])
        if got is None:
            said = "<Error><Code>InvalidIdentityToken</Code><Message>No such token.</Message></Error>"
            return ServerResponse(400, body=f"<ErrorResponse>{said}</ErrorResponse>".encode())
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in json.loads(got.as_json()).items())
        inner = f"<{WEB_IDENTITY}Result><Credentials>{inner}</Credentials></{WEB_IDENTITY}Result>"
        return ServerResponse(body=f"<{WEB_IDENTITY}Response>{inner}</{WEB_IDENTITY}Response>".encode())

    return speak


def google_token_endpoint(token: Callable[[], str], seconds: float = 3600) -> Responder:
    """Google's token endpoint at `/token`, and the metadata server of a machine or a GKE pod with an account."""
    accounts = "/computeMetadata/v1/instance/service-accounts"

    def speak(asked: ServerRequest) -> ServerResponse | None:
        if asked.path == "/token" or re.fullmatch(f"{accounts}/[^/]+/token", asked.path):
            return _add_metadata_flavor(
                json_response({"access_token": token(), "expires_in": seconds, "token_type": "Bearer"})
            )
        if re.fullmatch(f"{accounts}/[^/]+/", asked.path):
            return _add_metadata_flavor(
                json_response({"email": "reader@p.iam.gserviceaccount.com", "scopes": [], "aliases": []})
            )
        if asked.path == "/":
            return _add_metadata_flavor(ServerResponse())
        return None

    return speak


def _add_metadata_flavor(answer: ServerResponse) -> ServerResponse:
    return ServerResponse(answer.status, (*answer.headers, ("Metadata-Flavor", "Google")), answer.body)


def new_private_key() -> str:
    """A fresh RSA key, as a service account's file has it."""
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def write_service_account(path: Path, token_uri: str, key: str) -> Path:
    """Write a service account's key file."""
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

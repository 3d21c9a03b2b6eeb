"""Print what an installed botocore derives from its data, as JSON: endpoints, signatures, requests.

Run with a botocore on Python's path. Two versions that print the same behave the same for modelfetch. Nothing is sent:
each request is recorded and refused.
"""

import datetime as dt
import hashlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import botocore.auth
import botocore.httpsession
import botocore.session
import botocore.signers
from botocore import UNSIGNED
from botocore.config import Config

SERVICES = ("s3", "sts", "sso", "sso-oidc", "signin")
REGIONS = (
    None, "us-east-1", "eu-west-1", "xx-nowhere-9", "aws-global", "fips-us-east-1", "cn-north-1", "us-gov-west-1",
    "us-iso-east-1", "us-isof-south-1", "eusc-de-east-1",
)  # fmt: skip
BUCKETS = (
    "bucket", "dotted.bucket", "express--use1-az4--x-s3", "arn:aws:s3:eu-west-1:123456789012:accesspoint/point",
    "arn:aws:s3::123456789012:accesspoint/many.mrap",
)  # fmt: skip
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"use_fips_endpoint": True}, {"use_dualstack_endpoint": True})
S3_SETTINGS: tuple[dict[str, Any], ...] = (
    {"use_fips_endpoint": True, "use_dualstack_endpoint": True},
    {"signature_version": UNSIGNED, "s3": {"addressing_style": "virtual"}},
    {"signature_version": "s3v4", "s3": {"addressing_style": "path", "us_east_1_regional_endpoint": "legacy"}},
    {"s3": {"use_accelerate_endpoint": True}},
)
TOKEN = {"expiresAt": "2020-01-01T00:00:00Z", "accessToken": "old", "refreshToken": "new", "clientId": "id"}
CONFIG = """
[profile keys]
aws_access_key_id = key
aws_secret_access_key = secret
[profile assumed]
role_arn = arn:aws:iam::123456789012:role/one
source_profile = keys
[profile web]
role_arn = arn:aws:iam::123456789012:role/two
web_identity_token_file = {home}/token
[profile sso]
sso_start_url = https://start.example
sso_region = eu-west-1
sso_account_id = 123456789012
sso_role_name = reader
[profile sso-session]
sso_session = ours
sso_account_id = 123456789012
sso_role_name = reader
[sso-session ours]
sso_region = us-gov-west-1
sso_start_url = https://start.example
"""
PROFILES = ("keys", "assumed", "web", "sso", "sso-session")


class NotSentError(Exception):
    """Raised instead of sending a request; holds method, URL and body."""


def refuse_request(_: Any, request: Any) -> None:
    """Raise instead of sending a request."""
    body = request.body if isinstance(request.body, str) else (request.body or b"").decode()
    raise NotSentError(request.method, request.url, body)


def capture_outcome(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the value of a call, or the class and message of its exception."""
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  the error is part of the comparison
        return [type(error).__name__, str(error)]


def describe_endpoint(client: Any) -> list[Any]:
    """Return a client's endpoint, region, partition and signing parameters."""
    meta, signer = client.meta, client._request_signer
    signed = [
        signer.region_name,
        signer.signing_name,
        "none" if signer.signature_version is UNSIGNED else signer.signature_version,
    ]
    return [meta.endpoint_url, meta.region_name, meta.partition, *signed]


def describe_service(
    session: Any, service: str, region: str | None, given: dict[str, Any], endpoint: str | None
) -> Any:
    """Describe a client; for S3 add the URLs signed for every bucket."""
    client = capture_outcome(
        session.create_client, service, region_name=region, config=Config(**given), endpoint_url=endpoint
    )
    if isinstance(client, list) or service != "s3":
        return client if isinstance(client, list) else describe_endpoint(client)
    facts = describe_endpoint(client)
    for bucket in BUCKETS:
        params = {"Bucket": bucket, "Key": "a key"}
        facts.append(capture_outcome(client.generate_presigned_url, "get_object", Params=params))
    facts.append(capture_outcome(client.list_objects_v2, Bucket="bucket", Prefix="a/"))
    return facts


def describe_clients() -> dict[str, Any]:
    """Describe every service in every region with every setting."""
    described = {}
    session = botocore.session.get_session()
    session.set_credentials("key", "secret")
    for service in SERVICES:
        for region, given in itertools.product(REGIONS, (*SETTINGS, *(S3_SETTINGS if service == "s3" else ()))):
            label = json.dumps(given, default=lambda _: "unsigned")
            described[f"{service} {region} {label}"] = describe_service(session, service, region, given, None)
        described[f"{service} at an address"] = describe_service(
            session, service, "eu-west-1", {}, "http://127.0.0.1:9000"
        )
        described[f"{service} is in"] = [
            session.get_available_regions(service, partition, allow_non_regional=True)
            for partition in session.get_available_partitions()
        ]
    session.set_config_variable("sts_regional_endpoints", "legacy")
    for region in REGIONS:
        described[f"sts {region} as it was"] = describe_service(session, "sts", region, {}, None)
    return described


def describe_providers(home: Path) -> dict[str, Any]:
    """Return the first request of every credential provider that calls a service."""
    (home / "config").write_text(CONFIG.format(home=home))
    (home / "token").write_text("token of the web")
    os.environ["AWS_CONFIG_FILE"] = str(home / "config")
    cache = home / ".aws/sso/cache"
    cache.mkdir(parents=True)
    good = {"accessToken": "good", "expiresAt": "2999-01-01T00:00:00Z"}
    old = {**TOKEN, "clientSecret": "secret", "registrationExpiresAt": "2999-01-01T00:00:00Z"}
    for key, token in (("https://start.example", good), ("ours", old)):
        (cache / f"{hashlib.sha1(key.encode()).hexdigest()}.json").write_text(json.dumps(token))
    return {name: capture_outcome(read_credentials, name) for name in PROFILES}


def read_credentials(profile: str) -> list[str]:
    """Return the credentials of a profile."""
    found: Any = botocore.session.Session(profile=profile).get_credentials()
    return list(found.get_frozen_credentials())


def read_service_model(service: str) -> list[Any]:
    """Return all data files of a service, without documentation."""

    def drop_documentation(found: dict[str, Any]) -> dict[str, Any]:
        """Drop the documentation of an object."""
        return {key: value for key, value in found.items() if key != "documentation" or not isinstance(value, str)}

    loader = botocore.session.get_session().get_component("data_loader")
    kinds = ("service-2", "endpoint-rule-set-1", "paginators-1", "waiters-2")
    raw = [
        json.dumps(capture_outcome(loader.load_service_model, service, kind))
        for kind in kinds
        if kind != "waiters-2" or service == "s3"
    ]
    return [json.loads(text, object_hook=drop_documentation) for text in raw]


def main() -> None:
    """Print the snapshot; HOME is a directory to write to."""
    now = dt.datetime(2026, 1, 1)  # noqa: DTZ001  naive, as in botocore
    time.time = lambda: 1767225600.0
    for module in (botocore.auth, botocore.signers):
        module.get_current_datetime = lambda *_, **__: now  # type: ignore[attr-defined]
    botocore.httpsession.URLLib3Session.send = refuse_request  # type: ignore[assignment]
    facts = {
        "clients": describe_clients(),
        "providers": describe_providers(Path.home()),
        "models": {service: read_service_model(service) for service in SERVICES},
    }
    json.dump({"from": botocore.__file__, **facts}, sys.stdout)


if __name__ == "__main__":
    main()

"""Requests signed by `sigv4` equal the requests signed by the SDK."""

from functools import cache
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.session import Session, get_session

from modelfetch.sources.s3.sigv4 import RequestSigner

Style = Literal["auto", "path", "virtual"]
KEYS = ("a", "a b/ä+d?&=#%", "/x//y", "~t*'()!", "日本/\u0301", "a/./b")
CREDENTIALS = ReadOnlyCredentials("AKIA", "secret/+", None)
TEMPORARY = ReadOnlyCredentials("AKIA", "secret/+", "to/k=en+")


@cache
def signer_of(
    bucket: str = "bucket", endpoint: str | None = "https://store:9000", style: Style = "auto"
) -> RequestSigner:
    """One for a region, with credentials."""
    session: Session = get_session()
    session.set_credentials("AKIA", "secret/+")
    client = session.create_client(
        "s3",
        region_name="eu-west-3",
        endpoint_url=endpoint,
        config=Config(signature_version="s3v4", s3={"addressing_style": style}),
    )
    return RequestSigner(client, bucket)  # type: ignore[arg-type]  # botocore's stubs know no service


def signature_of_the_sdk(url: str, headers: dict[str, str], credentials: ReadOnlyCredentials) -> str:
    """Return the SDK's signature at the same moment."""
    unsigned = {name: value for name, value in headers.items() if name != "Authorization"}
    request = AWSRequest("GET", url, headers=unsigned)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = S3SigV4Auth(credentials, "s3", "eu-west-3")
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


@pytest.mark.parametrize("credentials", [CREDENTIALS, TEMPORARY])
@pytest.mark.parametrize("version", [None, "v.1_-/+~"])
@pytest.mark.parametrize("key", KEYS)
def test_signature_equals_the_sdk_s(key: str, version: str | None, credentials: ReadOnlyCredentials) -> None:
    """For every key, version and kind of credentials."""
    signed = signer_of().sign_get(key, version, credentials)
    headers = dict(signed.headers)

    expected = signature_of_the_sdk(signed.url, headers, credentials)

    assert headers["Authorization"].endswith(f", Signature={expected}")
    assert f"Credential=AKIA/{headers['x-amz-date'][:8]}/eu-west-3/s3/aws4_request," in headers["Authorization"]
    assert headers.get("x-amz-security-token") == credentials.token


@pytest.mark.parametrize(
    ("bucket", "endpoint", "style"),
    [
        ("bucket", "https://store:9000", "path"),
        ("bucket", "https://store:9000/below", "path"),
        ("bucket", "https://store", "virtual"),
        ("bucket", None, "auto"),
        ("dotted.bucket", None, "auto"),
        ("arn:aws:s3:us-west-2:123456789012:accesspoint/point", None, "auto"),
    ],
)
@pytest.mark.parametrize("version", [None, "v1"])
def test_signed_address_equals_the_sdk_s(bucket: str, endpoint: str | None, style: Style, version: str | None) -> None:
    """For every endpoint and addressing style."""
    made = signer_of(bucket, endpoint, style)
    for key in KEYS:
        parameters = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}

        ours = urlsplit(made.sign_get(key, version, CREDENTIALS).url)

        theirs = urlsplit(made.client.generate_presigned_url("get_object", Params=parameters))
        assert ours[:3] == theirs[:3]
        assert dict(parse_qsl(ours.query)).items() <= dict(parse_qsl(theirs.query)).items()


@pytest.mark.parametrize(
    "endpoint", ["https://store:443", "http://store:80", "https://store:80", "http://Store:9000", "https://[::1]:443"]
)
def test_signed_host_equals_the_host_header(endpoint: str) -> None:
    """HTTP libraries drop a scheme's default port, and write host names in lower case."""
    signed = signer_of(endpoint=endpoint, style="path").sign_get("a", None, CREDENTIALS)
    headers = dict(signed.headers)

    expected = signature_of_the_sdk(signed.url, headers, CREDENTIALS)

    assert headers["Authorization"].endswith(f", Signature={expected}")


def test_access_point_is_signed_for_its_region() -> None:
    """The access point's name states the region."""
    made = signer_of("arn:aws:s3:us-west-2:123456789012:accesspoint/point", None)

    assert "/us-west-2/s3/aws4_request," in made.sign_get("a", None, CREDENTIALS).headers["Authorization"]


def test_anonymous_request_is_unsigned() -> None:
    """A public object is requested by the address alone."""
    asked = signer_of().sign_get("a b", "v1", None)

    assert asked.url == "https://store:9000/bucket/a%20b?versionId=v1"
    assert dict(asked.headers) == {"x-amz-checksum-mode": "ENABLED"}

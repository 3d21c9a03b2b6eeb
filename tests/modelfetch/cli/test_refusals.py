"""Refusals of the stores: real servers behind the fault proxy, with responses as the clouds document them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.fault_rules import Request
from testkit.stores import GCSBucket, S3Bucket, Store

Proxied = Callable[[str], FaultProxy]


@dataclass(frozen=True)
class Refusal:
    """Error response of a store, and the expected result.

    Attributes:
        code: S3's error code, or Google's reason.
        status: HTTP status of the response.
        exit: expected exit code and reason.
        hint: text expected in the hint.
        message: error message of the store.
        request_filter: requests to answer with the error.
    """

    code: str
    status: int
    exit: tuple[int, str]
    hint: str
    message: str = "said so"
    request_filter: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}"

    def s3_rule(self) -> dict[str, Any]:
        """Return a rule of the fault proxy with an S3 error body."""
        xml = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        content_type = {"Content-Type": "application/xml"}
        return {
            "status": self.status,
            "body": xml.encode(),
            "headers": content_type,
            "times": None,
            **self.request_filter,
        }

    def gcs_rule(self) -> dict[str, Any]:
        """Return a rule of the fault proxy with a GCS error body."""
        error = {
            "code": self.status,
            "message": self.message,
            "errors": [{"message": self.message, "reason": self.code}],
        }
        return {
            "status": self.status,
            "body": json.dumps({"error": error}).encode(),
            "times": None,
            **self.request_filter,
        }


REFUSED, DENIED, MISSING = (69, "refused"), (77, "credentials"), (66, "not_found")
PASSING, CHANGED = (75, "transient"), (75, "changed")
KMS = "User: arn:aws:iam::1:role/r is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:x"
SSE_C = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided."

S3_REFUSALS = [
    Refusal("ExpiredToken", 400, DENIED, "AWS_SESSION_TOKEN"),
    Refusal("RequestTimeTooSkewed", 403, DENIED, "clock"),
    Refusal("AccessDenied", 403, DENIED, "s3:GetObject"),  # requester-pays buckets say no more
    Refusal("AccessDenied", 403, DENIED, "kms:Decrypt", KMS, {"method": "GET"}),
    Refusal("InvalidObjectState", 403, REFUSED, "restore it first", request_filter={"method": "GET"}),  # HEAD finds it
    Refusal("InvalidRequest", 400, REFUSED, "SSE-C", SSE_C),
    Refusal("PermanentRedirect", 301, REFUSED, "AWS_REGION"),
    Refusal("AuthorizationHeaderMalformed", 400, REFUSED, "AWS_REGION"),
    Refusal("SlowDown", 503, PASSING, "later"),
    Refusal("NoSuchVersion", 404, MISSING, "versionId", request_filter={"method": "GET"}),
    Refusal("InvalidBucketName", 400, (2, "usage"), "bucket"),
]
GCS_REFUSALS = [
    Refusal("userProjectMissing", 400, REFUSED, "GOOGLE_CLOUD_QUOTA_PROJECT", "Bucket is a requester pays bucket."),
    Refusal("accountDisabled", 403, REFUSED, "billing", "The billing account for the owning project is disabled."),
    Refusal("rateLimitExceeded", 403, PASSING, "later"),
    Refusal("forbidden", 403, DENIED, "Storage Object Viewer", "No storage.objects.get access."),
    Refusal("forbidden", 403, DENIED, "CryptoKey", "Permission denied on Cloud KMS key."),
    Refusal("conditionNotMet", 412, CHANGED, "again"),
    Refusal("notFound", 404, MISSING, "name", "The specified bucket does not exist."),
]


def pull_once(modelfetch: CliRunner, store: Store, proxy: FaultProxy, dest: Path) -> Run:
    """Pull through the proxy, without retries."""
    env = {**store.env_at(proxy.url), "MODELFETCH_RETRIES": "1"}
    return modelfetch("pull", store.uri("m"), dest, env=env)


def assert_refused(run: Run, refusal: Refusal) -> None:
    """Check exit code, reason, hint and termination log."""
    assert (run.code, run.error["reason"]) == refusal.exit, run.stderr
    assert refusal.hint in run.error["hint"]
    assert json.loads(run.termination) == run.error
    assert len(run.log) <= 2


@pytest.mark.parametrize("refusal", S3_REFUSALS, ids=str)
def test_s3_refusal_exits_with_the_documented_code_and_hint(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path, refusal: Refusal
) -> None:
    """Each S3 error code maps to an exit code, a reason and a next step."""
    s3_bucket.put("m", b"model")
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**refusal.s3_rule())

    run = pull_once(modelfetch, s3_bucket, proxy, tmp_path / "m")

    assert_refused(run, refusal)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("refusal", GCS_REFUSALS, ids=str)
def test_gcs_refusal_exits_with_the_documented_code_and_hint(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path, refusal: Refusal
) -> None:
    """Each GCS error reason maps to an exit code, a reason and a next step."""
    gcs_bucket.put("m", b"model")
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(**refusal.gcs_rule())

    run = pull_once(modelfetch, gcs_bucket, proxy, tmp_path / "m")

    assert_refused(run, refusal)
    assert not (tmp_path / "m").exists()


def test_bucket_in_another_region_is_followed(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A 301 names the region; later requests are signed for that region."""
    s3_bucket.put("m", b"model")
    proxy = fault_proxy(s3_bucket.endpoint)

    def is_signed_for_other_region(request: Request) -> bool:
        return "us-east-1" in request.query + request.headers.get("authorization", "")

    region = {"x-amz-bucket-region": "eu-central-1"}
    answer = Refusal("PermanentRedirect", 301, REFUSED, "").s3_rule()
    rule = proxy.add_rule(**{**answer, "headers": region, "when": is_signed_for_other_region})

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env_at(proxy.url))

    assert rule.hits
    assert (tmp_path / "m").read_bytes() == b"model"
    assert not any(
        is_signed_for_other_region(request)
        for request in proxy.matching_requests(**s3_bucket.download_filter("m"))
        if request.status == 206
    )


def test_aws_region_takes_precedence_over_aws_default_region(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """AWS_REGION is read as by every AWS SDK except boto3."""
    s3_bucket.put("m", b"model")
    proxy = fault_proxy(s3_bucket.endpoint)
    env = {**s3_bucket.env_at(proxy.url), "AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "us-east-1"}

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=env)

    signed = [request.query + request.headers.get("authorization", "") for request in proxy.requests]
    assert signed
    assert [text for text in signed if "eu-west-2" not in text] == []


def test_deleted_object_exits_66_with_a_hint_at_older_versions(
    modelfetch: CliRunner, s3_versioned: S3Bucket, tmp_path: Path
) -> None:
    """Both cases are 66; in a versioned bucket an older version remains, and a delete marker is no version to pull."""
    if s3_versioned.server.kind == "moto":
        pytest.skip("moto says nothing of delete markers")
    s3_versioned.put("m", b"model")
    old = s3_versioned.version("m")
    place: Any = {"Bucket": s3_versioned.bucket, "Key": "m"}
    marker = s3_versioned.server.client.delete_object(**place)["VersionId"]

    for uri in (s3_versioned.uri("m"), s3_versioned.pinned_uri("m", marker)):
        run = modelfetch("pull", uri, tmp_path / "m", env=s3_versioned.env)
        assert (run.code, run.error["reason"]) == MISSING
        assert "deleted" in run.error["message"]
        assert "?versionId=" in run.error["hint"]
    modelfetch.ok("pull", s3_versioned.pinned_uri("m", old), tmp_path / "m", env=s3_versioned.env)

    assert (tmp_path / "m").read_bytes() == b"model"


def test_access_point_arn_is_accepted_as_a_bucket(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The ARN holds a slash, and requests go to the access point's own host name."""
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**Refusal("NoSuchAccessPoint", 404, MISSING, "").s3_rule())
    arn = "arn:aws:s3:us-east-1:123456789012:accesspoint/models"
    env = {**s3_bucket.env_at("http://s3.invalid"), "http_proxy": proxy.url}

    run = modelfetch("pull", f"s3://{arn}/churn/m", tmp_path / "m", env=env)

    assert (run.code, run.error["reason"]) == MISSING
    assert {request.headers["host"] for request in proxy.requests} == {"models-123456789012.s3.invalid"}
    assert proxy.matching_requests("HEAD", "^/churn/m$")
    assert run.error["source"] == f"s3://{arn}/churn/m"

"""What stores refuse, and why: real servers behind the fault proxy, which answers as the clouds document it."""

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
    """An answer of a store, and what is to become of it.

    Attributes:
        code: S3's code, or the reason that Google gives.
        said: the store's words.
        exit: our exit code, and the reason that goes with it.
        hint: what the next step must name.
        of: the requests that are answered so.
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
        """A rule for the fault proxy."""
        xml = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        typed = {"Content-Type": "application/xml"}
        return {"status": self.status, "body": xml.encode(), "headers": typed, "times": None, **self.request_filter}

    def gcs_rule(self) -> dict[str, Any]:
        """Likewise."""
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
    """A pull, tried once."""
    env = {**store.env_at(proxy.url), "MODELFETCH_RETRIES": "1"}
    return modelfetch("pull", store.uri("m"), dest, env=env)


def assert_refused(run: Run, refusal: Refusal) -> None:
    """It ended as it should, with the store's own words."""
    assert (run.code, run.error["reason"]) == refusal.exit, run.stderr
    assert refusal.hint in run.error["hint"]
    assert json.loads(run.termination) == run.error
    assert len(run.log) <= 2


@pytest.mark.parametrize("refusal", S3_REFUSALS, ids=str)
def test_what_s3_refuses(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path, refusal: Refusal
) -> None:
    """For good or for a time, and what to do."""
    s3_bucket.put("m", b"model")
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**refusal.s3_rule())

    run = pull_once(modelfetch, s3_bucket, proxy, tmp_path / "m")

    assert_refused(run, refusal)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("refusal", GCS_REFUSALS, ids=str)
def test_what_gcs_refuses(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path, refusal: Refusal
) -> None:
    """Likewise."""
    gcs_bucket.put("m", b"model")
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(**refusal.gcs_rule())

    run = pull_once(modelfetch, gcs_bucket, proxy, tmp_path / "m")

    assert_refused(run, refusal)
    assert not (tmp_path / "m").exists()


def test_a_bucket_in_another_region_is_followed(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """S3 says which with 301: questions and bytes are signed for it from then on."""
    s3_bucket.put("m", b"model")
    proxy = fault_proxy(s3_bucket.endpoint)

    def elsewhere(request: Request) -> bool:
        return "us-east-1" in request.query + request.headers.get("authorization", "")

    region = {"x-amz-bucket-region": "eu-central-1"}
    answer = Refusal("PermanentRedirect", 301, REFUSED, "").s3_rule()
    rule = proxy.add_rule(**{**answer, "headers": region, "when": elsewhere})

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env_at(proxy.url))

    assert rule.hits
    assert (tmp_path / "m").read_bytes() == b"model"
    assert not any(
        elsewhere(request)
        for request in proxy.matching_requests(**s3_bucket.download_filter("m"))
        if request.status == 206
    )


def test_aws_region_is_read(modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path) -> None:
    """As by every SDK of AWS but boto3; it goes before AWS_DEFAULT_REGION."""
    s3_bucket.put("m", b"model")
    proxy = fault_proxy(s3_bucket.endpoint)
    env = {**s3_bucket.env_at(proxy.url), "AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "us-east-1"}

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=env)

    signed = [request.query + request.headers.get("authorization", "") for request in proxy.requests]
    assert signed
    assert [one for one in signed if "eu-west-2" not in one] == []


def test_a_deleted_object_is_told_from_one_that_never_was(
    modelfetch: CliRunner, s3_versioned: S3Bucket, tmp_path: Path
) -> None:
    """66 both, but in a bucket with versions an older one is still there; the marker itself is no version to pull."""
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


def test_an_access_point_takes_the_place_of_a_bucket(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Its ARN holds a slash; it is asked under a host name of its own."""
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**Refusal("NoSuchAccessPoint", 404, MISSING, "").s3_rule())
    arn = "arn:aws:s3:us-east-1:123456789012:accesspoint/models"
    env = {**s3_bucket.env_at("http://s3.invalid"), "http_proxy": proxy.url}

    run = modelfetch("pull", f"s3://{arn}/churn/m", tmp_path / "m", env=env)

    assert (run.code, run.error["reason"]) == MISSING
    assert {request.headers["host"] for request in proxy.requests} == {"models-123456789012.s3.invalid"}
    assert proxy.matching_requests("HEAD", "^/churn/m$")
    assert run.error["source"] == f"s3://{arn}/churn/m"

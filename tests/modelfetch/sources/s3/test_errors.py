"""Whatever S3 answers becomes one of our failures: with the right code, a plain message and a next step."""

import re
from functools import cache

import botocore.exceptions as sdk
import pytest
from botocore.loaders import Loader

from modelfetch.errors import (
    ChangedError,
    ConfigError,
    CredentialsError,
    MismatchError,
    ModelfetchError,
    NoCredentialsError,
    NotFoundError,
    RefusedError,
    TransientError,
    UsageError,
)
from modelfetch.sources import parse_uri
from modelfetch.sources.s3 import errors as s3_errors
from modelfetch.sources.s3.source import S3Source
from modelfetch.sources.s3.spec import S3Options
from testkit.library_errors import s3_refusal


@cache
def _source() -> S3Source:
    return S3Source(parse_uri("s3://b/k"), S3Options(anonymous=True, endpoint="http://store.invalid:9000"))


@pytest.fixture
def source() -> S3Source:
    """A source that is never asked anything."""
    return _source()


def explained(source: S3Source, error: Exception) -> ModelfetchError:
    """What becomes of an SDK's error."""
    with pytest.raises(ModelfetchError) as caught, source._explain_sdk_errors("k"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "kind", "hint"),
    [
        ("NoSuchKey", 404, NotFoundError, "inspect"),
        ("NoSuchBucket", 404, NotFoundError, "AWS_REGION"),
        ("NoSuchVersion", 404, NotFoundError, "versionId"),
        ("404", 404, NotFoundError, "inspect"),
        ("AccessDenied", 403, CredentialsError, "s3:ListBucket"),
        ("403", 403, CredentialsError, "credentials"),
        ("InvalidAccessKeyId", 403, CredentialsError, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, CredentialsError, "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", 400, CredentialsError, "AWS_SESSION_TOKEN"),
        ("InvalidToken", 400, CredentialsError, "AWS_SESSION_TOKEN"),
        ("InvalidTokenId", 403, CredentialsError, "AWS_SESSION_TOKEN"),
        ("RequestTimeTooSkewed", 403, CredentialsError, "clock"),
        ("SlowDown", 503, TransientError, "later"),
        ("InternalError", 500, TransientError, "later"),
        ("RequestTimeout", 400, TransientError, "later"),
        ("NoSuchUpload", 404, TransientError, "Push again"),
        ("XMinioServerNotInitialized", 503, TransientError, "later"),
        ("XMinioBackendDown", 400, TransientError, "later"),
        ("XMinioStorageFull", 507, RefusedError, "space in the store"),
        ("SomethingNew", 502, TransientError, "later"),
        ("SomethingNew", 403, CredentialsError, "credentials"),
        ("SomethingNew", 418, RefusedError, "endpoint"),
        ("", 400, RefusedError, "endpoint"),
        ("PreconditionFailed", 412, ChangedError, "again"),
        ("InvalidRange", 416, ChangedError, "again"),
        ("InvalidObjectState", 403, RefusedError, "restore"),
        ("PermanentRedirect", 301, RefusedError, "AWS_REGION"),
        ("301", 301, RefusedError, "AWS_REGION"),
        ("AuthorizationHeaderMalformed", 400, RefusedError, "AWS_REGION"),
        ("BadDigest", 400, MismatchError, "alters bytes"),
        ("InvalidBucketName", 400, UsageError, "bucket"),
    ],
)
def test_refusal_is_explained_by_its_error_code(
    source: S3Source, code: str, status: int, kind: type[ModelfetchError], hint: str
) -> None:
    """The store's error code comes first, then the HTTP status."""
    told = explained(source, s3_refusal(code, status))

    assert type(told) is kind
    assert told.code == kind.code
    assert hint in told.hint


DOCUMENTED = {
    CredentialsError: """
        AccessDenied AccountProblem AllAccessDisabled CredentialsNotSupported CrossLocationLoggingProhibited
        ExpiredToken InvalidAccessKeyId InvalidPayer InvalidSecurity InvalidToken NotSignedUp RequestTimeTooSkewed
        SignatureDoesNotMatch TokenRefreshRequired""",
    NotFoundError: "NoSuchBucket NoSuchBucketPolicy NoSuchKey NoSuchLifecycleConfiguration NoSuchVersion",
    ChangedError: "InvalidRange PreconditionFailed",
    TransientError: """
        IncompleteBody InternalError NoSuchUpload OperationAborted RequestTimeout ServiceUnavailable SlowDown
        TemporaryRedirect""",
    UsageError: "InvalidBucketName InvalidURI KeyTooLongError",
    MismatchError: "BadDigest",
    RefusedError: """
        AmbiguousGrantByEmailAddress AuthorizationHeaderMalformed BucketAlreadyExists BucketAlreadyOwnedByYou
        BucketNotEmpty EntityTooLarge EntityTooSmall IllegalVersioningConfigurationException
        IncorrectNumberOfFilesInPostRequest InlineDataTooLarge InvalidAddressingHeader InvalidArgument
        InvalidBucketState InvalidDigest InvalidEncryptionAlgorithmError InvalidLocationConstraint InvalidObjectState
        InvalidPart InvalidPartOrder InvalidPolicyDocument InvalidRequest InvalidStorageClass
        InvalidTargetBucketForLogging MalformedACLError MalformedPOSTRequest MalformedXML MaxMessageLengthExceeded
        MaxPostPreDataLengthExceededError MetadataTooLarge MethodNotAllowed MissingContentLength
        MissingRequestBodyError MissingSecurityHeader NoLoggingStatusForKey NotImplemented PermanentRedirect Redirect
        RequestIsNotMultiPartContent RequestTorrentOfBucketError RestoreAlreadyInProgress TooManyBuckets
        UnexpectedContent UnresolvableGrantByEmailAddress UserKeyMustBeSpecified""",
}


def documented() -> dict[str, int]:
    """The codes that S3 documents, each with its status: the SDK brings the list with its model of the service."""
    shapes = Loader().load_service_model("s3", "service-2")["shapes"]
    text = re.sub(r"<[^>]+>", " ", shapes["Error"]["members"]["Code"]["documentation"])
    parts = re.split(r"(?<!Status )Code:\s+", text)[1:]
    found = {part.split()[0]: re.search(r"HTTP Status Code:\s+(\d{3})", part) for part in parts}
    return {
        code: int(status[1]) if status else 400 for code, status in found.items() if re.fullmatch(r"[A-Z]\w+", code)
    }


def test_every_documented_error_code_is_classified(source: S3Source) -> None:
    """Each documented code stands in the table above, with the expected error."""
    found = documented()
    told = {code: explained(source, s3_refusal(code, status)) for code, status in found.items()}
    decided = {code: kind for kind, codes in DOCUMENTED.items() for code in codes.split()}

    assert len(found) > 70
    assert {code: type(error) for code, error in told.items()} == decided
    assert [code for code, error in told.items() if not error.hint or not error.message.endswith(".")] == []


def test_not_found_error_names_the_requested_object(source: S3Source) -> None:
    """The message has the store's words, shortened."""
    assert "s3://b/k (AccessDenied: Because)" in explained(source, s3_refusal("AccessDenied", 403)).message
    assert "no bucket b." in explained(source, s3_refusal("NoSuchBucket", 404)).message
    assert len(explained(source, s3_refusal("AccessDenied", 403, message="x" * 10_000)).message) < 500


def test_refused_upload_names_the_write_permission(source: S3Source) -> None:
    """An upload needs another permission than a download."""
    assert "s3:PutObject" in explained(source, s3_refusal("AccessDenied", 403, "PutObject")).hint


def test_refused_kms_key_names_the_key_permission(source: S3Source) -> None:
    """S3 mentions KMS in the message alone."""
    said = "User: arn:aws:iam::1:role/r is not authorized to perform: kms:Decrypt on resource: x"

    assert "kms:Decrypt" in explained(source, s3_refusal("AccessDenied", 403, message=said)).hint


def test_object_under_a_customer_key_is_refused(source: S3Source) -> None:
    """Exit code 69: neither role nor endpoint is the cause."""
    said = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided."
    told = explained(source, s3_refusal("InvalidRequest", 400, message=said))

    assert type(told) is RefusedError
    assert "SSE-C" in told.hint


def test_wrong_region_error_names_the_right_region(source: S3Source) -> None:
    """The hint names the region if the store states one."""
    told = explained(source, s3_refusal("PermanentRedirect", 301, **{"x-amz-bucket-region": "eu-central-1"}))

    assert "eu-central-1" in told.hint


def test_deleted_object_is_distinguished_from_a_missing_one(source: S3Source) -> None:
    """Exit code 66, with the hint that an older version may exist."""
    told = explained(source, s3_refusal("NoSuchKey", 404, **{"x-amz-delete-marker": "true"}))

    assert type(told) is NotFoundError
    assert "deleted" in told.message
    assert "versionId" in told.hint


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_retry_after_of_the_store_is_kept(source: S3Source, value: str, seconds: float | None) -> None:
    """The wait is in seconds; dates are ignored."""
    for code in ("SlowDown", "SomethingNew"):
        told = explained(source, s3_refusal(code, 503, **{"retry-after": value}))
        assert isinstance(told, TransientError)
        assert told.retry_after == seconds


def test_invalid_version_id_is_not_found() -> None:
    """Some stores answer with status 400."""
    source = S3Source(parse_uri("s3://b/k?versionId=x"), S3Options(anonymous=True))

    assert isinstance(explained(source, s3_refusal("InvalidArgument", 400)), NotFoundError)


@pytest.mark.parametrize(
    ("error", "had", "kind", "said"),
    [
        (s3_refusal("AccessDenied", 403, "AssumeRoleWithWebIdentity"), True, CredentialsError, "role"),
        (s3_refusal("InvalidIdentityToken", 400, "AssumeRoleWithWebIdentity"), False, CredentialsError, "token"),
        (s3_refusal("Throttling", 400, "AssumeRole"), False, NoCredentialsError, "gives the credentials"),
        (s3_refusal("Throttling", 400, "AssumeRole"), True, TransientError, "gives the credentials"),
        (s3_refusal("SomethingNew", 500, "AssumeRole"), True, TransientError, "gives the credentials"),
        (sdk.EndpointConnectionError(endpoint_url="https://sts.invalid/"), True, TransientError, "gives"),
        (sdk.EndpointConnectionError(endpoint_url="https://sts.invalid/"), False, NoCredentialsError, "gives"),
        (sdk.UnauthorizedSSOTokenError(), True, NoCredentialsError, "profile"),
        (sdk.ParamValidationError(report="RoleArn"), False, ConfigError, "AWS_ROLE_ARN"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_error_of_sts_is_not_reported_as_the_store_s(
    error: Exception, had: object, kind: type[ModelfetchError], said: str
) -> None:
    """A refused role is no refused object; a busy token service is transient."""
    told = s3_errors.explain_credentials_failure(error, 30.0, had_credentials=bool(had))

    assert type(told) is kind
    assert said in told.hint
    assert "s3://" not in told.message
    if isinstance(error, sdk.EndpointConnectionError):
        assert "sts.invalid" in told.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sdk.ProxyConnectionError(proxy_url="http://socks5://me:s3cr3t@p"), TransientError),
        (ValueError("Invalid endpoint: http://me:s3cr3t@p:port"), ConfigError),
        (sdk.SSLError(endpoint_url="https://h", error=OSError("x")), TransientError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_sdk_failure_is_explained_without_secrets(
    source: S3Source, error: Exception, kind: type[ModelfetchError]
) -> None:
    """Addresses in the SDK's messages may hold secrets."""
    told = explained(source, error)

    assert type(told) is kind
    assert "s3cr3t" not in f"{told.message} {told.hint}"

"""Whatever botocore raises becomes one of our failures: with the right code, a plain message and a next step."""

import inspect
import string
from functools import cache
from typing import Any

import botocore.exceptions as sdk
import pytest
from botocore.parsers import ResponseParserError

from modelfetch.errors import (
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
from modelfetch.sources import Access
from modelfetch.sources.s3 import S3Source
from modelfetch.uri import parse


@cache
def _source() -> S3Source:
    return S3Source(parse("s3://b/k"), Access(anonymous=True, endpoint="http://store.invalid:9000"))


@pytest.fixture
def source() -> S3Source:
    """A source that is never asked anything."""
    return _source()


def explained(source: S3Source, error: Exception) -> ModelfetchError:
    """What becomes of an SDK's error."""
    with pytest.raises(ModelfetchError) as caught, source._explained("k"):
        raise error
    return caught.value


def refusal(code: str, status: int, operation: str = "GetObject", **headers: str) -> sdk.ClientError:
    """A reply as botocore raises it."""
    reply: Any = {
        "Error": {"Code": code, "Message": "Because."},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return sdk.ClientError(reply, operation)


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
        ("XMinioServerNotInitialized", 503, TransientError, "later"),
        ("SomethingNew", 502, TransientError, "later"),
        ("SomethingNew", 403, CredentialsError, "credentials"),
        ("SomethingNew", 418, RefusedError, "endpoint"),
        ("", 400, RefusedError, "endpoint"),
        ("PreconditionFailed", 412, TransientError, "again"),
        ("InvalidObjectState", 403, RefusedError, "restore"),
        ("PermanentRedirect", 301, RefusedError, "AWS_REGION"),
        ("AuthorizationHeaderMalformed", 400, RefusedError, "AWS_REGION"),
        ("BadDigest", 400, MismatchError, "alters bytes"),
    ],
)
def test_a_refusal_is_told_by_its_code(
    source: S3Source, code: str, status: int, kind: type[ModelfetchError], hint: str
) -> None:
    """The store's own word first, then the status."""
    told = explained(source, refusal(code, status))

    assert isinstance(told, kind)
    assert told.code == kind.code
    assert hint in told.hint


def test_what_was_asked_for_is_named(source: S3Source) -> None:
    """With the store's words."""
    assert "s3://b/k (AccessDenied: Because)" in explained(source, refusal("AccessDenied", 403)).message
    assert "no bucket b." in explained(source, refusal("NoSuchBucket", 404)).message


def test_a_refused_upload_needs_another_permission(source: S3Source) -> None:
    """Than a download."""
    assert "s3:PutObject" in explained(source, refusal("AccessDenied", 403, "PutObject")).hint


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_the_wait_that_the_store_asks_for_is_kept(source: S3Source, value: str, seconds: float | None) -> None:
    """In seconds; dates count as none."""
    told = explained(source, refusal("SlowDown", 503, **{"retry-after": value}))

    assert isinstance(told, TransientError)
    assert told.retry_after == seconds


def test_a_version_that_the_store_cannot_read_is_not_found() -> None:
    """Some answer 400."""
    source = S3Source(parse("s3://b/k?versionId=x"), Access(anonymous=True))

    assert isinstance(explained(source, refusal("InvalidArgument", 400)), NotFoundError)


def made(kind: type[Exception]) -> Exception:
    """One of botocore's errors, with something for each field of its text."""
    if issubclass(kind, sdk.ClientError):
        return kind({"Error": {"Code": "SomethingNew"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "X")  # type: ignore[typeddict-item]
    fields = {name.split(".")[0] for _, name, _, _ in string.Formatter().parse(getattr(kind, "fmt", "")) if name}
    if kind is sdk.WaiterError:
        return kind("w", "because", {})
    return kind(**dict.fromkeys(fields, "x"))


ALL = [
    kind
    for _, kind in inspect.getmembers(sdk, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == sdk.__name__ and not issubclass(kind, Warning)
]
KINDS = [kind for kind in ALL if issubclass(kind, sdk.BotoCoreError | sdk.ClientError)]


def test_botocores_errors_are_all_there() -> None:
    """All but those of an SDK whose own files are broken."""
    assert {kind.__name__ for kind in set(ALL) - set(KINDS)} == {
        "MissingServiceIdError",
        "UndefinedModelAttributeError",
    }
    assert len(KINDS) > 60


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_of_the_sdk_is_a_bug(source: S3Source, kind: type[Exception]) -> None:
    """Each has one line and a next step, those of versions to come too."""
    told = explained(source, made(kind))

    assert told.hint
    assert told.code not in (0, 70)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sdk.NoCredentialsError(), NoCredentialsError),
        (sdk.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), NoCredentialsError),
        (sdk.CredentialRetrievalError(provider="p", error_msg="x"), NoCredentialsError),
        (sdk.UnauthorizedSSOTokenError(), NoCredentialsError),
        (sdk.ProfileNotFound(profile="p"), ConfigError),
        (sdk.ConfigParseError(path="/c"), ConfigError),
        (sdk.NoRegionError(), ConfigError),
        (sdk.EndpointConnectionError(endpoint_url="http://h"), TransientError),
        (sdk.ConnectTimeoutError(endpoint_url="http://h"), TransientError),
        (sdk.ReadTimeoutError(endpoint_url="http://h"), TransientError),
        (sdk.ConnectionClosedError(endpoint_url="http://h"), TransientError),
        (sdk.ProxyConnectionError(proxy_url="http://me:s3cr3t@p"), TransientError),
        (sdk.SSLError(endpoint_url="https://h", error=OSError("x")), TransientError),
        (sdk.IncompleteReadError(actual_bytes=1, expected_bytes=2), TransientError),
        (sdk.ParamValidationError(report="x"), UsageError),
        (ValueError("Invalid endpoint: x"), ConfigError),
        (ResponseParserError("no XML"), RefusedError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_sdk_could_not_do_is_told_by_its_cause(
    source: S3Source, error: Exception, kind: type[ModelfetchError]
) -> None:
    """Credentials, configuration, network, or something that is no S3; no secrets."""
    told = explained(source, error)

    assert type(told) is kind
    assert "s3cr3t" not in f"{told.message} {told.hint}"

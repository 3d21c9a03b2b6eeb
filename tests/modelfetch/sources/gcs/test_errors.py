"""Every response of Google Cloud Storage and of token issuers becomes an error of `errors.py`."""

from functools import cache
from typing import Any

import pytest
import requests
from google.api_core import exceptions as google_api
from google.auth import exceptions as google_auth

from modelfetch.errors import (
    ChangedError,
    ConfigError,
    CredentialsError,
    ModelfetchError,
    NoCredentialsError,
    NotFoundError,
    RefusedError,
    TransientError,
    UsageError,
)
from modelfetch.sources import parse_uri
from modelfetch.sources.gcs import errors as gcs_errors
from modelfetch.sources.gcs.source import GCSSource
from modelfetch.sources.gcs.spec import GCSOptions
from testkit.library_errors import SECRET, google_response

api: Any = google_api  # neither is typed to the end
auth: Any = google_auth


@cache
def _source() -> GCSSource:
    return GCSSource(parse_uri("gs://b/o"), GCSOptions(emulator="http://store.invalid:4443"))


@pytest.fixture
def source() -> GCSSource:
    """A source that is never asked anything."""
    return _source()


def explained(source: GCSSource, error: Exception) -> ModelfetchError:
    """What becomes of an SDK's error."""
    with pytest.raises(ModelfetchError) as caught, source._explain_sdk_errors("o"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, CredentialsError, "Storage Object Viewer"),
        (403, CredentialsError, "Storage Object Viewer"),
        (404, NotFoundError, "no bucket b"),
        (412, ChangedError, "replaced"),
        (416, ChangedError, "replaced"),
        (408, TransientError, "later"),
        (429, TransientError, "later"),
        (500, TransientError, "later"),
        (503, TransientError, "later"),
        (400, RefusedError, "Because"),
        (501, RefusedError, "Because"),
    ],
)
def test_refusal_is_explained_by_its_status(
    source: GCSSource, status: int, kind: type[ModelfetchError], said: str
) -> None:
    """The message has the store's words, without the address."""
    told = explained(source, api.from_http_response(google_response(status, **{"Retry-After": "7"})))

    assert isinstance(told, kind)
    assert told.code == kind.code
    assert said in f"{told.message} {told.hint}"
    assert SECRET not in told.message
    if type(told) is TransientError:
        assert told.retry_after == 7


@pytest.mark.parametrize(
    ("status", "reason", "message", "kind", "hint"),
    [
        (403, "rateLimitExceeded", "Too fast.", TransientError, "later"),
        (403, "userRateLimitExceeded", "Too fast.", TransientError, "later"),
        (429, "rateLimitExceeded", "Too fast.", TransientError, "later"),
        (400, "userProjectMissing", "Bucket is a requester pays bucket.", RefusedError, "GOOGLE_CLOUD_QUOTA_PROJECT"),
        (400, "required", "Bucket is a requester pays bucket.", RefusedError, "GOOGLE_CLOUD_QUOTA_PROJECT"),
        (403, "accountDisabled", "The account is disabled.", RefusedError, "billing"),
        (403, "forbidden", "The billing account for the owning project is disabled.", RefusedError, "billing"),
        (403, "accessNotConfigured", "Not enabled.", RefusedError, "API"),
        (400, "resourceIsEncryptedWithCustomerEncryptionKey", "Encrypted.", RefusedError, "Cloud KMS"),
        (403, "forbidden", "Permission denied on Cloud KMS key.", CredentialsError, "CryptoKey"),
        (403, "forbidden", "x does not have storage.objects.get access.", CredentialsError, "Viewer"),
    ],
)
@pytest.mark.parametrize("kept_by", ["api", "uploads"])
def test_refusal_is_explained_by_its_stated_reason(
    source: GCSSource, status: int, reason: str, message: str, kind: type[ModelfetchError], hint: str, kept_by: str
) -> None:
    """A quota recovers, a missing payment does not; uploads state the reason in the response alone."""
    response = google_response(status, message, reason)
    error = (
        api.from_http_response(response)
        if kept_by == "api"
        else api.from_http_status(status, "POST https://h/", response=response)
    )

    told = explained(source, error)

    assert type(told) is kind
    assert hint in told.hint


def test_invalid_generation_is_not_found() -> None:
    """Some stores answer with status 400."""
    source = GCSSource(parse_uri("gs://b/o#12345"), GCSOptions(emulator="http://store.invalid:4443"))

    assert type(explained(source, api.from_http_response(google_response(400)))) is NotFoundError


@pytest.mark.parametrize("generation", [str(2**63), "9" * 5000])
def test_generation_beyond_64_bits_is_not_found_without_a_request(generation: str) -> None:
    """Exit code 66; the SDK could not convert the number."""
    source = GCSSource(parse_uri(f"gs://b/o#{generation}"), GCSOptions(emulator="http://store.invalid:4443"))

    with pytest.raises(NotFoundError):
        source.resolve()


def test_impossible_bucket_name_is_a_usage_error() -> None:
    """Exit code 2, or 78 from the environment."""
    source = GCSSource(parse_uri("gs://-b-/o"), GCSOptions(emulator="http://store.invalid:4443"))

    with pytest.raises(UsageError, match="does not take this name"):
        source.resolve()


def closed() -> requests.ConnectionError:
    """As requests raises it, with the address that was asked for."""
    return requests.ConnectionError("refused", request=requests.Request("POST", "https://issuer.invalid/t").prepare())


def of_the_network(kind: Any) -> Exception:
    """As google-auth wraps what its transport meets."""
    error: Exception = kind("wrapped")
    error.__cause__ = closed()
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (auth.DefaultCredentialsError("Your default credentials were not found. To"), NoCredentialsError, "No Google"),
        (auth.DefaultCredentialsError("File /keys/a.json was not found."), NoCredentialsError, "/keys/a.json"),
        (auth.DefaultCredentialsError("File /keys/a is not a valid json file."), NoCredentialsError, "not a valid"),
        (auth.RefreshError("invalid_grant", {"x": 1}), CredentialsError, "refuses these credentials: invalid_grant"),
        (auth.RefreshError("File '/token' was not found."), NoCredentialsError, "/token"),
        (auth.RefreshError("metadata", retryable=True), NoCredentialsError, "metadata"),
        (of_the_network(auth.TransportError), NoCredentialsError, "issuer.invalid"),
        (of_the_network(auth.RefreshError), NoCredentialsError, "issuer.invalid"),
        (auth.InvalidOperation("anonymous"), CredentialsError, "refuses"),
        (api.RetryError("x", requests.ConnectionError("y")), TransientError, "store.invalid"),
        (api.RetryError("x", None), TransientError, "store.invalid"),
        (ValueError("project"), ConfigError, "project"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_sdk_failure_is_explained_by_its_cause(
    source: GCSSource, error: Exception, kind: type[ModelfetchError], said: str
) -> None:
    """The message names a missing key file, or a server that does not answer."""
    told = explained(source, error)

    assert type(told) is kind
    assert said in told.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (of_the_network(auth.RefreshError), TransientError),
        (auth.RefreshError("metadata", retryable=True), TransientError),
        (auth.RefreshError("invalid_grant", {"error": "invalid_grant"}), CredentialsError),
        (auth.ReauthFailError("x"), CredentialsError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_issuer_outage_is_transient_once_credentials_were_read(error: Exception, kind: type[ModelfetchError]) -> None:
    """Exit code 75 after a first token, unless the issuer itself refuses."""
    assert type(gcs_errors.explain_credentials_failure(error, 30.0, had_credentials=True)) is kind

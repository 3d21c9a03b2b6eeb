"""Whatever Google's libraries raise becomes one of our failures."""

import inspect
import json
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
)
from modelfetch.sources import Access
from modelfetch.sources.gcs import GCSSource
from modelfetch.uri import parse

api: Any = google_api  # neither is typed to the end
auth: Any = google_auth


@cache
def _source() -> GCSSource:
    return GCSSource(parse("gs://b/o"), Access(emulator="http://store.invalid:4443"))


@pytest.fixture
def source() -> GCSSource:
    """A source that is never asked anything."""
    return _source()


def explained(source: GCSSource, error: Exception) -> ModelfetchError:
    """What becomes of an SDK's error."""
    with pytest.raises(ModelfetchError) as caught, source._explained("o"):
        raise error
    return caught.value


def reply(status: int, message: str = "Because.", **headers: str) -> requests.Response:
    """A reply as the SDK keeps it."""
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    response._content = json.dumps({"error": {"message": message}}).encode()
    response.request = requests.Request("GET", "http://store.invalid/o?secret=s3cr3t").prepare()
    return response


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, CredentialsError, "Storage Object Viewer"),
        (403, CredentialsError, "Storage Object Viewer"),
        (404, NotFoundError, "no bucket b"),
        (412, ChangedError, "replaced"),
        (408, TransientError, "later"),
        (429, TransientError, "later"),
        (500, TransientError, "later"),
        (503, TransientError, "later"),
        (400, RefusedError, "Because"),
        (416, RefusedError, "Because"),
        (501, RefusedError, "Because"),
    ],
)
def test_a_refusal_is_told_by_its_status(
    source: GCSSource, status: int, kind: type[ModelfetchError], said: str
) -> None:
    """With the store's words, without the address."""
    told = explained(source, api.from_http_response(reply(status, **{"Retry-After": "7"})))

    assert isinstance(told, kind)
    assert told.code == kind.code
    assert said in f"{told.message} {told.hint}"
    assert "s3cr3t" not in told.message
    if isinstance(told, TransientError) and status != 412:
        assert told.retry_after == 7


def is_error(kind: Any) -> bool:
    """Whether it is one of the libraries' own errors."""
    return inspect.isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, Warning)


CALLS = [kind for kind in vars(api).values() if is_error(kind) and issubclass(kind, api.GoogleAPICallError)]
AUTH = [kind for kind in vars(auth).values() if is_error(kind)]


@pytest.mark.parametrize("kind", CALLS)
def test_no_reply_is_a_bug(source: GCSSource, kind: Any) -> None:
    """Each has one line and a next step."""
    told = explained(source, kind("GET http://store.invalid/o?secret=s3cr3t: no"))

    assert told.hint
    assert told.code != 70
    assert "s3cr3t" not in told.message


@pytest.mark.parametrize("retryable", [False, True])
@pytest.mark.parametrize("kind", AUTH)
def test_no_trouble_with_credentials_is_a_bug(source: GCSSource, kind: Any, retryable: Any) -> None:
    """77, whatever it is."""
    try:
        error = kind("no", retryable=retryable)
    except TypeError:
        error = kind("no")

    told = explained(source, error)

    assert isinstance(told, CredentialsError)
    assert told.hint


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            auth.DefaultCredentialsError("Your default credentials were not found. To set up"),
            NoCredentialsError,
            "No Google",
        ),
        (auth.DefaultCredentialsError("File /keys/a.json was not found."), NoCredentialsError, "/keys/a.json"),
        (
            auth.DefaultCredentialsError("File /keys/a.json is not a valid json file."),
            NoCredentialsError,
            "not a valid",
        ),
        (auth.RefreshError("invalid_grant", {"x": 1}), CredentialsError, "invalid_grant"),
        (auth.RefreshError("metadata", retryable=True), NoCredentialsError, "metadata"),
        (auth.TransportError("metadata", retryable=True), NoCredentialsError, "metadata"),
        (auth.InvalidOperation("anonymous"), CredentialsError, "refuses"),
        (auth.TransportError("metadata"), NoCredentialsError, "metadata"),
        (api.RetryError("x", requests.ConnectionError("y")), TransientError, "store.invalid"),
        (api.RetryError("x", None), TransientError, "store.invalid"),
        (requests.ConnectionError("x"), TransientError, "store.invalid"),
        (requests.ReadTimeout("x"), TransientError, "no byte"),
        (requests.exceptions.ChunkedEncodingError("x"), TransientError, "broke"),
        (requests.TooManyRedirects("x"), RefusedError, "redirects in a loop"),
        (OSError(5, "x"), TransientError, "store.invalid"),
        (ValueError("project"), ConfigError, "project"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_sdk_could_not_do_is_told_by_its_cause(
    source: GCSSource, error: Exception, kind: type[ModelfetchError], said: str
) -> None:
    """A key file that is not there is named."""
    told = explained(source, error)

    assert type(told) is kind
    assert said in told.message

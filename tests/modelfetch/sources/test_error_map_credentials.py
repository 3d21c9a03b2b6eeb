"""Every failure of the search for credentials is a credentials error."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import botocore.exceptions
import botocore.parsers
import botocore.session
import google.auth.exceptions
import google.cloud.storage.exceptions
import pytest

from modelfetch.errors import ConfigError, CredentialsError, ModelfetchError, NoCredentialsError, TransientError
from testkit.error_assertions import assert_error_contract, gcs_source, s3_source, translate_error
from testkit.library_errors import find_exceptions, make_error


def fails_to_issue(error: Exception, *, had: bool) -> ModelfetchError:
    """Return the error for an exception raised by the search for AWS credentials."""

    def fail() -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_source(), "_had_credentials", had)  # other tests use the same source
        with pytest.raises(ModelfetchError) as caught:
            s3_source()._read_credentials(cast("botocore.session.Session", SimpleNamespace(get_credentials=fail)))
    return caught.value


def fails_to_issue_google(error: Exception, *, had: bool) -> ModelfetchError:
    """Return the error for an exception raised by the search for Google credentials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_source(), "_had_credentials", had)
        return translate_error(error, gcs_source()._explain_credential_errors)


CARELESS = [
    FileNotFoundError(2, "x"), PermissionError(13, "x"), IsADirectoryError(21, "x"), KeyError("x"),
    AttributeError("x"), TypeError("x"), ValueError("x"), RuntimeError("still expired"),
    json.JSONDecodeError("x", "y", 0), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
]  # fmt: skip


@pytest.mark.parametrize("error", CARELESS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("issuing", [fails_to_issue, fails_to_issue_google], ids=["aws", "google"])
def test_missing_credentials_are_never_a_bug(issuing: Callable[..., ModelfetchError], error: Exception) -> None:
    """A missing program, a truncated file or a malformed response: 77, or 75 midway."""
    assert_error_contract(issuing(error, had=False), NoCredentialsError)
    assert_error_contract(issuing(error, had=True), TransientError)


ABOUT_BUCKETS = {
    *("InvalidDNSNameError", "PaginationError", "ParamValidationError"),
    *("UnsupportedOutpostResourceError", "UnsupportedS3ArnError"),
}


@pytest.mark.parametrize("had", [False, True])
def test_every_credential_error_of_boto3_is_classified(had: object) -> None:
    """Exit code 77 or 78, or 75 once credentials were read; never an error about the store."""
    allowed = (NoCredentialsError, CredentialsError, ConfigError, *((TransientError,) if had else ()))
    kinds = find_exceptions(botocore.exceptions).items()
    told = {name: fails_to_issue(make_error(kind), had=bool(had)) for name, kind in kinds if name not in ABOUT_BUCKETS}

    assert {name: error for name, error in told.items() if type(error) not in allowed or not error.hint} == {}


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("retryable", [False, True])
def test_every_credential_error_of_google_auth_is_classified(retryable: object, had: object) -> None:
    """Exit code 77 or 78, or 75 once credentials were read."""
    allowed = (NoCredentialsError, CredentialsError, *((TransientError,) if had else ()))
    told = {}
    for name, kind in cast("dict[str, Any]", find_exceptions(google.auth.exceptions)).items():
        try:
            error = kind("x", retryable=bool(retryable))
        except TypeError:
            error = kind("x")
        told[name] = fails_to_issue_google(error, had=bool(had))

    assert {name: error for name, error in told.items() if type(error) not in allowed or not error.hint} == {}


def test_request_for_a_one_time_code_is_a_credentials_error() -> None:
    """Exit code 77: an init container has no keyboard."""
    told = fails_to_issue(EOFError(), had=True)

    assert_error_contract(told, NoCredentialsError)
    assert "MFA" in told.message

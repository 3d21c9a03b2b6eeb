"""Map errors of Google Cloud Storage, the SDK and the token issuers to `ModelfetchError`s."""

import contextlib
import io
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from urllib3.exceptions import HTTPError

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
from modelfetch.net.network_errors import error_text, explain_network_error, host_of
from modelfetch.sources.base import error_for_status, parse_retry_after
from modelfetch.uri import show_address

RESPONSE_ERRORS = api.GoogleAPICallError  # an error response parsed by the SDK
# Other failures of a request.
SDK_FAILURES = (
    auth.GoogleAuthError, api.RetryError, InvalidResponse, DataCorruption, HTTPError, HTTPException, OSError,
    ValueError,
)  # fmt: skip

HINT_WRITE = (
    "Allow storage.objects.create, .delete (to replace), .get and .list (role Storage Object User) to this identity."
)
HINT_READ = "Allow storage.objects.get and storage.objects.list (role Storage Object Viewer) to this identity."
HINT_NO_CREDENTIALS = (
    "Use workload identity, set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`;"
    " for a public bucket, --anonymous."
)
_HINT_ISSUER = "Is the metadata server or token endpoint up?"
_HINT_KMS = "Allow the bucket's service agent to use the key (role Cloud KMS CryptoKey Encrypter/Decrypter)."

# Reasons of statuses 400 and 403: https://cloud.google.com/storage/docs/json_api/v1/status-codes
_RATE_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "dailyLimitExceeded"}
_PERMANENT_HINTS = {
    "userProjectMissing": "The bucket's readers pay: set GOOGLE_CLOUD_QUOTA_PROJECT to the project that does.",
    "accountDisabled": "Enable billing for the bucket's project.",
    "billingDisabled": "Enable billing for the bucket's project.",
    "billingNotEnabled": "Enable billing for the bucket's project.",
    "accessNotConfigured": "Enable the Cloud Storage JSON API in the project.",
    "SERVICE_DISABLED": "Enable the Cloud Storage JSON API in the project.",
    **dict.fromkeys(
        ("customerEncryptionKeyIsIncorrect", "resourceIsEncryptedWithCustomerEncryptionKey"),
        "It is encrypted with a customer-supplied key, which modelfetch does not take: store it with a Cloud KMS key.",
    ),
}


def make_sdk_error(status: int, headers: Mapping[str, str], body: bytes, url: str) -> api.GoogleAPICallError:
    """Return an error response as the exception of the SDK."""
    response = requests.Response()
    response.status_code, response.raw = status, io.BytesIO(body)
    response.headers.update(headers)
    response.request = requests.Request("GET", url).prepare()
    from_response: Any = api.from_http_response  # untyped
    error: api.GoogleAPICallError = from_response(response)
    return error


def explain_response(
    error: api.GoogleAPICallError, address: str, denied_hint: str, version: str | None = None
) -> ModelfetchError:
    """Return the error for a response parsed by the SDK: by the stated reason, else by HTTP status.

    Args:
        error: exception raised by the SDK.
        address: address of the object.
        denied_hint: hint for missing permissions.
        version: requested generation; None for the newest.
    """
    status, reason, detail = _response_status(error), _response_reason(error), _response_detail(error)
    wait = parse_retry_after(error.response.headers.get("retry-after") if error.response is not None else None)
    if status in (400, 403) and reason in _RATE_REASONS:
        return error_for_status(429, address, detail, wait=wait)
    if status in (400, 403) and (hint := _permanent_hint(reason, detail)):
        return RefusedError(f"Google Cloud Storage refuses {address} ({detail}).", hint=hint)
    if status == 404:
        # A missing object is no error to the SDK, but None.
        return NotFoundError(f"There is no bucket {address.split('/')[2]}.", hint="Check its name, and the project's.")
    if status == 400 and version:
        return NotFoundError(
            f"There is no {show_address(address)} of generation {version} ({detail}).",
            hint="`modelfetch inspect` shows the current one.",
        )
    if status in (401, 403):
        hint = _HINT_KMS if "kms" in detail.lower() else denied_hint
        return CredentialsError(f"Access denied to {address} ({detail}).", hint=hint)
    return error_for_status(status, address, detail, wait=wait)


def _response_status(error: api.GoogleAPICallError) -> int:
    """Return the HTTP status; without a response, 500 or 400 by exception class."""
    return int(error.code or (500 if isinstance(error, api.ServerError) else 400))


def _permanent_hint(reason: str, detail: str) -> str | None:
    """Return the hint for a refusal that neither a retry nor a role will change, else None."""
    if "billing account" in detail.lower():
        reason = "billingDisabled"
    elif "requester pays" in detail.lower():
        reason = "userProjectMissing"
    return _PERMANENT_HINTS.get(reason)


def _response_reason(error: api.GoogleAPICallError) -> str:
    """Return the machine-readable reason in the response body, else the HTTP reason."""
    for entry in (_first_error(error), *(d for d in error.details or () if isinstance(d, dict))):
        if entry.get("reason"):
            return str(entry["reason"])
    return str(error.reason or "")


def _first_error(error: api.GoogleAPICallError) -> dict[str, Any]:
    first = error.errors[0] if error.errors else None
    if first is None and error.response is not None:  # uploads of the SDK leave the error in the body
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            body = error.response.json()["error"]
            first = body["errors"][0] if body.get("errors") else body
    return first if isinstance(first, dict) else {}


def _response_detail(error: api.GoogleAPICallError) -> str:
    """Return the server's message in one line; the SDK's own text shows the whole URL."""
    text = str(_first_error(error).get("message", ""))
    return " ".join((text or type(error).__name__).split())[:300].rstrip(".")


def explain_sdk_failure(
    error: Exception, host: str, stall_timeout: float, *, had_credentials: bool = False
) -> ModelfetchError:
    """Return the error for a request that failed in the SDK, or a response that the SDK could not parse.

    Args:
        error: exception raised by the SDK.
        host: host name of the endpoint.
        stall_timeout: seconds without a byte after which the SDK gave up.
        had_credentials: whether credentials were available before.
    """
    match error:
        case auth.InvalidOperation():  # anonymous credentials, which the SDK tried to refresh after a 401
            return anonymous_denied_error(host)
        case auth.GoogleAuthError():
            return explain_credentials_failure(error, stall_timeout, had_credentials=had_credentials)
        case InvalidResponse():
            return error_for_status(error.response.status_code, host)
        case api.RetryError() if isinstance(error.cause, Exception):
            return explain_sdk_failure(error.cause, host, stall_timeout, had_credentials=had_credentials)
        case DataCorruption():
            return MismatchError(
                f"What {host} sent is not what it says it sent.", hint="Something on the way alters bytes."
            )
        case requests.exceptions.InvalidJSONError():
            return unexpected_answer_error(host)
        case requests.RequestException() | HTTPError() | HTTPException() | OSError() | api.RetryError():
            return explain_network_error(error, host, stall_timeout)
        case _ if "Bucket names must" in str(error):
            return UsageError(
                f"Google Cloud Storage does not take this name: {error_text(error)}.", hint="Check the bucket."
            )
        case _:
            return ConfigError(
                f"The Google Cloud configuration makes no sense: {error_text(error)}.",
                hint="Check GOOGLE_* and STORAGE_EMULATOR_HOST.",
            )


def anonymous_denied_error(host: str) -> ModelfetchError:
    """Return the error for a store that refuses anonymous requests."""
    return CredentialsError(f"{host} refuses requests without credentials.", hint=HINT_NO_CREDENTIALS)


def unexpected_answer_error(host: str) -> ModelfetchError:
    """Return the error for a response that violates the protocol of Google Cloud Storage."""
    return RefusedError(
        f"{host} does not answer as Google Cloud Storage does.", hint="Check the endpoint (STORAGE_EMULATOR_HOST)."
    )


def _innermost_error(error: object) -> object:
    """Return the innermost message of nested google-auth errors."""
    while isinstance(error, auth.GoogleAuthError) and error.args:
        error = error.args[0]
    return error


def explain_credentials_failure(error: Exception, stall_timeout: float, *, had_credentials: bool) -> ModelfetchError:
    """Return the error for any exception raised while credentials are read from a file or a server.

    Recoverable failures are transient once credentials were available (`had_credentials`): a long pull survives a short
    outage of the issuer.
    """
    text = error_text(_innermost_error(error))
    if isinstance(error, auth.DefaultCredentialsError):
        if "default credentials were not found" in text:
            return NoCredentialsError("No Google credentials were found.", hint=HINT_NO_CREDENTIALS)
        return NoCredentialsError(f"Google credentials cannot be used: {text}.", hint=HINT_NO_CREDENTIALS)
    refused_by_issuer = isinstance(error, auth.RefreshError) and len(error.args) > 1 and not error.retryable
    if refused_by_issuer or isinstance(error, auth.ReauthFailError):
        return CredentialsError(f"Google refuses these credentials: {text}.", hint=HINT_NO_CREDENTIALS)
    cause = next((one for one in (error, error.__cause__) if isinstance(one, requests.RequestException)), None)
    if cause is not None:
        host = host_of(str(getattr(cause.request, "url", "")), or_else="the issuer of Google's tokens")
        explained = explain_network_error(cause, host, stall_timeout)
        if not isinstance(explained, TransientError):
            return explained
        text = explained.message.rstrip(".")
    known = isinstance(error, auth.GoogleAuthError | OSError | ValueError)
    reason = text if known and text else f"{type(error).__name__} ({text})"
    kind = TransientError if had_credentials else NoCredentialsError
    hint = _HINT_ISSUER if cause is not None or getattr(error, "retryable", False) else HINT_NO_CREDENTIALS
    return kind(f"Google credentials could not be had: {reason}.", hint=hint)

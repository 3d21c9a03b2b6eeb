"""Map S3 error codes, botocore exceptions and credential provider failures to `ModelfetchError`s."""

from http.client import HTTPException
from json import JSONDecodeError
from typing import NamedTuple

import botocore.exceptions as sdk
from botocore.parsers import ResponseParserError
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

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and the codes of MinIO and Ceph
_NOT_FOUND_CODES = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NoSuchAccessPoint", "NotFound", "404"}
_TRANSIENT_CODES = {
    "SlowDown", "SlowDownRead", "SlowDownWrite", "ServerBusy", "ServiceUnavailable", "InternalError",
    "InternalFailure", "RequestTimeout", "RequestTimeoutException", "Throttling", "ThrottlingException",
    "TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "ConditionalRequestConflict", "OperationAborted", "IncompleteBody", "NoSuchUpload", "TemporaryRedirect",
    "IDPCommunicationError", "XMinioBackendDown", "XMinioServerNotInitialized",
}  # fmt: skip
_CREDENTIALS_CODES = {
    "401", "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "AuthFailure", "CredentialsNotSupported",
    "ExpiredToken", "ExpiredTokenException", "Forbidden", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidIdentityToken", "InvalidPayer", "InvalidSecurity", "InvalidToken", "InvalidTokenId", "NotSignedUp",
    "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
    "UnrecognizedClientException", "UserSuspended",
}  # fmt: skip
_NAME_CODES = {
    "InvalidBucketName", "InvalidURI", "KeyTooLong", "KeyTooLongError", "XMinioInvalidObjectName",
    "XMinioInvalidResourceName",
}  # fmt: skip
_MISMATCH_CODES = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
_WRITE_OPERATIONS = {"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}

_CREDENTIALS_ERRORS = (
    sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError, sdk.MetadataRetrievalError,
    sdk.InvalidIMDSEndpointError, sdk.NoAuthTokenError, sdk.TokenRetrievalError, sdk.SSOError, sdk.LoginError,
    sdk.RefreshWithMFAUnsupportedError,
)  # fmt: skip
_LOGIN_ERRORS = (sdk.SSOError, sdk.LoginError, sdk.TokenRetrievalError, sdk.RefreshWithMFAUnsupportedError, EOFError)
_NETWORK_ERRORS = (
    sdk.ConnectionError, sdk.HTTPClientError, sdk.IncompleteReadError, sdk.ChecksumError, sdk.FlexibleChecksumError,
    sdk.CapacityNotAvailableError, sdk.UnseekableStreamError, sdk.AwsChunkedWrapperError, HTTPError, HTTPException,
)  # fmt: skip
_NAME_ERRORS = (
    sdk.ParamValidationError, sdk.InvalidDNSNameError, sdk.UnsupportedS3ArnError, sdk.UnsupportedOutpostResourceError,
)  # fmt: skip
# Failures of a request other than `ClientError`, the SDK's exception for a parsed error response.
SDK_FAILURES = (sdk.BotoCoreError, ResponseParserError, HTTPError, HTTPException, ValueError)

_HINT_READ = (
    "Allow s3:GetObject on the object and s3:ListBucket on the bucket; without the latter a missing object looks like"
    " this too."
)
_HINT_WRITE = "Allow s3:PutObject and s3:GetObject on the objects and s3:ListBucket on the bucket."
_HINT_KMS = "Allow kms:Decrypt (to push, kms:GenerateDataKey too) on the key that the object is encrypted with."
_HINT_ROLE = "Check the role (AWS_ROLE_ARN, the profile's role_arn), who may assume it, and the token it is asked with."
_HINT_SSE_C = (
    "It is encrypted with a customer-provided key (SSE-C), which modelfetch does not take: store it with SSE-S3 or"
    " SSE-KMS."
)
_HINT_REGION = "Set AWS_REGION to the bucket's region"
HINT_NO_SUCH_KEY = "Check the path; `modelfetch inspect` lists what is there."
_HINTS = {
    "NoSuchBucket": "Check the bucket's name, the region (AWS_REGION) and the endpoint (AWS_ENDPOINT_URL_S3).",
    "NoSuchKey": HINT_NO_SUCH_KEY,
    "NoSuchVersion": "Check the versionId; `modelfetch inspect` shows the current one.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID; is it of this store?",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY: a character or a line break too many is enough.",
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired"),
        "Renew AWS_SESSION_TOKEN, or log in again; unset it if the keys need none.",
    ),
    "RequestTimeTooSkewed": "Set this machine's clock.",
    **dict.fromkeys(
        ("InvalidObjectState", "ObjectNotInActiveTierError"),
        "The object is archived: restore it first (aws s3api restore-object), or store it in another class.",
    ),
    "NoSuchUpload": "Push again: the upload was ended from elsewhere.",
    "XMinioInsecureClientRequest": _HINT_SSE_C,
    "XMinioStorageFull": "Free space in the store.",
    "XMinioAdminBucketQuotaExceeded": "Raise the bucket's quota, or delete old models.",
}


class ServiceReply(NamedTuple):
    """An error response parsed by the SDK: S3 code and message, HTTP status, headers, region and operation."""

    code: str
    detail: str
    status: int
    headers: dict[str, str]
    region: str
    operation: str

    @property
    def reported(self) -> str:
        """Return code and message as the store reported them."""
        return f"{self.code}: {self.detail}" if self.detail else self.code


def _parse_reply(error: sdk.ClientError) -> ServiceReply:
    body, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    headers = dict(meta.get("HTTPHeaders", {}))
    return ServiceReply(
        code=str(body.get("Code", "")),
        detail=" ".join(str(body.get("Message") or "").split())[:300].rstrip("."),
        status=int(meta.get("HTTPStatusCode", 0)),
        headers=headers,
        region=str(body.get("Region") or headers.get("x-amz-bucket-region", "")),
        operation=error.operation_name,
    )


def explain_response(error: sdk.ClientError, address: str, version: str | None) -> ModelfetchError:
    """Return the error for a response parsed by the SDK: by S3 error code, else by HTTP status.

    Args:
        error: exception raised by the SDK.
        address: address of the object.
        version: requested version id; None for the newest.
    """
    reply = _parse_reply(error)
    return (
        _explain_missing(reply, address, version)
        or _explain_denied(reply, address)
        or _explain_permanent(reply, address)
        or _explain_transient(reply, address)
        or error_for_status(
            reply.status, address, reply.reported, wait=parse_retry_after(reply.headers.get("retry-after"))
        )
    )


def _explain_missing(reply: ServiceReply, address: str, version: str | None) -> ModelfetchError | None:
    hint = _HINTS.get(reply.code, HINT_NO_SUCH_KEY)
    if reply.headers.get("x-amz-delete-marker") == "true":
        return NotFoundError(
            f"{address} was deleted.", hint="An older version may still be there: pin it by ?versionId=."
        )
    if version and reply.status == 400 and reply.code in {"InvalidArgument", "400", "BadRequest"}:
        return NotFoundError(
            f"There is no version {version!r} of {show_address(address)}.", hint=_HINTS["NoSuchVersion"]
        )
    if reply.code == "NoSuchBucket":
        return NotFoundError(f"There is no bucket {address.split('/')[2]}.", hint=hint)
    if reply.code in _NOT_FOUND_CODES:
        of_version = f" of version {version}" if version else ""
        return NotFoundError(f"There is no {show_address(address)}{of_version}.", hint=hint)
    return None


def _explain_denied(reply: ServiceReply, address: str) -> ModelfetchError | None:
    if reply.code not in _CREDENTIALS_CODES:
        return None
    hint = _HINTS.get(reply.code, "Check the credentials and what they may read.")
    if reply.code == "AccessDenied":
        hint = _HINT_WRITE if reply.operation in _WRITE_OPERATIONS else _HINT_READ
        hint = _HINT_KMS if "kms:" in reply.detail.lower() else hint
    return CredentialsError(f"Access denied to {address} ({reply.reported}).", hint=hint)


def _explain_permanent(reply: ServiceReply, address: str) -> ModelfetchError | None:
    """Return the error for a response that neither a retry nor other credentials will change, else None."""
    if reply.code in _NAME_CODES:
        return UsageError(f"S3 does not take this name: {address} ({reply.reported}).", hint="Check bucket and path.")
    if reply.code in _MISMATCH_CODES:
        return MismatchError(
            f"{address} ({reply.reported}) arrived damaged and was not stored.",
            hint="Something between here and the store alters bytes.",
        )
    hint = None if reply.code in _TRANSIENT_CODES else _HINTS.get(reply.code)
    if reply.code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301") or (
        reply.region and 300 <= reply.status < 400
    ):
        hint = f"{_HINT_REGION}{f', {reply.region}' if reply.region else ''}."
    if reply.status == 400 and "server side encryption" in reply.detail.lower():
        hint = _HINT_SSE_C
    return RefusedError(f"The store refuses {address} ({reply.reported}).", hint=hint) if hint else None


def _explain_transient(reply: ServiceReply, address: str) -> ModelfetchError | None:
    if reply.code not in _TRANSIENT_CODES:
        return None
    return TransientError(
        f"The store is busy or failing: {address} ({reply.reported}).",
        hint=_HINTS.get(reply.code, "Try again later."),
        retry_after=parse_retry_after(reply.headers.get("retry-after")),
    )


def explain_sdk_failure(error: Exception, host: str, stall_timeout: float) -> ModelfetchError:
    """Return the error for a request that the SDK could not send, or a response that the SDK could not parse."""
    text = _sdk_error_text(error)
    match error:
        case _ if isinstance(error, _CREDENTIALS_ERRORS):
            return NoCredentialsError(
                f"No AWS credentials could be had: {text}.", hint="Check the profile, the role and its source."
            )
        case _ if isinstance(error, _NAME_ERRORS):
            return UsageError(f"S3 does not take this name: {text}.", hint="Check bucket and path.")
        case _ if isinstance(error, _NETWORK_ERRORS):
            return explain_network_error(error, host, stall_timeout)
        case ResponseParserError() | sdk.PaginationError():
            return unexpected_answer_error(host)
        case _:
            return ConfigError(
                f"The AWS configuration makes no sense: {text}.",
                hint="Check AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL_S3.",
            )


def unexpected_answer_error(host: str) -> ModelfetchError:
    """Return the error for a response that violates the S3 protocol."""
    return RefusedError(f"{host} does not answer as S3 does.", hint="Check the endpoint (AWS_ENDPOINT_URL_S3).")


def explain_credentials_failure(error: Exception, stall_timeout: float, *, had_credentials: bool) -> ModelfetchError:
    """Return the error for any exception raised while credentials are read from a program, a file or a server.

    The SDK parses credentials without validation, hence any exception type. Recoverable failures are transient once
    credentials were available (`had_credentials`): a long pull survives a short outage of the issuer.
    """
    may_recover = not isinstance(error, _LOGIN_ERRORS)
    if isinstance(error, sdk.ClientError):
        reply = _parse_reply(error)
        may_recover = reply.code in _TRANSIENT_CODES or reply.status == 429 or reply.status >= 500
        if not may_recover:
            return CredentialsError(f"AWS refuses {reply.operation} ({reply.reported}).", hint=_HINT_ROLE)
        reason = f"{reply.operation} fails ({reply.reported})"
    elif isinstance(error, sdk.ParamValidationError):
        return ConfigError(f"The role or its token makes no sense: {_sdk_error_text(error)}.", hint=_HINT_ROLE)
    elif isinstance(error, _NETWORK_ERRORS):
        issuer = host_of(
            str(getattr(error, "kwargs", {}).get("endpoint_url", "")), or_else="the source of AWS credentials"
        )
        explained = explain_network_error(error, issuer, stall_timeout)
        if not isinstance(explained, TransientError):
            return explained
        reason = explained.message.rstrip(".")
    elif isinstance(error, sdk.BotoCoreError) and not isinstance(error, _CREDENTIALS_ERRORS):
        return explain_sdk_failure(error, "AWS", stall_timeout)
    else:
        reason = _sdk_error_text(error)
    kind = TransientError if had_credentials and may_recover else NoCredentialsError
    return kind(
        f"No AWS credentials could be had: {reason}.",
        hint="Check the profile, the role, and what gives the credentials (a program, a token file, a server).",
    )


def _sdk_error_text(error: Exception) -> str:
    """Return the message of an exception in one line."""
    if isinstance(error, JSONDecodeError):
        return "what gives them does not answer in JSON"
    if isinstance(error, EOFError):
        return "they take a one-time code (MFA), and nobody is there to type it"
    text = error_text(error)
    known = isinstance(error, sdk.BotoCoreError | OSError | RuntimeError | ValueError)
    return text if known and text else f"{type(error).__name__} ({text})"

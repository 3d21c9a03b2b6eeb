"""The error map is total: every exception of a library or the operating system becomes an error of `errors.py`.

The exceptions are collected from the libraries. After an upgrade, a new exception fails a test until a table states
the error class, hence exit code and retry.
"""

import binascii
import decimal
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import boto3.exceptions
import botocore.exceptions
import botocore.parsers
import botocore.session
import google.auth.exceptions
import google.cloud.storage.exceptions
import pytest
import requests
import s3transfer.exceptions
import urllib3.exceptions
from google.api_core import exceptions as google_api_exceptions

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
from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.sources.base import error_for_status
from modelfetch.sources.gcs.source import GCSSource
from modelfetch.sources.https import HTTPSource
from modelfetch.sources.s3.source import S3Source
from testkit.error_assertions import (
    Translation,
    assert_error_contract,
    gcs_source,
    gcs_translation,
    s3_source,
    s3_translation,
    translate_error,
    translate_read_error,
)
from testkit.library_errors import find_exceptions, google_response, make_error, s3_refusal

UNREACHED = "of APIs that are not called, or wrapped by the library itself"
Table = dict[type[ModelfetchError] | str, str]

BOTOCORE: Table = {
    NoCredentialsError: """
        CredentialRetrievalError InvalidIMDSEndpointError LoginAuthorizationCodeError LoginError
        LoginInsufficientPermissions LoginRefreshRequired LoginTokenLoadError MetadataRetrievalError NoAuthTokenError
        NoCredentialsError PartialCredentialsError RefreshWithMFAUnsupportedError SSOError SSOTokenLoadError
        TokenRetrievalError UnauthorizedSSOTokenError""",
    TransientError: """
        AwsChunkedWrapperError CapacityNotAvailableError ChecksumError ConnectTimeoutError ConnectionClosedError
        ConnectionError EndpointConnectionError FlexibleChecksumError HTTPClientError IncompleteReadError
        ProxyConnectionError ReadTimeoutError ResponseStreamingError SSLError UnseekableStreamError""",
    UsageError: "InvalidDNSNameError ParamValidationError UnsupportedOutpostResourceError UnsupportedS3ArnError",
    RefusedError: "ClientError EventStreamError PaginationError",
    ConfigError: """
        ApiVersionNotFoundError BaseEndpointResolverError BotoCoreError ConfigNotFound ConfigParseError
        DataNotFoundError EndpointProviderError EndpointResolutionError EndpointVariantError InfiniteLoopConfigError
        InvalidChecksumConfigError InvalidConfigError InvalidDefaultsMode InvalidEndpointConfigurationError
        InvalidEndpointDiscoveryConfigurationError InvalidHostLabelError InvalidIMDSEndpointModeError
        InvalidMaxRetryAttemptsError InvalidProxiesConfigError InvalidRegionError InvalidRetryConfigurationError
        InvalidRetryModeError InvalidS3AddressingStyleError InvalidS3UsEast1RegionalEndpointConfigError
        InvalidSTSRegionalEndpointsConfigError MD5UnavailableError MissingDependencyException NoRegionError
        ProfileNotFound ServiceNotInRegionError UnknownCredentialError UnknownEndpointError
        UnknownEndpointResolutionBuiltInName UnknownFIPSEndpointError UnknownRegionError UnknownServiceError
        UnknownSignatureVersionError UnknownTokenProviderError UnsupportedS3AccesspointConfigurationError
        UnsupportedS3ConfigurationError UnsupportedServiceProtocolsError UnsupportedSignatureVersionError""",
    UNREACHED: """
        AliasConflictParameterError InvalidExpressionError MissingParametersError MissingServiceIdError
        OperationNotPageableError RangeError StubAssertionError StubResponseError UnStubbedResponseError
        UndefinedModelAttributeError UnknownClientMethodError UnknownKeyError UnknownParameterError
        UnknownServiceStyle UnsupportedS3ControlArnError UnsupportedS3ControlConfigurationError ValidationError
        WaiterConfigError WaiterError""",
}
BOTO3: Table = {  # clients and the transfer manager raise botocore's; these are of resources and of older calls
    UNREACHED: """
        Boto3Error DynamoDBNeedsConditionError DynamoDBNeedsKeyConditionError DynamoDBOperationNotSupportedError
        InvalidCrtTransferConfigError NoVersionFound ResourceLoadException ResourceNotExistsError
        RetriesExceededError S3TransferFailedError S3UploadFailedError UnknownAPIVersionError""",
}
S3TRANSFER: Table = {  # the future of an upload raises what stopped it; these are of downloads, copies and misuse
    UNREACHED: """
        FatalError InvalidSubscriberMethodError RetriesExceededError S3CopyFailedError S3DownloadFailedError
        S3UploadFailedError S3ValidationError TransferNotDoneError""",
}
GOOGLE_API: Table = {
    CredentialsError: "Forbidden PermissionDenied Unauthenticated Unauthorized",
    NotFoundError: "NotFound",
    ChangedError: "PreconditionFailed RequestRangeNotSatisfiable",
    TransientError: """
        BadGateway DataLoss DeadlineExceeded GatewayTimeout InternalServerError ResourceExhausted RetryError ServerError
        ServiceUnavailable TooManyRequests Unknown""",
    RefusedError: """
        Aborted AlreadyExists BadRequest Cancelled ClientError Conflict FailedPrecondition GoogleAPICallError
        InvalidArgument LengthRequired MethodNotAllowed MethodNotImplemented MovedPermanently NotModified OutOfRange
        Redirection ResumeIncomplete TemporaryRedirect""",
    UNREACHED: """
        AsyncRestUnsupportedParameterError DuplicateCredentialArgs GoogleAPIError MissingStatusHeaderError
        ResumableTransferError TransferStalledError UnseekableStreamError UploadCancelledError""",
}
GOOGLE_AUTH: Table = {
    CredentialsError: "InvalidOperation ReauthFailError ReauthSamlChallengeFailError",
    NoCredentialsError: """
        ClientCertError DefaultCredentialsError GoogleAuthError InvalidResource InvalidType InvalidValue MalformedError
        MutualTLSChannelError OAuthError OSError RefreshError ResponseError TimeoutError TransportError
        UserAccessTokenError""",
}
GOOGLE_STORAGE: Table = {
    MismatchError: "DataCorruption",
    TransientError: "InvalidResponse",
    UNREACHED: "InvalidPathError",  # of downloads of many files
}
REQUESTS: Table = {
    ConfigError: "InvalidHeader InvalidProxyURL InvalidSchema InvalidURL MissingSchema URLRequired",
    RefusedError: "InvalidJSONError JSONDecodeError TooManyRedirects",
    TransientError: """
        ChunkedEncodingError ConnectTimeout ConnectionError ContentDecodingError HTTPError ProxyError ReadTimeout
        RequestException RetryError SSLError StreamConsumedError Timeout UnrewindableBodyError""",
}
URLLIB3: Table = {
    ConfigError: "LocationParseError LocationValueError ProxySchemeUnknown ProxySchemeUnsupported URLSchemeUnknown",
    RefusedError: "ResponseError",  # which is how it tells of too many redirects
    TransientError: """
        BodyNotHttplibCompatible ClosedPoolError ConnectTimeoutError DecodeError EmptyPoolError FullPoolError
        HTTPError HeaderParsingError HostChangedError IncompleteRead InvalidChunkLength InvalidHeader MaxRetryError
        NameResolutionError NewConnectionError PoolError ProtocolError ProxyError ReadTimeoutError RequestError
        ResponseNotChunked SSLError TimeoutError TimeoutStateError UnrewindableBodyError""",
}
HTTP_CLIENT: Table = {
    ConfigError: "InvalidURL",
    TransientError: """
        BadStatusLine CannotSendHeader CannotSendRequest HTTPException ImproperConnectionState IncompleteRead
        LineTooLong NotConnected RemoteDisconnected ResponseNotReady UnimplementedFileMode UnknownProtocol
        UnknownTransferEncoding""",
}
SSL: Table = {
    RefusedError: "SSLCertVerificationError",
    TransientError: "SSLEOFError SSLError SSLSyscallError SSLWantReadError SSLWantWriteError SSLZeroReturnError",
}
SOCKET: Table = {TransientError: "gaierror herror", UNREACHED: "_GiveupOnSendfile"}


def decisions(table: Table) -> dict[str, type[ModelfetchError] | None]:
    """Exception names with the expected error class; None for an exception that cannot occur."""
    return {name: None if isinstance(kind, str) else kind for kind, names in table.items() for name in names.split()}


LIBRARIES: list[tuple[ModuleType, Table, tuple[Translation, ...]]] = [
    (botocore.exceptions, BOTOCORE, (s3_translation,)),
    (boto3.exceptions, BOTO3, (s3_translation,)),
    (s3transfer.exceptions, S3TRANSFER, (s3_translation,)),
    (google_api_exceptions, GOOGLE_API, (gcs_translation,)),
    (google.auth.exceptions, GOOGLE_AUTH, (gcs_translation,)),
    (google.cloud.storage.exceptions, GOOGLE_STORAGE, (gcs_translation,)),
    (requests.exceptions, REQUESTS, (gcs_translation,)),
    (urllib3.exceptions, URLLIB3, (s3_translation, gcs_translation)),
    (http.client, HTTP_CLIENT, (s3_translation, gcs_translation)),
    (ssl, SSL, (gcs_translation,)),
    (socket, SOCKET, (gcs_translation,)),
]
OF_A_BODY = (urllib3.exceptions, http.client, ssl, socket)


@pytest.mark.parametrize(
    ("module", "table"), [row[:2] for row in LIBRARIES], ids=lambda value: getattr(value, "__name__", "")
)
def test_every_exception_of_a_library_is_classified(module: ModuleType, table: Table) -> None:
    """Each exception stands in the tables once, and no entry is stale."""
    names = [name for names in table.values() for name in names.split()]

    assert sorted(names) == sorted(find_exceptions(module))


def reaching() -> Iterator[Any]:
    """Yield each possible exception with the translating functions and the expected error class."""
    for module, table, translations in LIBRARIES:
        kinds = find_exceptions(module)
        for name, ours in decisions(table).items():
            if ours is not None and name in kinds:
                yield pytest.param(module, kinds[name], translations, ours, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize(("module", "kind", "translations", "ours"), list(reaching()))
def test_exception_becomes_the_error_of_its_class(
    module: ModuleType, kind: type[Exception], translations: tuple[Translation, ...], ours: type[ModelfetchError]
) -> None:
    """At each place where a library is called or a body is read."""
    for translation in translations:
        assert_error_contract(translate_error(make_error(kind), translation), ours)
    if module in OF_A_BODY:
        assert_error_contract(translate_read_error(make_error(kind)), ours)


def test_response_without_xml_is_refused_as_not_s3() -> None:
    """Exit code 69, with the endpoint in the hint."""
    assert_error_contract(translate_error(botocore.parsers.ResponseParserError("no XML"), s3_translation), RefusedError)


@pytest.mark.parametrize(
    "error",
    [KeyError("size"), TypeError("None"), AttributeError("x"), ValueError("x"), RecursionError("deep"),
     OverflowError("x"), decimal.InvalidOperation(), RuntimeError("a date that no calendar has"),
     json.JSONDecodeError("x", "y", 0), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), binascii.Error("padding")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("source", [s3_source, gcs_source], ids=["s3", "gcs"])
def test_malformed_response_is_refused_as_not_the_store_s(
    source: Callable[[], S3Source | GCSSource], error: Exception
) -> None:
    """Exit code 69, wherever the parsing fails."""
    told = translate_error(error, source()._refuse_malformed_responses)

    assert_error_contract(told, RefusedError)
    assert "store.invalid" in told.message


# --- HTTP statuses ----------------------------------------------------------------------------------------------------

STATUSES = range(300, 600)
DENIED, GONE, REPLACED = {401, 403, 407}, {404, 410}, {412, 416}
PASSING = {408, 425, 429, *range(500, 600)} - {501, 505, 506, 508, 510, 511}  # those that no time heals


def meant(status: int) -> type[ModelfetchError]:
    """Statuses of RFC 9110, and further statuses of proxies and CDNs, with the expected error class."""
    kinds = {CredentialsError: DENIED, NotFoundError: GONE, ChangedError: REPLACED, TransientError: PASSING}
    return next((kind for kind, statuses in kinds.items() if status in statuses), RefusedError)


def test_every_status_has_one_error_class_for_all_sources() -> None:
    """URLs, S3 and GCS agree; GCS's 404 of an object is no error, hence means the bucket."""
    web = HTTPSource(parse_uri("https://store.invalid/m"), SourceOptions())
    for status in STATUSES:
        assert_error_contract(error_for_status(status, "m"), meant(status))
        assert_error_contract(web._explain_status(status, {}), meant(status))
        assert_error_contract(translate_error(s3_refusal(str(status), status), s3_translation), meant(status))
        error = google_api_exceptions.from_http_response(google_response(status))  # type: ignore[no-untyped-call]
        assert_error_contract(translate_error(error, gcs_translation), meant(status))

"""The error map is total: whatever a library or the operating system raises becomes one of our failures, as decided.

The exceptions are found by looking into the libraries. One that is new, after an upgrade, fails a test here until it
has its place in a table: which of our classes it becomes, and so with which code, and whether it is tried again.
"""

import ast
import binascii
import bz2
import errno
import http.client
import json
import lzma
import os
import socket
import ssl
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import boto3.exceptions
import botocore.exceptions
import botocore.parsers
import google.auth.exceptions
import google.cloud.storage.exceptions
import pytest
import requests
import s3transfer.exceptions
import urllib3.exceptions
from google.api_core import exceptions as google_api_exceptions
from isal import igzip_lib

from modelfetch import disk, errors, local, retry
from modelfetch.archive import streams, tarball, zipped
from modelfetch.archive.base import Budget
from modelfetch.archive.streams import Forward
from modelfetch.archive.tree import Tree
from modelfetch.errors import (
    ArchiveError,
    ChangedError,
    ConfigError,
    CredentialsError,
    DestinationError,
    MismatchError,
    ModelfetchError,
    NoCredentialsError,
    NotFoundError,
    RefusedError,
    TransientError,
    UnsafeNameError,
    UsageError,
)
from modelfetch.pool import explain
from modelfetch.sources import Access
from modelfetch.sources import file as file_source
from modelfetch.sources.base import by_status
from modelfetch.sources.gcs import GCSSource
from modelfetch.sources.https import HTTPSource
from modelfetch.sources.s3 import S3Source
from modelfetch.uri import parse
from modelfetch.wire import Wire
from rigs.raising import CONNECTION, SECRET, exceptions, made, refusal, reply, retried

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNREACHED = "of APIs that are not called, or wrapped by the library itself"
Table = dict[type[ModelfetchError] | str, str]
Translation = Callable[[], AbstractContextManager[None]]

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


@cache
def s3_source() -> S3Source:
    """A source that is never asked anything."""
    return S3Source(parse("s3://b/k"), Access(anonymous=True, endpoint="http://store.invalid:9000"))


@cache
def gcs_source() -> GCSSource:
    """Likewise."""
    return GCSSource(parse("gs://b/o"), Access(emulator="http://store.invalid:4443"))


def of_s3() -> AbstractContextManager[None]:
    """What a request through boto3 is made in."""
    return s3_source()._explained("k")


def of_gcs() -> AbstractContextManager[None]:
    """What a request through Google's SDK is made in."""
    return gcs_source()._explained("o")


def translated(error: Exception, translation: Translation) -> ModelfetchError:
    """What becomes of an error."""
    with pytest.raises(ModelfetchError) as caught, translation():
        raise error
    return caught.value


def read(error: Exception) -> ModelfetchError:
    """What becomes of an error that reading a body raises."""

    def fail(_: int) -> bytes:
        raise error

    wire = Wire(s3_source(), lambda _: None)
    with pytest.raises(ModelfetchError) as caught:
        wire._reader(cast("urllib3.BaseHTTPResponse", SimpleNamespace(read=fail)), "store.invalid")(1)
    return caught.value


def assert_decided(told: ModelfetchError, kind: type[ModelfetchError]) -> None:
    """It is of this very class, with a code of the contract, a message, a next step, and tried again if that helps."""
    assert type(told) is kind, f"{told!r} is no {kind.__name__}"
    assert told.code not in (0, errors.BUG_CODE)
    assert told.message.endswith(".")
    assert "\n" not in told.message
    assert told.hint
    assert SECRET not in f"{told.message} {told.hint}"
    again = kind in (TransientError, ChangedError)
    assert told.retryable == again
    assert retry._transient(told) == (kind is TransientError)


def decisions(table: Table) -> dict[str, type[ModelfetchError] | None]:
    """Each exception's name, and our class; None where it cannot reach us."""
    return {name: None if isinstance(kind, str) else kind for kind, names in table.items() for name in names.split()}


LIBRARIES: list[tuple[ModuleType, Table, tuple[Translation, ...]]] = [
    (botocore.exceptions, BOTOCORE, (of_s3,)),
    (boto3.exceptions, BOTO3, (of_s3,)),
    (s3transfer.exceptions, S3TRANSFER, (of_s3,)),
    (google_api_exceptions, GOOGLE_API, (of_gcs,)),
    (google.auth.exceptions, GOOGLE_AUTH, (of_gcs,)),
    (google.cloud.storage.exceptions, GOOGLE_STORAGE, (of_gcs,)),
    (requests.exceptions, REQUESTS, (of_gcs,)),
    (urllib3.exceptions, URLLIB3, (of_s3, of_gcs)),
    (http.client, HTTP_CLIENT, (of_s3, of_gcs)),
    (ssl, SSL, (of_gcs,)),
    (socket, SOCKET, (of_gcs,)),
]
OF_A_BODY = (urllib3.exceptions, http.client, ssl, socket)


@pytest.mark.parametrize(
    ("module", "table"), [row[:2] for row in LIBRARIES], ids=lambda value: getattr(value, "__name__", "")
)
def test_every_exception_of_a_library_is_decided_on(module: ModuleType, table: Table) -> None:
    """Once; and nothing is decided on that is gone."""
    names = [name for names in table.values() for name in names.split()]

    assert sorted(names) == sorted(exceptions(module))


def reaching() -> Iterator[Any]:
    """Every exception that can reach us, with the translations that it passes through and what it becomes."""
    for module, table, translations in LIBRARIES:
        kinds = exceptions(module)
        for name, ours in decisions(table).items():
            if ours is not None and name in kinds:
                yield pytest.param(module, kinds[name], translations, ours, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize(("module", "kind", "translations", "ours"), list(reaching()))
def test_it_becomes_what_was_decided(
    module: ModuleType, kind: type[Exception], translations: tuple[Translation, ...], ours: type[ModelfetchError]
) -> None:
    """In each place where the library is called, and where a body is read."""
    for translation in translations:
        assert_decided(translated(made(kind), translation), ours)
    if module in OF_A_BODY:
        assert_decided(read(made(kind)), ours)


def test_an_answer_that_is_no_xml_is_none_of_s3s() -> None:
    """69."""
    assert_decided(translated(botocore.parsers.ResponseParserError("no XML"), of_s3), RefusedError)


@pytest.mark.parametrize(
    "error",
    [KeyError("size"), TypeError("None"), AttributeError("x"), ValueError("x"), RecursionError("deep"),
     json.JSONDecodeError("x", "y", 0), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), binascii.Error("padding")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("source", [s3_source, gcs_source], ids=["s3", "gcs"])
def test_an_answer_that_makes_no_sense_is_none_of_the_stores(
    source: Callable[[], S3Source | GCSSource], error: Exception
) -> None:
    """69, wherever our code or the SDK's stumbles over it."""
    told = translated(error, source()._understood)

    assert_decided(told, RefusedError)
    assert "store.invalid" in told.message


# --- HTTP statuses ----------------------------------------------------------------------------------------------------

STATUSES = range(300, 600)
DENIED, GONE, REPLACED = {401, 403, 407}, {404, 410}, {412, 416}
PASSING = {408, 425, 429, *range(500, 600)} - {501, 505, 506, 508, 510, 511}  # those that no time heals


def meant(status: int) -> type[ModelfetchError]:
    """What a status means where nothing else is said (RFC 9110, and what proxies and CDNs send beyond it)."""
    kinds = {CredentialsError: DENIED, NotFoundError: GONE, ChangedError: REPLACED, TransientError: PASSING}
    return next((kind for kind, statuses in kinds.items() if status in statuses), RefusedError)


def test_every_status_means_the_same_everywhere() -> None:
    """Of a URL, of S3 and of Google's store, whose 404 of an object is none, so that it is a bucket's."""
    web = HTTPSource(parse("https://store.invalid/m"), Access())
    for status in STATUSES:
        assert_decided(by_status(status, "m"), meant(status))
        assert_decided(web._error(status, {}), meant(status))
        assert_decided(translated(refusal(str(status), status), of_s3), meant(status))
        error = google_api_exceptions.from_http_response(reply(status))  # type: ignore[no-untyped-call]
        assert_decided(translated(error, of_gcs), meant(status))


# --- credentials ----------------------------------------------------------------------------------------------------


def fails_to_issue(error: Exception, *, had: bool) -> ModelfetchError:
    """What becomes of an error that looking for AWS credentials raises."""

    def fail() -> None:
        raise error

    s3_source()._had = had
    with pytest.raises(ModelfetchError) as caught:
        s3_source()._credentials(cast("boto3.Session", SimpleNamespace(get_credentials=fail)))
    return caught.value


def fails_to_issue_google(error: Exception, *, had: bool) -> ModelfetchError:
    """Likewise for Google's."""
    gcs_source()._had = had
    return translated(error, gcs_source()._issued)


CARELESS = [
    FileNotFoundError(2, "x"), PermissionError(13, "x"), IsADirectoryError(21, "x"), KeyError("x"),
    AttributeError("x"), TypeError("x"), ValueError("x"), RuntimeError("still expired"),
    json.JSONDecodeError("x", "y", 0), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
]  # fmt: skip


@pytest.mark.parametrize("error", CARELESS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("issuing", [fails_to_issue, fails_to_issue_google], ids=["aws", "google"])
def test_what_gives_no_credentials_is_no_bug(issuing: Callable[..., ModelfetchError], error: Exception) -> None:
    """A program that is not there, a file that is cut short, a server that answers nonsense: 77, or 75 midway."""
    assert_decided(issuing(error, had=False), NoCredentialsError)
    assert_decided(issuing(error, had=True), TransientError)


@pytest.mark.parametrize("had", [False, True])
def test_whatever_boto3_says_of_credentials_is_one_of_ours(had: object) -> None:
    """77 or 78, 75 if there were some; never what the store is blamed for. Buckets and listings are none of theirs."""
    allowed = (NoCredentialsError, CredentialsError, ConfigError, *((TransientError,) if had else ()))
    others = {*BOTOCORE[UsageError].split(), "PaginationError"}
    kinds = exceptions(botocore.exceptions).items()
    told = {name: fails_to_issue(made(kind), had=bool(had)) for name, kind in kinds if name not in others}

    assert {name: error for name, error in told.items() if type(error) not in allowed or not error.hint} == {}


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("retryable", [False, True])
def test_whatever_google_says_of_credentials_is_one_of_ours(retryable: object, had: object) -> None:
    """Likewise."""
    allowed = (NoCredentialsError, CredentialsError, *((TransientError,) if had else ()))
    told = {}
    for name, kind in cast("dict[str, Any]", exceptions(google.auth.exceptions)).items():
        try:
            error = kind("x", retryable=bool(retryable))
        except TypeError:
            error = kind("x")
        told[name] = fails_to_issue_google(error, had=bool(had))

    assert {name: error for name, error in told.items() if type(error) not in allowed or not error.hint} == {}


def test_a_one_time_code_that_nobody_types_is_a_matter_of_credentials() -> None:
    """77: an init container has no keyboard."""
    told = fails_to_issue(EOFError(), had=True)

    assert_decided(told, NoCredentialsError)
    assert "MFA" in told.message


# --- the operating system -------------------------------------------------------------------------------------------

ERRNOS = sorted(errno.errorcode)
NAMED = {errno.ENAMETOOLONG, errno.EILSEQ}  # what is wrong is the name
FILES = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM}  # of certificates: no connection's
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def os_error(number: int) -> OSError:
    """As the operating system raises it."""
    return OSError(number, os.strerror(number), "/models/m")


def test_every_error_of_the_destination_is_explained() -> None:
    """73, but for names 65; with the file and a next step."""
    for number in ERRNOS:
        told = translated(os_error(number), lambda: disk.disk_errors("/models"))
        assert_decided(told, UnsafeNameError if number in NAMED else DestinationError)
        assert "/models/m" in told.message


def test_every_error_of_a_local_source_is_explained() -> None:
    """66 if it is not there, 77 if it may not be read, else 69."""
    for number in ERRNOS:
        denied = CredentialsError if number in (errno.EACCES, errno.EPERM) else RefusedError
        found = file_source._explain(os_error(number), Path("/models/m"))
        assert_decided(found, NotFoundError if number in MISSING else denied)
        pushed = translated(os_error(number), lambda: local.readable(Path("/models/m")))
        assert_decided(pushed, denied)
        assert "/models/m" in found.message
        assert "/models/m" in pushed.message


def test_every_error_of_a_connection_is_explained() -> None:
    """75: networks heal. Only certificates are files, and 78; a firewall's EPERM is no file's."""
    for number in ERRNOS:
        bare = OSError(number, os.strerror(number))
        connecting = urllib3.exceptions.NewConnectionError(CONNECTION, "x")
        connecting.__cause__ = bare
        assert_decided(read(bare), ConfigError if number in FILES else TransientError)
        assert_decided(explain(retried(connecting), "store.invalid", 5.0), TransientError)


def test_every_failure_to_resolve_a_name_is_passing() -> None:
    """75: in a new pod the name service may not be up."""
    for number in {value for name, value in vars(socket).items() if name.startswith("EAI_")}:
        told = explain(socket.gaierror(number, "x"), "store.invalid", 5.0)
        assert_decided(told, TransientError)
        assert "name" in told.message


# --- archives -------------------------------------------------------------------------------------------------------


def module_of(kind: str) -> tuple[ModuleType, str, tuple[type[Exception], ...]]:
    """A codec's module, the name that its exceptions have as their module's, and what else it raises."""
    return {
        "gzip": (igzip_lib, "igzip_lib", ()),
        "deflate": (igzip_lib, "igzip_lib", ()),
        "bzip2": (bz2, "bz2", (OSError, ValueError)),
        "xz": (lzma, "_lzma", ()),
        "zstd": (zstd, zstd.__name__, ()),
    }[kind]


@pytest.mark.parametrize("kind", ["gzip", "deflate", "bzip2", "xz", "zstd"])
def test_every_error_of_a_decompressor_is_a_damaged_archive(kind: str) -> None:
    """65."""
    module, home, others = module_of(kind)
    raised = [*exceptions(module, home).values(), *others]
    assert raised

    for error in raised:
        codec = replace(streams.codec(kind), new=partial(Broken, error("x")))
        with pytest.raises(ArchiveError):
            list(streams.inflate(iter([b"x"]), codec))


class Broken:
    """A decompressor that fails."""

    eof, needs_input, unused_data = False, True, b""

    def __init__(self, error: Exception) -> None:
        """Take what it raises."""
        self._error = error

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        """Fail."""
        raise self._error


TAR_UNREACHED = """
    AbsoluteLinkError AbsolutePathError CompressionError ExtractError FilterError LinkOutsideDestinationError
    OutsideDestinationError ReadError SpecialFileError StreamError TarError"""  # of TarFile, which reads nothing here


@pytest.mark.parametrize("kind", [k for k in exceptions(tarfile).values() if issubclass(k, tarfile.HeaderError)])
def test_every_error_of_a_tars_header_is_a_damaged_archive(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """65."""

    def fail(*_: object) -> None:
        raise kind("x")

    monkeypatch.setattr(tarfile.TarInfo, "frombuf", fail)
    with pytest.raises(ArchiveError):
        tarball._decode(bytes(512))


def test_every_error_of_tarfile_is_decided_on() -> None:
    """A header's, or none that can reach us."""
    headers = {name for name, kind in exceptions(tarfile).items() if issubclass(kind, tarfile.HeaderError)}

    assert set(exceptions(tarfile)) - headers == set(TAR_UNREACHED.split())


@pytest.mark.parametrize(
    "kind", [zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, UnicodeDecodeError, OverflowError]
)
def test_every_error_of_a_zips_directory_is_a_damaged_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Exception]
) -> None:
    """65; LargeZipFile is of writing."""
    assert set(exceptions(zipfile)) == {"BadZipFile", "LargeZipFile"}
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m", b"x")

    def fail(*_: object, **__: object) -> None:
        raise kind("utf-8", b"x", 0, 1, "x") if kind is UnicodeDecodeError else kind("x")

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    tree = Tree(tmp_path / "tree", Budget(1000, 10, 10))
    with pytest.raises(ArchiveError):
        zipped.unpack_zip(Forward(iter([path.read_bytes()])), tmp_path / "scratch", tree)


# --- what we say ourselves ------------------------------------------------------------------------------------------

SOURCE = Path(errors.__file__).parent
OURS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ModelfetchError)}
# `unpack` and `gunzip` give a hint to all that comes from below them.
HINTED_ABOVE = {"links.py", "streams.py", "tarball.py", "tree.py", "zipped.py"}


def raise_sites() -> Iterator[tuple[Path, ast.Call]]:
    """Every place where one of our errors is made."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OURS:
                yield path, node


def test_every_error_of_ours_has_a_next_step() -> None:
    """A hint that is not empty, at the very place where it is made."""
    sites = list(raise_sites())
    bare = [
        f"{path.name}:{call.lineno}"
        for path, call in sites
        if path.name not in HINTED_ABOVE
        and not any(
            k.arg == "hint" and not (isinstance(k.value, ast.Constant) and not k.value.value) for k in call.keywords
        )
    ]

    assert len(sites) > 150
    assert bare == []


def test_every_message_is_a_sentence() -> None:
    """It ends with a full stop, and so does what comes out of a log."""
    ends = [(path, call, sentence(call.args[0])) for path, call in raise_sites() if call.args]
    open_ended = [f"{path.name}:{call.lineno}" for path, call, text in ends if text and text[-1] not in ".…?"]

    assert open_ended == []


def sentence(node: ast.expr) -> str:
    """The end of a message, as far as it is written there; empty if it is not."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[-1]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""

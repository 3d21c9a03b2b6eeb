"""Models on S3 and what speaks its protocol. boto3 finds, states, signs and uploads; it fetches no bytes."""

import base64
import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions as sdk
from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager
from botocore import UNSIGNED
from botocore.config import Config
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
from modelfetch.pool import CONNECT_TIMEOUT, explain
from modelfetch.retry import request
from modelfetch.sources.base import Access, Found, RemoteObject, Request, by_status
from modelfetch.uri import ModelURI

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SIGNATURE_SECONDS = 900  # of a presigned URL; each request gets a fresh one
_MULTIPART_FROM, _PART = 64 * 1024**2, 16 * 1024**2  # bytes; four parts at once, read from the disk as they are sent
_PART_TRIES = 9  # botocore begins at 50 ms: some 6 s of trouble, near what retry.py bears
_MD5 = re.compile(r"[0-9a-f]{32}")

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_NOT_FOUND = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound", "404"}
_TRANSIENT = {
    "SlowDown", "ServiceUnavailable", "InternalError", "InternalFailure", "RequestTimeout",
    "RequestTimeoutException", "Throttling", "ThrottlingException", "TooManyRequests", "TooManyRequestsException",
    "RequestLimitExceeded", "BandwidthLimitExceeded",
    "OperationAborted", "IDPCommunicationError", "XMinioServerNotInitialized",
}  # fmt: skip
_CREDENTIALS = {
    "401", "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken",
    "ExpiredTokenException", "Forbidden", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidIdentityToken",
    "InvalidSecurity", "InvalidToken", "InvalidTokenId",
    "NotSignedUp", "RequestExpired",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "UnrecognizedClientException",
}  # fmt: skip
_NO_CREDENTIALS = (
    sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError, sdk.MetadataRetrievalError,
    sdk.InvalidIMDSEndpointError, sdk.NoAuthTokenError, sdk.TokenRetrievalError, sdk.SSOError, sdk.LoginError,
    sdk.RefreshWithMFAUnsupportedError,
)  # fmt: skip
_NETWORK = (sdk.ConnectionError, sdk.HTTPClientError, sdk.IncompleteReadError, sdk.ChecksumError)
_MISMATCH = {"BadDigest", "XAmzContentChecksumMismatch"}
_WRITES = {"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}
_HINT_WRITE = "Allow s3:PutObject and s3:GetObject on the objects and s3:ListBucket on the bucket."
_HINTS = {
    "NoSuchBucket": "Check the bucket's name, the region (AWS_REGION) and the endpoint (AWS_ENDPOINT_URL_S3).",
    "NoSuchKey": "Check the path; `modelfetch inspect` lists what is there.",
    "NoSuchVersion": "Check the versionId; `modelfetch inspect` shows the current one.",
    "AccessDenied": "Allow s3:GetObject on the object and s3:ListBucket on the bucket;"
    " without the latter a missing object looks like this too.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID; is it of this store?",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY: a character or a line break too many is enough.",
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired"),
        "Renew AWS_SESSION_TOKEN, or log in again; unset it if the keys need none.",
    ),
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "InvalidObjectState": "The object is archived: restore it first.",
    "AuthorizationHeaderMalformed": "Set AWS_REGION to the bucket's region.",
    "PermanentRedirect": "Set AWS_REGION to the bucket's region.",
}


class S3Source:
    """An object or a prefix in a bucket."""

    crc = "crc32"  # the one of S3's CRCs of a full object that botocore computes for parts without awscrt

    def __init__(self, uri: ModelURI, access: Access) -> None:
        """Find credentials and the endpoint in the SDK's usual places; no request is made yet.

        Raises:
            ConfigError: the SDK's configuration makes no sense.
            NoCredentialsError: there are none, and access is not to be anonymous.
        """
        self.uri = uri
        self.connect = access.connect
        with self._explained():
            self._session = boto3.Session()
            self._client = _client(self._session, access)
            # Only the SDK can send a single part again.
            self._uploader = _client(self._session, access, tries=_PART_TRIES) if access.write else self._client
            if not access.anonymous and self._session.get_credentials() is None:
                raise NoCredentialsError(
                    "No AWS credentials were found.",
                    hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role; public: --anonymous.",
                )

    def find(self) -> Found:
        """See `Source.find`."""
        if not self.uri.is_directory:
            try:
                return Found((request(self._head),), directory=False)
            except NotFoundError:
                if self.uri.version:
                    raise
        return request(self._list)

    def _head(self) -> RemoteObject:
        return self._stat(self.uri.key, self.uri.name, self.uri.version, {})

    def _stat(self, key: str, path: str, version: str | None, pins: Mapping[str, str]) -> RemoteObject:
        params: dict[str, Any] = {"Bucket": self.uri.bucket, "Key": key}
        if version:
            params["VersionId"] = version
        if "etag" in pins:
            params["IfMatch"] = pins["etag"]
        with self._explained(key):
            try:
                reply = self._client.head_object(**params, ChecksumMode="ENABLED")
            except sdk.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412):
                    raise
                # A HEAD has no body, so no code: the same question as a GET says why.
                self._client.get_object(**params, Range="bytes=0-0")["Body"].close()
                raise
        headers = reply["ResponseMetadata"]["HTTPHeaders"]
        return _object(
            key, path, reply["ContentLength"], reply.get("ETag"), reply.get("VersionId"), self.checksums(headers)
        )

    def _list(self) -> Found:
        prefix = self.uri.key if self.uri.is_directory else f"{self.uri.key}/"
        objects, folders = [], []
        with self._explained(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.uri.bucket, Prefix=prefix)
            for item in (item for page in pages for item in page.get("Contents", ())):
                path = item["Key"].removeprefix(prefix)
                if path.endswith("/") and item["Size"] == 0:
                    folders.append(path.rstrip("/"))
                elif path:
                    objects.append(_object(item["Key"], path, item["Size"], item.get("ETag"), None, {}))
        if not objects:
            raise NotFoundError(f"There is nothing at {self.uri}.", hint=_HINTS["NoSuchKey"])
        return Found(tuple(objects), directory=True, folders=tuple(folders))

    def complete(self, obj: RemoteObject) -> RemoteObject:
        """See `Source.complete`; asks with a HEAD."""
        return request(lambda: self._stat(obj.key, obj.path, None, obj.pins))

    def authorise(self, obj: RemoteObject, *, renew: bool = False) -> Request:  # noqa: ARG002  each URL is signed anew
        """See `Source.authorise`: a presigned URL; one is good for every range, for `Range` is not signed."""
        params = {"Bucket": self.uri.bucket, "Key": obj.key, "ChecksumMode": "ENABLED"}
        if version := obj.pins.get("x-amz-version-id"):
            params["VersionId"] = version
        with self._explained(obj.key):
            url = self._client.generate_presigned_url("get_object", Params=params, ExpiresIn=_SIGNATURE_SECONDS)
        headers = {"x-amz-checksum-mode": "ENABLED", "Accept-Encoding": "identity"}
        if "etag" in obj.pins:
            headers["If-Match"] = obj.pins["etag"]
        return Request(url, headers)

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """See `Source.checksums`: the full object's additional checksums, and a plain upload's ETag, which is its md5.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
        """
        found = {}
        if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
            for name in ("crc32", "crc32c", "crc64nvme", "sha1", "sha256"):
                value = headers.get(f"x-amz-checksum-{name}", "")
                if value and "-" not in value:
                    found[name] = base64.b64decode(value).hex()
        etag = headers.get("etag", "").strip('"')
        keyed = "x-amz-server-side-encryption-customer-algorithm" in headers
        if _MD5.fullmatch(etag) and not keyed and "kms" not in headers.get("x-amz-server-side-encryption", ""):
            found["md5"] = etag
        return found

    def diagnose(self, obj: RemoteObject, status: int) -> ModelfetchError:
        """See `Source.diagnose`: the same request through the SDK."""
        params: dict[str, Any] = {"Bucket": self.uri.bucket, "Key": obj.key}
        if version := obj.pins.get("x-amz-version-id"):
            params["VersionId"] = version
        try:
            with self._explained(obj.key):
                self._client.get_object(**params, Range="bytes=0-0")["Body"].close()
        except ModelfetchError as error:
            return error
        return by_status(status, f"s3://{self.uri.bucket}/{obj.key}")

    def upload(self, path: Path, key: str, crc: str, advance: Callable[[int], None]) -> RemoteObject:
        """See `Store.upload`: S3 stores nothing if its own CRC of the whole object is another.

        AWS_REQUEST_CHECKSUM_CALCULATION=when_required sends none, for servers that refuse them.
        """
        stated = {"ChecksumCRC32": base64.b64encode(bytes.fromhex(crc)).decode()}
        config = TransferConfig(
            multipart_threshold=_MULTIPART_FROM,
            multipart_chunksize=_PART,
            max_concurrency=4,
            use_threads=path.stat().st_size >= _MULTIPART_FROM,
            preferred_transfer_client="classic",
        )
        # botocore-stubs lack the setting
        bare = self._uploader.meta.config.request_checksum_calculation == "when_required"  # type: ignore[attr-defined]
        with self._explained(key), create_transfer_manager(self._uploader, config) as manager:
            manager.upload(
                os.fspath(path),
                self.uri.bucket,
                key,
                extra_args={} if bare else stated,
                subscribers=[ProgressCallbackInvoker(advance)],
            ).result()
        return request(lambda: self._stat(key, path.name, None, {}))

    def mark(self, key: str) -> None:
        """See `Store.mark`."""

        def put() -> None:
            with self._explained(key):
                self._client.put_object(Bucket=self.uri.bucket, Key=key, Body=b"")

        request(put)

    @contextlib.contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except sdk.ClientError as error:
            raise _refusal(error, f"s3://{self.uri.bucket}/{key}", self.uri.version) from error
        except (sdk.BotoCoreError, ResponseParserError, ValueError) as error:
            raise _failure(error, self._host(), self.connect.stall_timeout) from error

    def _host(self) -> str:
        client = getattr(self, "_client", None)
        return client.meta.endpoint_url.partition("://")[2] if client else "S3"


def _client(session: boto3.Session, access: Access, tries: int = 1) -> "S3Client":
    stall = access.connect.stall_timeout
    config = Config(
        signature_version=UNSIGNED if access.anonymous else "s3v4",  # the default would presign in the version before
        connect_timeout=min(CONNECT_TIMEOUT, stall),
        read_timeout=stall,
        retries={"total_max_attempts": tries, "mode": "standard"},  # one: retry.py decides
        s3={"addressing_style": "virtual"} if access.virtual_host else {},
        max_pool_connections=access.connect.connections,
        # Some servers state the whole object's checksum on a range; botocore takes it for the range's (boto3 4512).
        response_checksum_validation="when_required",
    )
    verify: bool | str | None = access.connect.ca_bundle if access.connect.verify else False
    return session.client("s3", config=config, verify=verify, endpoint_url=access.endpoint)


def _object(
    key: str, path: str, size: int, etag: str | None, version: str | None, checksums: Mapping[str, str]
) -> RemoteObject:
    pins = {"etag": etag} if etag else {}
    if version and version != "null":
        pins["x-amz-version-id"] = version
    pinned = pins.get("x-amz-version-id") or (etag or "").strip('"')
    return RemoteObject(key, path, size, pinned, pins, checksums)


def _refusal(error: sdk.ClientError, what: str, version: str | None) -> ModelfetchError:
    """The error for a reply that the SDK understood."""
    code = error.response.get("Error", {}).get("Code", "")
    detail = error.response.get("Error", {}).get("Message") or ""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    denied = code == "AccessDenied" and error.operation_name in _WRITES
    hint = _HINT_WRITE if denied else _HINTS.get(code, "")
    said = f"{what} ({code}{': ' if detail else ''}{detail.rstrip('.')})"
    if version and code in {"InvalidArgument", "400", "BadRequest"}:
        return NotFoundError(f"There is no version {version!r} of {what}.", hint=_HINTS["NoSuchVersion"])
    if code == "NoSuchBucket":
        return NotFoundError(f"There is no bucket {what.split('/')[2]}.", hint=hint)
    if code in _NOT_FOUND:
        return NotFoundError(
            f"There is no {what}{f' of version {version}' if version else ''}.", hint=hint or _HINTS["NoSuchKey"]
        )
    if code in _MISMATCH:
        return MismatchError(
            f"{said} arrived damaged and was not stored.", hint="Something between here and the store alters bytes."
        )
    if code in _TRANSIENT:
        wait = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
        return TransientError(
            f"The store is busy or failing: {said}.",
            hint="Try again later.",
            retry_after=float(wait) if wait.isdecimal() else None,
        )
    if code in _CREDENTIALS:
        return CredentialsError(
            f"Access denied to {said}.", hint=hint or "Check the credentials and what they may read."
        )
    if hint:
        return RefusedError(f"The store refuses {said}.", hint=hint)
    return by_status(status, what, f"{code}: {detail}" if detail else code)


def _failure(error: Exception, host: str, stall_timeout: float) -> ModelfetchError:
    """The error for a request that the SDK could not make or finish."""
    text = " ".join(str(error).split())
    match error:
        case _ if isinstance(error, _NO_CREDENTIALS):
            return NoCredentialsError(
                f"No AWS credentials could be had: {text}", hint="Check the profile, the role and its source."
            )
        case sdk.ParamValidationError():
            return UsageError(f"S3 does not take this name: {text}", hint="Check bucket and path.")
        case _ if isinstance(error, _NETWORK):
            return explain(error, host, stall_timeout)
        case ResponseParserError():
            return RefusedError(f"{host} does not answer as S3 does.", hint="Check the endpoint (AWS_ENDPOINT_URL_S3).")
        case _:
            return ConfigError(
                f"The AWS configuration makes no sense: {text}",
                hint="Check AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL_S3.",
            )

"""Models on S3-compatible stores: botocore lists, stats and finds credentials, boto3 uploads; neither downloads."""

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import botocore.exceptions as sdk
from botocore import UNSIGNED
from botocore.config import Config
from botocore.session import Session, get_session

from modelfetch.errors import CredentialsError, ModelfetchError, NoCredentialsError, NotFoundError, UnsafeNameError
from modelfetch.net.connection_pool import CONNECT_TIMEOUT, check_endpoint
from modelfetch.net.network_errors import host_of
from modelfetch.net.retry import retry_request
from modelfetch.safe_paths import quote_path
from modelfetch.sources.base import (
    NOTHING,
    Listing,
    RemoteObject,
    SignedRequest,
    Source,
    changed_error,
    error_for_status,
    unconfirmed_version_error,
)
from modelfetch.sources.bucket_uri import MAX_KEY_BYTES
from modelfetch.sources.listing import ListingBuilder
from modelfetch.sources.s3 import errors as s3_errors
from modelfetch.sources.s3.response_limit import bound_responses
from modelfetch.sources.s3.sigv4 import RequestSigner
from modelfetch.sources.s3.spec import S3Options, pin_s3_uri
from modelfetch.uri import ModelURI, show_address

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

_PART_TRIES = 9  # botocore's backoff begins at 50 ms: about 6 s in all, near the limit of retry.py
_MD5 = re.compile(r"[0-9a-f]{32}")
_LOST_CONDITIONS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "NoSuchKey")
_VERSION_HEADER = "x-amz-version-id"
_NULL_VERSION = "null"  # of objects stored before a bucket had versions, and of stores without versions
_EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"

_Result = TypeVar("_Result")


class S3Source(Source):
    """An object or a prefix in an S3 bucket."""

    max_key_bytes: int | None = MAX_KEY_BYTES
    crc = "crc32"  # of S3's full-object CRCs, the only one that botocore computes for parts without awscrt

    def __init__(self, uri: ModelURI, options: S3Options) -> None:
        """Find credentials and endpoint in the SDK's usual places; sends no request to the store.

        Raises:
            ConfigError: the SDK's configuration makes no sense.
            NoCredentialsError: no credentials were found, and access is not anonymous.
        """
        super().__init__(uri, options.network)
        self._options = options
        self._lock = threading.Lock()
        self._had_credentials = False  # whether credentials were read before
        self._region = ""  # region of the bucket, once a response names a region other than the client's
        self._signer: RequestSigner | None = None
        with self._explain_sdk_errors():
            session = self._make_session()
            if not options.anonymous:
                self._read_credentials(session)
            self._use_session(session)
            check_endpoint(options.network, self._client.meta.endpoint_url)

    def resolve(self) -> Listing:
        """See `Source.resolve`; asks with a HEAD, else lists by ListObjectsV2."""
        if {".", ".."} & {*self.uri.key.split("/")}:
            raise UnsafeNameError(
                f"The key {quote_path(self.uri.key)} has a '.' or '..' segment: another object would be asked for.",
                hint="Write the key without it, or give the object another name.",
            )
        missing = NotFoundError(f"There is nothing at {show_address(str(self.uri))}.", hint=s3_errors.HINT_NO_SUCH_KEY)
        if not self.uri.is_directory:
            try:
                return Listing((self._stat_object(self.uri.key, self.uri.name, self.uri.version),), directory=False)
            except NotFoundError as error:
                if self.uri.version:
                    raise
                missing = error  # the message may state that the object was deleted
        return retry_request(lambda: self._with_renewal(lambda client: self._list_prefix(client, missing)))

    def _stat_object(
        self, key: str, path: str, version: str | None = None, pins: Mapping[str, str] = NOTHING
    ) -> RemoteObject:
        """Request size, version and checksums; retry transient failures, and once after a renewal of credentials."""
        return retry_request(
            lambda: self._with_renewal(lambda client: self._head_object(client, key, path, version, pins))
        )

    def _head_object(
        self, client: "S3Client", key: str, path: str, version: str | None, pins: Mapping[str, str]
    ) -> RemoteObject:
        params: dict[str, Any] = {"Bucket": self.uri.bucket, "Key": key}
        if version:
            params["VersionId"] = version
        if "etag" in pins:
            params["IfMatch"] = pins["etag"]
        with self._explain_sdk_errors(key), self._refuse_malformed_responses():
            try:
                reply = client.head_object(**params, ChecksumMode="ENABLED")
            except sdk.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412):
                    raise
                # A HEAD response has no body, hence no error code: the same request as a GET returns the reason, or
                # lets the SDK find the bucket's region.
                client.get_object(**params, Range="bytes=0-0")["Body"].close()
                reply = client.head_object(**params, ChecksumMode="ENABLED")
            headers = reply["ResponseMetadata"]["HTTPHeaders"]
            if reply.get("ETag") is None and not reply["ContentLength"]:
                raise KeyError("ETag")  # an empty response of something else, rather than an empty object
            obj = _make_object(
                key, path, reply["ContentLength"], reply.get("ETag"), reply.get("VersionId"), self.checksums(headers)
            )
            if version:
                obj = self._confirm_version(obj, version, reply.get("VersionId", ""))
            version_id = obj.pins.get(_VERSION_HEADER)
            address = ModelURI("s3", self.uri.bucket, key)
            return obj._replace(pinned_uri=pin_s3_uri(address, version_id)) if version_id else obj

    def _confirm_version(self, obj: RemoteObject, version: str, answered: str) -> RemoteObject:
        """Return the object with every response bound to the version; `null` is the version of a store without ids.

        Raises:
            WrongBytesError: the store answered with another version.
        """
        if answered != version and (version != _NULL_VERSION or answered):
            raise unconfirmed_version_error(f"s3://{self.uri.bucket}/{obj.key}", version, answered)
        return obj if version == _NULL_VERSION else obj._replace(confirmed_by=_VERSION_HEADER)

    def _list_prefix(self, client: "S3Client", missing: NotFoundError) -> Listing:
        prefix = self.uri.key if self.uri.is_directory else f"{self.uri.key}/"
        builder = ListingBuilder(prefix, self._options.max_listed)
        with self._explain_sdk_errors(prefix), self._refuse_malformed_responses():
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.uri.bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    builder.add_entry(item["Key"], item["Size"], partial(_object_from_listing, item))
                # The SDK takes a page without IsTruncated for the last: insist on the field if no object is listed.
                more = page.get("IsTruncated", False) if page.get("Contents") else page["IsTruncated"]
                builder.end_page(page.get("NextContinuationToken"), more=more)
        listing = builder.build_listing()
        if listing is None:
            raise missing
        return listing

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.sidecar`; asks with a HEAD."""
        try:
            return self._stat_object(obj.key + suffix, obj.path + suffix)
        except NotFoundError:
            return None

    def with_checksums(self, obj: RemoteObject) -> RemoteObject:
        """See `Source.with_checksums`; asks with a HEAD."""
        current = self._stat_object(obj.key, obj.path, pins=obj.pins)
        if current.size != obj.size:
            raise changed_error(f"s3://{self.uri.bucket}/{obj.key}")
        return current

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:
        """See `Source.sign`; signs with the current credentials, for every range."""
        if renew:
            self._renew_credentials(self._client)
        client = self._ready_client()
        credentials = None if self._options.anonymous else self._read_credentials(self._session)
        with self._explain_sdk_errors(obj.key):
            if self._signer is None or self._signer.client is not client:
                self._signer = RequestSigner(client, self.uri.bucket)
            signed = self._signer.sign_get(obj.key, obj.pins.get("x-amz-version-id"), credentials)
        pin = {"If-Match": obj.pins["etag"]} if "etag" in obj.pins else {}
        return SignedRequest(signed.url, {**signed.headers, "Accept-Encoding": "identity", **pin})

    def checksums(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """See `Source.checksums`: full-object checksums, and the ETag of a single-part upload, equal to the md5.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
        """
        checksums = {}
        if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
            for name in ("crc32", "crc32c", "crc64nvme", "sha1", "sha256"):
                value = headers.get(f"x-amz-checksum-{name}", "")
                if value and "-" not in value:
                    with self._refuse_malformed_responses():
                        checksums[name] = base64.b64decode(value, validate=True).hex()
        etag = headers.get("etag", "").strip('"')
        customer_key = "x-amz-server-side-encryption-customer-algorithm" in headers
        if _MD5.fullmatch(etag) and not customer_key and "kms" not in headers.get("x-amz-server-side-encryption", ""):
            checksums["md5"] = etag
        return checksums

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:
        """See `Source.explain_refusal`; repeats the request through the SDK."""
        params: dict[str, Any] = {"Bucket": self.uri.bucket, "Key": obj.key}
        if version := obj.pins.get("x-amz-version-id"):
            params["VersionId"] = version
        try:
            client = self._ready_client()
            with self._explain_sdk_errors(obj.key):
                client.get_object(**params, Range="bytes=0-0")["Body"].close()
        except ModelfetchError as error:
            return error
        return error_for_status(status, f"s3://{self.uri.bucket}/{obj.key}")

    def upload(self, path: Path, key: str, crc: str, on_sent: Callable[[int], None]) -> RemoteObject:
        """See `WritableSource.upload`; boto3 sends large files in parts."""
        from modelfetch.sources.s3.upload import upload_file  # noqa: PLC0415  a pull needs no boto3

        self._ready_client()
        with self._explain_sdk_errors(key):
            upload_file(self._uploader, path, self.uri.bucket, key, crc, on_sent)
        return self._stat_object(key, path.name)

    def put(self, key: str, data: bytes) -> None:
        """See `WritableSource.put`; sends one PutObject request."""

        def put() -> None:
            client = self._ready_client()
            with self._explain_sdk_errors(key):
                client.put_object(Bucket=self.uri.bucket, Key=key, Body=data)

        retry_request(put)

    def put_if(self, key: str, data: bytes, expected: Mapping[str, str] | None) -> Mapping[str, str]:
        """See `WritableSource.put_if`; by If-Match or If-None-Match, which some stores do not implement."""
        condition: dict[str, Any] = {}
        if expected is not None:
            condition = {"IfMatch": expected["etag"]} if "etag" in expected else {"IfNoneMatch": "*"}

        def put() -> str:
            client = self._ready_client()
            with self._explain_sdk_errors(key):
                try:
                    return client.put_object(Bucket=self.uri.bucket, Key=key, Body=data, **condition).get("ETag", "")
                except sdk.ClientError as error:
                    code = error.response.get("Error", {}).get("Code", "")
                    if code == "NotImplemented" and condition:
                        return client.put_object(Bucket=self.uri.bucket, Key=key, Body=data).get("ETag", "")
                    if not condition or code not in _LOST_CONDITIONS:
                        raise
            stored = self._stat_object(key, key)  # an answer may have been lost: then ours stands there
            if stored.pins.get("etag", "").strip('"') != hashlib.md5(data, usedforsecurity=False).hexdigest():
                raise changed_error(f"s3://{self.uri.bucket}/{key}")
            return stored.pins["etag"]

        etag = retry_request(put)
        return {"etag": etag} if etag else {}

    def delete(self, key: str) -> None:
        """See `WritableSource.delete`; S3 reports no missing object."""

        def delete() -> None:
            client = self._ready_client()
            with self._explain_sdk_errors(key):
                client.delete_object(Bucket=self.uri.bucket, Key=key)

        retry_request(delete)

    def _make_session(self) -> Session:
        """Make the session that finds credentials; credential servers are verified with the store's CA bundle."""
        session = get_session()
        # Objects' times are not used; the SDK would spend two thirds of a listing's time on parsing the times.
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
        for name, value in (("ca_bundle", self.network.ca_bundle), ("region", self._options.region)):
            if value:
                session.set_config_variable(name, value)
        return session

    def _use_session(self, session: Session) -> None:
        """Replace the session, with its client and uploader."""
        self._client = _create_client(session, self._options)
        self._client.meta.events.register("before-sign.s3", self._note_region)
        # Only the SDK can retry a single part of an upload.
        self._uploader = (
            _create_client(session, self._options, tries=_PART_TRIES) if self._options.write else self._client
        )
        self._session = session

    def _ready_client(self) -> "S3Client":
        """Return the client, with credentials valid for some time.

        Otherwise the SDK would read credentials during a request, and an error of the credentials' issuer would look
        like an error of the store.
        """
        if self._region not in ("", self._options.region):
            with self._lock, self._explain_sdk_errors():
                self._options = replace(self._options, region=self._region)
                self._use_session(self._make_session())
        if not self._options.anonymous:
            self._read_credentials(self._session)
        return self._client

    def _note_region(self, request: Any, **_: object) -> None:  # noqa: ANN401  botocore ships no types of requests
        """Note the region of a redirect: the SDK signs its own later requests for the region, but no presigned URL."""
        region = request.context.get("signing", {}).get("region", "")
        client_region = self._client.meta.region_name.replace("aws-global", "us-east-1")
        if region not in ("", "*", client_region) and not self.uri.bucket.startswith("arn:"):
            self._region = region

    def _read_credentials(self, session: Session) -> Any:  # noqa: ANN401  a named tuple missing in the stubs
        try:
            credentials = session.get_credentials()
            frozen = credentials.get_frozen_credentials() if credentials is not None else None
        except Exception as error:
            raise s3_errors.explain_credentials_failure(
                error, self.network.stall_timeout, had_credentials=self._had_credentials
            ) from error
        if frozen is None:
            raise NoCredentialsError(
                "No AWS credentials were found.",
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role; public: --anonymous.",
            )
        self._had_credentials = True
        return frozen

    def _renew_credentials(self, used_client: "S3Client") -> bool:
        """Read credentials again, for files or variables may have changed; return whether the credentials changed."""
        if self._options.anonymous:
            return False
        with self._lock:
            if self._client is not used_client:
                return True  # another thread was first
            session = self._make_session()
            if self._read_credentials(session) == self._read_credentials(self._session):
                return False
            with self._explain_sdk_errors():
                self._use_session(session)
            return True

    def _with_renewal(self, call: Callable[["S3Client"], _Result]) -> _Result:
        """Call with the client; repeat once with renewed credentials after a refusal, if the credentials changed."""
        client = self._ready_client()
        try:
            return call(client)
        except CredentialsError:
            if not self._renew_credentials(client):
                raise
            return call(self._ready_client())

    @contextlib.contextmanager
    def _explain_sdk_errors(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except sdk.ClientError as error:
            raise s3_errors.explain_response(error, f"s3://{self.uri.bucket}/{key}", self.uri.version) from error
        except s3_errors.SDK_FAILURES as error:
            raise s3_errors.explain_sdk_failure(error, self._host_name(), self.network.stall_timeout) from error

    @contextlib.contextmanager
    def _refuse_malformed_responses(self) -> Iterator[None]:
        """Refuse a response with missing or invalid fields, for the server does not speak the S3 protocol."""
        try:
            yield
        except sdk.BotoCoreError:  # some are ValueErrors too
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise s3_errors.unexpected_answer_error(self._host_name()) from error

    def _host_name(self) -> str:
        client = getattr(self, "_client", None)
        return host_of(client.meta.endpoint_url) if client else "S3"


def _create_client(session: Session, options: S3Options, tries: int = 1) -> "S3Client":
    stall = options.network.stall_timeout
    config = Config(
        signature_version=UNSIGNED if options.anonymous else "s3v4",  # the default would presign with SigV2
        connect_timeout=min(CONNECT_TIMEOUT, stall),
        read_timeout=stall,
        retries={"total_max_attempts": tries, "mode": "standard"},  # 1 disables the SDK's retries: retry.py decides
        s3={"addressing_style": "virtual"} if options.virtual_host else {},
        max_pool_connections=options.network.connections,
        # Some servers send the whole object's checksum with a range; botocore compares the range with it (boto3 4512).
        response_checksum_validation="when_required",
    )
    verify: bool | str | None = options.network.ca_bundle if options.network.verify else False
    untyped_client = session.create_client("s3", config=config, verify=verify, endpoint_url=options.endpoint)
    client = cast("S3Client", untyped_client)  # botocore's stubs have no service types
    client.meta.events.register("before-call.s3.HeadBucket", _suppress_request)
    bound_responses(client)
    return client


def _suppress_request(**_: object) -> None:
    """Suppress HeadBucket, sent by the SDK after a redirect without a region: each response would cause another."""
    no_region: Any = {"ResponseMetadata": {"HTTPHeaders": {}}}  # the only fields that the SDK reads
    raise sdk.ClientError(no_region, "HeadBucket")


def _object_from_listing(item: "ObjectTypeDef", path: str) -> RemoteObject:
    """Make an object of a listing's entry; only an empty object has a checksum."""
    etag = item.get("ETag")
    checksums = {"md5": _EMPTY_MD5} if item["Size"] == 0 and (etag or "").strip('"') == _EMPTY_MD5 else {}
    return _make_object(item["Key"], path, item["Size"], etag, None, checksums)


def _make_object(
    key: str, path: str, size: int, etag: str | None, version: str | None, checksums: Mapping[str, str]
) -> RemoteObject:
    if size < 0:
        raise ValueError(f"{key!r} has {size} bytes")
    pins = {"etag": etag} if etag else {}
    if version and version != _NULL_VERSION:
        pins[_VERSION_HEADER] = version
    pinned = pins.get(_VERSION_HEADER) or (etag or "").strip('"')
    return RemoteObject(key, path, size, pinned, pins, checksums, ranges=bool(pins))

"""Models on Google Cloud Storage: JSON API for metadata, google-auth for tokens, the SDK for uploads and error classes.

google-auth and the SDK are imported on demand: loading the SDK takes longer than pulling a small model.
"""

import base64
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from modelfetch.errors import ChangedError, ConfigError, ModelfetchError, NotFoundError, UsageError
from modelfetch.net.connection_pool import CONNECT_TIMEOUT, check_endpoint
from modelfetch.net.network_errors import NETWORK_ERRORS, explain_network_error, host_of
from modelfetch.net.retry import retry_request
from modelfetch.sources.base import (
    Listing,
    RemoteObject,
    SignedRequest,
    Source,
    changed_error,
    error_for_status,
    unconfirmed_version_error,
)
from modelfetch.sources.bucket_uri import MAX_KEY_BYTES
from modelfetch.sources.gcs.spec import GCSOptions, pin_gcs_uri
from modelfetch.sources.listing import ListingBuilder
from modelfetch.sources.response_limit import BoundedResponse
from modelfetch.uri import ModelURI, show_address

_CLOUD = "googleapis.com"
_FIELDS = "items(name,size,generation,crc32c,md5Hash,contentEncoding),nextPageToken"
_READ_BYTES = 64 * 1024  # bytes of a response body read at a time
_GENERATION_HEADER = "x-goog-generation"
_MAX_GENERATION = 2**63 - 1


class GCSSource(Source):
    """An object or a prefix in a bucket."""

    max_key_bytes: int | None = MAX_KEY_BYTES
    crc = "crc32c"

    def __init__(self, uri: ModelURI, options: GCSOptions) -> None:
        """Find credentials in the SDK's usual places; STORAGE_EMULATOR_HOST implies none.

        Raises:
            ConfigError: the SDK's configuration makes no sense.
            NoCredentialsError: no credentials were found, and access is not anonymous.
        """
        super().__init__(uri, options.network)
        self._options = options
        self._timeout = (min(CONNECT_TIMEOUT, self.network.stall_timeout), self.network.stall_timeout)
        # API_ENDPOINT_OVERRIDE is the SDK's variable for an emulator with credentials.
        self._endpoint = options.emulator or os.environ.get("API_ENDPOINT_OVERRIDE") or f"https://storage.{_CLOUD}"
        self._lock = threading.Lock()
        self._had_credentials = False  # whether a token was received before
        self._token_transport: Any = None
        self._credentials: Any = None
        if not (options.anonymous or options.emulator):
            self._find_credentials()
        check_endpoint(options.network, self._endpoint)

    def _find_credentials(self) -> None:
        from modelfetch.sources.gcs import credentials as gcs_credentials

        self._token_transport = gcs_credentials.make_token_transport(self.network)
        with self._explain_credential_errors():
            self._credentials, cloud = gcs_credentials.find_credentials(
                self._token_transport, write=self._options.write
            )
        if cloud != _CLOUD:
            raise ConfigError(
                f"The Google Cloud configuration makes no sense: the credentials are of {cloud}, not of {_CLOUD}.",
                hint="Check GOOGLE_* and STORAGE_EMULATOR_HOST.",
            )

    def resolve(self) -> Listing:
        """See `Source.resolve`; requests the object, else lists the prefix."""
        if not self.uri.is_directory:
            single = retry_request(lambda: self._stat_object(self.uri.key, self.uri.name, self.uri.version))
            if single is not None:
                return Listing((single,), directory=False)
            if self.uri.version:
                raise self._missing_generation_error()
        return retry_request(self._list_prefix)

    def _missing_generation_error(self) -> NotFoundError:
        return NotFoundError(
            f"There is no {show_address(str(self.uri))} of generation {self.uri.version}.",
            hint="`modelfetch inspect` shows the current one; `gcloud storage restore` brings a soft-deleted one back.",
        )

    def _stat_object(self, key: str, path: str, version: str | None = None) -> RemoteObject | None:
        if version is not None and _exceeds_max_generation(version):
            raise self._missing_generation_error()
        params = {"projection": "noAcl"} | ({"generation": version} if version else {})
        with self._refuse_malformed_responses():
            said = self._request_json(self._resource_path(key), params, key)
            if said is None:
                return None
            obj = _make_object({**said, "name": key}, path)
        if version is not None:
            if obj.version != str(int(version)):
                raise unconfirmed_version_error(f"gs://{self.uri.bucket}/{key}", version, obj.version)
            obj = obj._replace(confirmed_by=_GENERATION_HEADER)
        return self._with_pinned_uri(obj)

    def _list_prefix(self) -> Listing:
        prefix = self.uri.key if self.uri.is_directory else f"{self.uri.key}/"
        listing = ListingBuilder(prefix, self._options.max_listed)
        params = {"prefix": prefix, "projection": "noAcl", "fields": _FIELDS}
        with self._refuse_malformed_responses():
            while True:
                page = self._request_json(self._resource_path(), params, prefix)
                for item in page.get("items", ()):
                    listing.add_entry(item["name"], int(item["size"]), partial(_make_object, item))
                token = page.get("nextPageToken")
                if token in (None, ""):  # empty on the last page: https://google.aip.dev/158
                    break
                listing.end_page(token, more=True)
                params["pageToken"] = token
        found = listing.build_listing()
        if found is None:
            raise NotFoundError(
                f"There is nothing at {show_address(str(self.uri))}.",
                hint="Check the path; `modelfetch inspect` lists what is there.",
            )
        return found

    def _request_json(self, path: str, params: Mapping[str, str], key: str) -> Any:  # noqa: ANN401  as the JSON has it
        """Return the parsed response of the JSON API; None for a missing object."""
        url = f"{self._endpoint}/storage/v1{path}?{urlencode({**params, 'prettyPrint': 'false'})}"
        status, headers, body = self._send_get(url)
        if status == 401 and self._credentials is not None:  # the token may have been revoked
            status, headers, body = self._send_get(url, renew=True)
        if 200 <= status < 300:
            return json.loads(body)
        if status == 404 and path != self._resource_path():
            return None
        from modelfetch.sources.gcs import errors as gcs_errors

        if status == 401 and self._credentials is None:
            raise gcs_errors.anonymous_denied_error(self._host_name())
        error = gcs_errors.make_sdk_error(status, headers, body, url)
        raise gcs_errors.explain_response(
            error, f"gs://{self.uri.bucket}/{key}", gcs_errors.HINT_READ, self.uri.version
        )

    def _send_get(self, url: str, *, renew: bool = False) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Accept-Encoding": "gzip"}
        self._add_token(url, headers, renew=renew)
        reply = self.pool.request("GET", url, headers)
        try:
            body = b"".join(BoundedResponse(reply, self._host_name()).stream(_READ_BYTES, decode_content=True))
        except NETWORK_ERRORS as error:
            raise explain_network_error(error, self._host_name(), self.network.stall_timeout) from error
        finally:
            reply.close()
        return reply.status, reply.headers, body

    def _resource_path(self, key: str | None = None) -> str:
        """Return the path of the bucket's objects, or of one object."""
        bucket = self.uri.bucket
        if not (bucket[0].isalnum() and bucket[-1].isalnum()):  # refused by the SDK, too
            rule = "Bucket names must start and end with a number or letter"
            raise UsageError(f"Google Cloud Storage does not take this name: {rule}.", hint="Check the bucket.")
        objects = f"/b/{quote(bucket, safe='')}/o"
        return objects if key is None else f"{objects}/{quote(key, safe='')}"

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.sidecar`; requests the object of that name."""
        return retry_request(lambda: self._stat_object(obj.key + suffix, obj.path + suffix))

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:
        """See `Source.sign`: the media URL pinned to the generation, and a bearer token.

        `Accept-Encoding: gzip` asks for gzip objects as they are stored: https://cloud.google.com/storage/docs/transcoding
        """
        url = f"{self._endpoint}/download/storage/v1{self._resource_path(obj.key)}?alt=media&generation={obj.version}"
        headers = {"Accept-Encoding": "gzip"}
        self._add_token(url, headers, renew=renew)
        return SignedRequest(url, headers)

    def _add_token(self, url: str, headers: dict[str, str], *, renew: bool = False) -> None:
        """Add a valid token to the headers, unless access is anonymous."""
        if self._credentials is None:
            return
        issuer = partial(self._token_transport, timeout=self._timeout[1])
        with self._explain_credential_errors(), self._lock:
            if renew:
                self._credentials.refresh(issuer)
            self._credentials.before_request(issuer, "GET", url, headers)

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:
        """See `Source.explain_refusal`; requests the object's metadata."""
        what = f"gs://{self.uri.bucket}/{obj.key}"
        try:
            now = self._stat_object(obj.key, obj.path)
            if now is None:
                return NotFoundError(f"{what} was deleted while it was being read.", hint="Upload it again.")
            if now.version != obj.version and not self.uri.version:
                return changed_error(what)
        except ModelfetchError as error:
            return error
        return error_for_status(status, what)

    def upload(self, path: Path, key: str, crc: str, on_sent: Callable[[int], None]) -> RemoteObject:
        """See `WritableSource.upload`; the SDK sends large files in parts."""
        from modelfetch.sources.gcs import upload as gcs_upload

        blob = self._ready_blob(key)
        with self._explain_sdk_errors(key, write=True):
            gcs_upload.upload_file(blob, path, crc, on_sent, self._timeout)
        with self._refuse_malformed_responses():
            return self._with_pinned_uri(_make_object(gcs_upload.blob_resource(blob), path.name))

    def _with_pinned_uri(self, obj: RemoteObject) -> RemoteObject:
        return obj._replace(pinned_uri=pin_gcs_uri(ModelURI("gs", self.uri.bucket, obj.key), obj.version))

    def put(self, key: str, data: bytes) -> None:
        """See `WritableSource.put`; sends one upload request."""

        def put() -> None:
            blob = self._ready_blob(key)
            with self._explain_sdk_errors(key, write=True):
                blob.upload_from_string(data, timeout=self._timeout, retry=None)

        retry_request(put)

    def put_if(self, key: str, data: bytes, expected: Mapping[str, str] | None) -> Mapping[str, str]:
        """See `WritableSource.put_if`; by ifGenerationMatch, 0 for no object."""
        generation = None if expected is None else int(expected.get(_GENERATION_HEADER, "0"))

        def put() -> str:
            blob = self._ready_blob(key)
            try:
                with self._explain_sdk_errors(key, write=True):
                    blob.upload_from_string(data, timeout=self._timeout, retry=None, if_generation_match=generation)
            except ChangedError:  # an answer may have been lost: then ours stands there
                stored = self._stat_object(key, key)
                if (
                    stored is None
                    or stored.checksums.get("md5") != hashlib.md5(data, usedforsecurity=False).hexdigest()
                ):
                    raise
                return stored.version
            return str(blob.generation)

        return {_GENERATION_HEADER: retry_request(put)}

    def delete(self, key: str) -> None:
        """See `WritableSource.delete`; a missing object passes."""

        def delete() -> None:
            blob = self._ready_blob(key)
            with self._explain_sdk_errors(key, write=True):
                blob.delete(timeout=self._timeout, retry=None)

        with contextlib.suppress(NotFoundError):
            retry_request(delete)

    def _ready_blob(self, key: str) -> Any:  # noqa: ANN401
        """Return the SDK's blob after a token was fetched: token failures are not failures of the store."""
        self._add_token(self._endpoint, {})
        with self._explain_sdk_errors():
            return self._client.bucket(self.uri.bucket).blob(key)

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401
        from modelfetch.sources.gcs import upload as gcs_upload

        return gcs_upload.create_client(self._options, self._credentials, self._timeout[1], self._host_name())

    @contextlib.contextmanager
    def _explain_sdk_errors(self, key: str = "", *, write: bool = False) -> Iterator[None]:
        """Map exceptions of the SDK to `ModelfetchError`s."""
        try:
            yield
        except Exception as error:
            from modelfetch.sources.gcs import errors as gcs_errors

            if isinstance(error, gcs_errors.RESPONSE_ERRORS):
                what = f"gs://{self.uri.bucket}/{key}"
                denied = gcs_errors.HINT_WRITE if write else gcs_errors.HINT_READ
                raise gcs_errors.explain_response(error, what, denied, self.uri.version) from error
            if isinstance(error, gcs_errors.SDK_FAILURES):
                raise gcs_errors.explain_sdk_failure(
                    error, self._host_name(), self.network.stall_timeout, had_credentials=self._had_credentials
                ) from error
            raise

    @contextlib.contextmanager
    def _explain_credential_errors(self) -> Iterator[None]:
        """Map failures of credentials; the SDK parses files and responses without validation."""
        try:
            yield
        except ModelfetchError:  # a redirect that is refused
            raise
        except Exception as error:
            from modelfetch.sources.gcs import errors as gcs_errors

            raise gcs_errors.explain_credentials_failure(
                error, self.network.stall_timeout, had_credentials=self._had_credentials
            ) from error
        self._had_credentials = self._credentials is not None and self._credentials.token is not None

    @contextlib.contextmanager
    def _refuse_malformed_responses(self) -> Iterator[None]:
        """Refuse a response with missing or invalid fields, for the server does not speak the JSON API."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            from modelfetch.sources.gcs import errors as gcs_errors

            raise gcs_errors.unexpected_answer_error(self._host_name()) from error

    def _host_name(self) -> str:
        return host_of(self._endpoint)


def _exceeds_max_generation(generation: str) -> bool:
    """Return whether a generation exceeds 64 bits; too many digits cannot be converted to a number."""
    return len(generation) > len(str(_MAX_GENERATION)) or int(generation) > _MAX_GENERATION


def _make_object(resource: Mapping[str, Any], path: str) -> RemoteObject:
    """Make an object of a resource of the JSON API: https://cloud.google.com/storage/docs/json_api/v1/objects#resource."""
    size, generation = int(resource["size"]), str(int(resource["generation"]))
    if size < 0:
        raise ValueError(f"{resource['name']!r} has {size} bytes")
    checksums = {
        name: base64.b64decode(value).hex()
        for name, value in (("crc32c", resource.get("crc32c")), ("md5", resource.get("md5Hash")))
        if value
    }
    return RemoteObject(
        key=resource["name"],
        path=path,
        size=size,
        version=generation,
        pins={_GENERATION_HEADER: generation},
        checksums=checksums,
        gzip=resource.get("contentEncoding") == "gzip",
    )

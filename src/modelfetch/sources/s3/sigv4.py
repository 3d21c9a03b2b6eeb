"""Signed GET requests (SigV4) for one bucket's objects: endpoint and scope from the SDK, signatures computed here.

The SDK resolves the endpoint again for each request, at the cost of fetching a small object.
Algorithm: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from modelfetch.net.http1 import host_header
from modelfetch.sources.base import SignedRequest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ALGORITHM = "AWS4-HMAC-SHA256"
_NO_BODY = hashlib.sha256(b"").hexdigest()
_CHECKSUM_HEADERS = {"x-amz-checksum-mode": "ENABLED"}
_URL_LIFETIME = 900  # seconds, validity of a URL presigned by the SDK; each request gets a fresh URL
_MODEL_KEY = "k"  # sample key, whose presigned URL shows endpoint and scope


class RequestSigner:
    """Signer of GET requests for objects, each valid for any range: `Range` is not signed."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        """Read endpoint and credential scope from a URL presigned by the SDK.

        Raises:
            BotoCoreError: the SDK cannot presign a URL.
        """
        self.client = client
        self._bucket = bucket
        url = urlsplit(self._presign_url(_MODEL_KEY, None))
        self._origin, self._path = f"{url.scheme}://{url.netloc}", url.path.removesuffix(_MODEL_KEY)
        self._host = host_header(self._origin)
        signed = dict(parse_qsl(url.query))
        self._scope = signed.get("X-Amz-Credential", "").split("/")[-3:]  # region, service, aws4_request
        self._uses_session_token = "X-Amz-S3session-Token" in signed  # directory buckets have session credentials

    def sign_get(self, key: str, version: str | None, credentials: Any) -> SignedRequest:  # noqa: ANN401  botocore's tuple
        """Return a signed GET request for an object.

        Args:
            key: object key.
            version: version id; None for the newest.
            credentials: frozen credentials of botocore; None for an anonymous request.
        """
        if self._uses_session_token:
            return SignedRequest(self._presign_url(key, version), _CHECKSUM_HEADERS)
        path = self._path + quote(key, safe="/~")
        query = f"versionId={quote(version, safe='~')}" if version else ""
        url = f"{self._origin}{path}{'?' if query else ''}{query}"
        if credentials is None:
            return SignedRequest(url, _CHECKSUM_HEADERS)
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = "/".join((now[:8], *self._scope))
        token = {"x-amz-security-token": credentials.token} if credentials.token else {}
        headers = {"x-amz-content-sha256": _NO_BODY, "x-amz-date": now, **_CHECKSUM_HEADERS, **token}
        names = ";".join(("host", *sorted(headers)))
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in sorted(headers))
        request = f"GET\n{path}\n{query}\nhost:{self._host}\n{lines}\n{names}\n{_NO_BODY}"
        text = f"{_ALGORITHM}\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(
            _derive_signing_key(credentials.secret_key, scope), text.encode(), hashlib.sha256
        ).hexdigest()
        credential = f"Credential={credentials.access_key}/{scope}"
        headers["Authorization"] = f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"
        return SignedRequest(url, headers)

    def _presign_url(self, key: str, version: str | None) -> str:
        params = {"Bucket": self._bucket, "Key": key, "ChecksumMode": _CHECKSUM_HEADERS["x-amz-checksum-mode"]}
        if version:
            params["VersionId"] = version
        return self.client.generate_presigned_url("get_object", Params=params, ExpiresIn=_URL_LIFETIME)


@lru_cache(maxsize=4)
def _derive_signing_key(secret: str, scope: str) -> bytes:
    """Derive the signing key for one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key

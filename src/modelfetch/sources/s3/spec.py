"""S3 as a source: addresses and options. Importing this module loads no SDK."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelfetch.sources.base import Source, SourceOptions, SourceSpec, is_truthy, refuse_secret_in_path
from modelfetch.sources.bucket_uri import make_bucket_uri, split_version
from modelfetch.uri import ModelURI, split_scheme

_VERSION = re.compile(r"\?versionId=([^?&#]*)\Z")
# An access point's name takes the place of a bucket's, and may hold a slash:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-naming.html
_ACCESS_POINT = re.compile(r"(arn:[^/]+:(?:outpost[/:][^/:]+[/:])?accesspoint[/:][^/]+)/?(.*)", re.DOTALL)


@dataclass(frozen=True)
class S3Options(SourceOptions):
    """Options of S3-compatible stores, beside those that botocore reads itself.

    Attributes:
        endpoint: URL of an S3-compatible store, from KServe's S3_ENDPOINT; None for the SDK's own search.
        virtual_host: address buckets as host names (KServe's S3_USER_VIRTUAL_BUCKET).
        region: AWS_REGION, which every AWS SDK but boto3 reads; None for the SDK's own search.
    """

    endpoint: str | None = None
    virtual_host: bool = False
    region: str | None = None


def parse_s3_uri(text: str) -> ModelURI:
    """Parse `s3://bucket/key[?versionId=…]`; an access point's ARN may stand for the bucket.

    Raises:
        UsageError: no bucket, credentials in the address, or a version that pins nothing.
    """
    rest, version = split_version(split_scheme(text)[1], _VERSION)
    point = _ACCESS_POINT.match(rest)
    bucket, key = (point[1], point[2]) if point else rest.partition("/")[::2]
    return make_bucket_uri("s3", bucket, key, version, text)


def pin_s3_uri(uri: ModelURI, version: str) -> str:
    """Return the address of one version, as `parse_s3_uri` reads it."""
    return f"{uri}?versionId={version}"


def read_s3_options(environ: Mapping[str, str], common: SourceOptions) -> S3Options:
    """Read KServe's S3_* variables and AWS_CA_BUNDLE; AWS_ENDPOINT_URL(_S3) wins over S3_ENDPOINT.

    Raises:
        ConfigError: a variable holds a token instead of the path of the token's file.
    """
    if not common.anonymous:
        refuse_secret_in_path(environ, "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    options = S3Options.of(common)
    if bundle := environ.get("AWS_CA_BUNDLE"):
        options = replace(options, network=options.network._replace(ca_bundle=bundle))
    return replace(
        options,
        endpoint=_read_kserve_endpoint(environ),
        virtual_host=is_truthy(environ.get("S3_USER_VIRTUAL_BUCKET"), default=False),
        region=environ.get("AWS_REGION") or None,
    )


def _read_kserve_endpoint(environ: Mapping[str, str]) -> str | None:
    host = environ.get("S3_ENDPOINT")
    if not host or environ.get("AWS_ENDPOINT_URL") or environ.get("AWS_ENDPOINT_URL_S3"):
        return None
    if "://" in host:
        return host
    return f"{'https' if is_truthy(environ.get('S3_USE_HTTPS'), default=True) else 'http'}://{host}"


def open_s3(uri: ModelURI, options: SourceOptions) -> Source:
    """Open an S3 address; loads botocore.

    Raises:
        ConfigError: the AWS configuration makes no sense.
        NoCredentialsError: no credentials were found, and access is not anonymous.
    """
    from modelfetch.sources.s3.source import S3Source  # noqa: PLC0415  0.2 s that other sources need not spend

    return S3Source(uri, S3Options.of(options))


SPEC = SourceSpec(("s3",), parse_s3_uri, read_s3_options, open_s3, writable=True)

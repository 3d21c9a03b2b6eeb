"""Sources: the stores that models come from. A new source is a folder here that registers a `SourceSpec`.

base.py            the interface: Source, WritableSource, SourceSpec, RemoteObject, Listing; errors by HTTP status
listing.py         checks of what a store lists, page by page
bucket_uri.py      addresses of objects in buckets
response_limit.py  bound on what an SDK reads of a response
s3/ gcs/           object stores; their SDKs are imported only when one is opened
https.py file.py   plain URLs and local paths
"""

from modelfetch.errors import UsageError
from modelfetch.sources.base import (
    Listing,
    RemoteObject,
    SignedRequest,
    Source,
    SourceOptions,
    SourceSpec,
    WritableSource,
)
from modelfetch.sources.file import SPEC as FILE
from modelfetch.sources.gcs.spec import SPEC as GCS
from modelfetch.sources.https import SPEC as HTTPS
from modelfetch.sources.s3.spec import SPEC as S3
from modelfetch.uri import FORMS, ModelURI, check_text, mask_uri, split_scheme

__all__ = [
    "Listing",
    "RemoteObject",
    "SignedRequest",
    "Source",
    "SourceOptions",
    "SourceSpec",
    "WritableSource",
    "find_spec",
    "mask_address",
    "open_source",
    "parse_uri",
    "register",
]

_SPECS: dict[str, SourceSpec] = {}


def register(spec: SourceSpec) -> None:
    """Make a kind of source known by its schemes; a scheme that is registered already is replaced."""
    _SPECS.update(dict.fromkeys(spec.schemes, spec))


for _spec in (S3, GCS, HTTPS, FILE):
    register(_spec)


def find_spec(uri: ModelURI) -> SourceSpec:
    """Return the spec of the source that `parse_uri` found."""
    return _SPECS[uri.scheme]


def parse_uri(text: str) -> ModelURI:
    """Parse an address with the parser of its scheme; an address without a scheme is a path.

    Raises:
        UsageError: the scheme is unknown, the bucket or the path is missing, or the address is not valid text.
    """
    check_text(text)
    scheme, _ = split_scheme(text)
    spec = _SPECS.get(scheme or "file")
    if spec is None:
        raise UsageError(f"Unknown scheme {scheme}:// in {mask_address(text)!r}.", hint=FORMS)
    return spec.parse(text)


def mask_address(text: str) -> str:
    """Return an address for messages, valid or not, without user name, password and secret query."""
    scheme, _ = split_scheme(text)
    spec = _SPECS.get(scheme or "file")
    return text if spec is FILE else mask_uri(text, secret_query=spec is None or spec.secret_query)


def open_source(uri: ModelURI, options: SourceOptions | None = None) -> Source:
    """Open the source that a URI's scheme names; makes no request.

    Raises:
        ConfigError: the SDK is not installed or wrongly configured.
        NoCredentialsError: credentials are needed, and none were found.
    """
    return find_spec(uri).open(uri, options or SourceOptions())

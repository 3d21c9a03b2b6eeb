"""The stores that models come from; each is imported only when its scheme is asked for."""

import gc

from modelfetch.sources.base import Access, Listing, RemoteObject, SignedRequest, Source, Store
from modelfetch.uri import ModelURI

__all__ = ["Access", "Listing", "RemoteObject", "SignedRequest", "Source", "Store", "open_source"]


def open_source(uri: ModelURI, access: Access) -> Source:
    """The store that the URI's scheme names; no request is made yet.

    Raises:
        ConfigError: its SDK is not installed or wrongly configured.
        NoCredentialsError: it needs credentials and finds none.
    """
    try:
        return _open(uri, access)
    finally:
        _end_of_start()


def _open(uri: ModelURI, access: Access) -> Source:
    match uri.scheme:
        case "s3":
            from modelfetch.sources.s3.source import S3Source

            return S3Source(uri, access)
        case "gs":
            from modelfetch.sources.gcs.source import GCSSource

            return GCSSource(uri, access)
        case "https" | "http":
            from modelfetch.sources.https import HTTPSource

            return HTTPSource(uri, access)
        case "file":
            from modelfetch.sources.file import FileSource

            return FileSource(uri, access)


def _end_of_start() -> None:
    """Collect garbage from now on, but not among what the start has made: to look through that took an eighth of it."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()

"""Options of sources that tests open without the command line."""

from modelfetch.sources import SourceOptions
from modelfetch.sources.gcs.spec import GCSOptions
from modelfetch.sources.s3.spec import S3Options


def anonymous_options(scheme: str, endpoint: str) -> SourceOptions:
    """Return options to open `s3` or `gs` at an endpoint without credentials."""
    return S3Options(anonymous=True, endpoint=endpoint) if scheme == "s3" else GCSOptions(emulator=endpoint)

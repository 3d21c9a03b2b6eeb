"""Google Cloud Storage as a source: addresses and options. Importing this module loads no SDK."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelfetch.sources.base import Source, SourceOptions, SourceSpec, refuse_secret_in_path
from modelfetch.sources.bucket_uri import make_bucket_uri, split_version
from modelfetch.uri import ModelURI, split_scheme

_GENERATION = re.compile(r"#([0-9]+)\Z")  # a fragment with other characters belongs to the name


@dataclass(frozen=True)
class GCSOptions(SourceOptions):
    """Options of Google Cloud Storage, beside those that google-auth reads itself.

    Attributes:
        emulator: URL of an emulator (STORAGE_EMULATOR_HOST), asked without credentials; None for Google's own.
    """

    emulator: str | None = None


def parse_gcs_uri(text: str) -> ModelURI:
    """Parse `gs://bucket/object[#generation]`; `gcs://` means the same.

    Raises:
        UsageError: no bucket, credentials in the address, or a generation of a directory.
    """
    rest, generation = split_version(split_scheme(text)[1], _GENERATION)
    bucket, _, key = rest.partition("/")
    return make_bucket_uri("gs", bucket, key, generation, text)


def pin_gcs_uri(uri: ModelURI, generation: str) -> str:
    """Return the address of one generation, as `parse_gcs_uri` reads it."""
    return f"{uri}#{generation}"


def read_gcs_options(environ: Mapping[str, str], common: SourceOptions) -> GCSOptions:
    """Read STORAGE_EMULATOR_HOST; a host without a scheme speaks http, as the SDK has it.

    Raises:
        ConfigError: GOOGLE_APPLICATION_CREDENTIALS holds a key instead of a path.
    """
    emulator = environ.get("STORAGE_EMULATOR_HOST")
    if not (emulator or common.anonymous):
        refuse_secret_in_path(environ, "GOOGLE_APPLICATION_CREDENTIALS")
    if emulator and "://" not in emulator:
        emulator = f"http://{emulator}"
    return replace(GCSOptions.of(common), emulator=emulator.rstrip("/") if emulator else None)


def open_gcs(uri: ModelURI, options: SourceOptions) -> Source:
    """Open a GCS address; loads google-auth unless access is anonymous.

    Raises:
        ConfigError: the SDK's configuration makes no sense.
        NoCredentialsError: no credentials were found, and access is not anonymous.
    """
    from modelfetch.sources.gcs.source import GCSSource  # noqa: PLC0415  other sources need not load the module

    return GCSSource(uri, GCSOptions.of(options))


SPEC = SourceSpec(("gs", "gcs"), parse_gcs_uri, read_gcs_options, open_gcs, writable=True)

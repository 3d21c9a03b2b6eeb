"""Addresses of objects in buckets: the rules that S3 and Google Cloud Storage share."""

import re

from modelfetch.errors import UsageError
from modelfetch.uri import ModelURI, mask_uri

MAX_KEY_BYTES = 1024  # of S3 and of Google Cloud Storage


def split_version(rest: str, pattern: re.Pattern[str]) -> tuple[str, str | None]:
    """Split the version that `pattern` finds (as group 1) from the end of an address."""
    found = pattern.search(rest)
    return (rest[: found.start()], found[1]) if found else (rest, None)


def make_bucket_uri(scheme: str, bucket: str, key: str, version: str | None, text: str) -> ModelURI:
    """Check the parts of a bucket's address and put the address together.

    Args:
        scheme: kind of store.
        bucket: bucket name.
        key: object key or prefix.
        version: requested version; None for the newest.
        text: whole address, for messages.

    Raises:
        UsageError: no bucket, credentials in the address, an empty version, or a version of a directory.
    """
    shown = mask_uri(text, secret_query=False)
    if not bucket:
        raise UsageError(f"No bucket in {shown!r}.", hint=f"Write {scheme}://bucket/path.")
    if "@" in bucket:
        raise UsageError("The address holds credentials.", hint="Give them in variables or files that the SDK reads.")
    if version == "":
        raise UsageError(f"Empty versionId in {text!r}.", hint="Give the version's id, or leave ?versionId= away.")
    if version is not None and (not key or key.endswith("/")):
        raise UsageError(
            f"A version pins one object, not a directory: {text!r}.", hint="Name the object, or drop the pin."
        )
    return ModelURI(scheme, bucket, key, version)

"""Translation of library exceptions into ours, and the contract of every translated error."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from modelfetch import errors
from modelfetch.errors import ChangedError, ModelfetchError, TransientError
from modelfetch.net import retry
from modelfetch.sources import parse_uri
from modelfetch.sources.gcs.source import GCSSource
from modelfetch.sources.gcs.spec import GCSOptions
from modelfetch.sources.s3.source import S3Source
from modelfetch.sources.s3.spec import S3Options
from modelfetch.transfer.range_reader import RangeReader
from testkit.library_errors import SECRET

if TYPE_CHECKING:
    from modelfetch.net.connection_pool import Response

Translation = Callable[[], AbstractContextManager[None]]


@cache
def s3_source() -> S3Source:
    """Return a source for translations; no request is sent."""
    return S3Source(parse_uri("s3://b/k"), S3Options(anonymous=True, endpoint="http://store.invalid:9000"))


@cache
def gcs_source() -> GCSSource:
    """Return a source for translations; no request is sent."""
    return GCSSource(parse_uri("gs://b/o"), GCSOptions(emulator="http://store.invalid:4443"))


def s3_translation() -> AbstractContextManager[None]:
    """Return the context in which requests through boto3 are made."""
    return s3_source()._explain_sdk_errors("k")


def gcs_translation() -> AbstractContextManager[None]:
    """Return the context in which requests through Google's SDK are made."""
    return gcs_source()._explain_sdk_errors("o")


def translate_error(error: Exception, translation: Translation) -> ModelfetchError:
    """Return our error for a library's exception."""
    with pytest.raises(ModelfetchError) as caught, translation():
        raise error
    return caught.value


def translate_read_error(error: Exception) -> ModelfetchError:
    """Return our error for an exception raised while a body is read."""

    def fail(_: memoryview) -> int:
        raise error

    wire = RangeReader(s3_source(), lambda _: None)
    with pytest.raises(ModelfetchError) as caught:
        wire._guard_reads(cast("Response", SimpleNamespace(readinto=fail)), "store.invalid")(memoryview(bytearray(1)))
    return caught.value


def assert_error_contract(error: ModelfetchError, kind: type[ModelfetchError]) -> None:
    """Check class, exit code, message, hint and retryability of a translated error."""
    assert type(error) is kind, f"{error!r} is no {kind.__name__}"
    assert error.code not in (0, errors.BUG_CODE)
    assert error.message.endswith(".")
    assert "\n" not in error.message
    assert error.hint
    assert SECRET not in f"{error.message} {error.hint}"
    again = kind in (TransientError, ChangedError)
    assert error.retryable == again
    assert retry.is_transient(error) == (kind is TransientError)

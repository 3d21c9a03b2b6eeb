"""Read a small object, such as a manifest, into memory."""

import zlib
from collections.abc import Mapping

from modelfetch import checksums
from modelfetch.checksums import Fingerprint, InOrderDigests
from modelfetch.errors import MismatchError, WrongBytesError
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer.range_reader import RangeReader

_GZIP = 31  # zlib's window bits for a stream with gzip's header


def read_object(source: Source, obj: RemoteObject, max_bytes: int) -> bytes:
    """Return an object's bytes, pinned to one version and compared with the store's checksums.

    Damaged bytes are fetched once more; bytes stored with contentEncoding gzip are decoded.

    Args:
        source: store of the object.
        obj: object to read.
        max_bytes: largest size in bytes, stored and decoded.

    Raises:
        WrongBytesError: the object is too large, or no gzip stream despite contentEncoding gzip.
        MismatchError: the bytes arrived damaged twice.
        ModelfetchError: the object cannot be fetched.
    """
    if obj.size is not None and obj.size > max_bytes:
        raise _too_large(obj, max_bytes)
    reader = RangeReader(source, lambda _: None)
    try:
        try:
            data = _read_verified(reader, obj, max_bytes)
        except MismatchError:
            data = _read_verified(reader, obj, max_bytes)
    finally:
        reader.close()
    return _gunzip_bytes(data, obj, max_bytes) if obj.gzip else data


def _read_verified(reader: RangeReader, obj: RemoteObject, max_bytes: int) -> bytes:
    sink = _BoundedBuffer(obj, max_bytes)
    reader.read_range(obj, 0, obj.size, sink)
    data, expected = bytes(sink.data), obj.checksums or sink.checksums
    algorithm, in_order = checksums.choose_crc(expected), InOrderDigests(expected)
    in_order.update(data)
    crc = checksums.format_crc(algorithm, checksums.update_crc(algorithm, data))
    received = Fingerprint(len(data), {algorithm: crc, **in_order.hexdigests()})
    checksums.compare_checksums(obj.key, received, size=obj.size, expected=expected)
    return data


class _BoundedBuffer:
    """Sink that keeps received bytes up to a limit."""

    def __init__(self, obj: RemoteObject, max_bytes: int) -> None:
        self.data = bytearray()
        self.checksums: Mapping[str, str] = {}
        self._obj = obj
        self._max_bytes = max_bytes

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        self.checksums = self.checksums or checksums

    def write(self, data: memoryview) -> None:
        self.data += data
        if len(self.data) > self._max_bytes:
            raise _too_large(self._obj, self._max_bytes)


def _gunzip_bytes(data: bytes, obj: RemoteObject, max_bytes: int) -> bytes:
    try:
        plain = zlib.decompressobj(_GZIP).decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise WrongBytesError(f"{obj.key} is no gzip stream: {error}.", hint="Upload it again.") from error
    if len(plain) > max_bytes:
        raise _too_large(obj, max_bytes)
    return plain


def _too_large(obj: RemoteObject, max_bytes: int) -> WrongBytesError:
    return WrongBytesError(
        f"{obj.key} has more than {max_bytes} bytes, too many to be read.", hint="Push the model again."
    )

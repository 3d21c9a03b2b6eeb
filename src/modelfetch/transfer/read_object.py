"""Reads an object that fits into memory: what stands beside a model, such as its manifest."""

import zlib
from collections.abc import Mapping

from modelfetch import checksums
from modelfetch.checksums import Fingerprint, InOrderDigests
from modelfetch.errors import MismatchError, WrongBytesError
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer.range_reader import RangeReader

_GZIP = 31  # zlib's window bits for a stream with gzip's header


def read_object(source: Source, obj: RemoteObject, most: int) -> bytes:
    """An object's bytes, pinned to its version and compared with what the store says of them.

    What arrives damaged is fetched once more. What is stored with contentEncoding gzip is decoded.

    Args:
        source: where it is.
        obj: what to read.
        most: bytes that it may have.

    Raises:
        WrongBytesError: it is larger, or no gzip stream although it should be.
        MismatchError: it arrived damaged twice.
        ModelfetchError: it cannot be fetched.
    """
    if obj.size is not None and obj.size > most:
        raise _too_large(obj, most)
    wire = RangeReader(source, lambda _: None)
    try:
        try:
            data = _read_verified(wire, obj, most)
        except MismatchError:
            data = _read_verified(wire, obj, most)
    finally:
        wire.close()
    return _gunzip_bytes(data, obj, most) if obj.gzip else data


def _read_verified(wire: RangeReader, obj: RemoteObject, most: int) -> bytes:
    sink = _BoundedBuffer(obj, most)
    wire.read_range(obj, 0, obj.size, sink)
    data, expected = bytes(sink.data), obj.checksums or sink.checksums
    algorithm, in_order = checksums.choose_crc(expected), InOrderDigests(expected)
    in_order.update(data)
    crc = checksums.format_crc(algorithm, checksums.update_crc(algorithm, data))
    came = Fingerprint(len(data), {algorithm: crc, **in_order.hexdigests()})
    checksums.compare_checksums(obj.key, came, size=obj.size, expected=expected)
    return data


class _BoundedBuffer:
    """Holds what arrives; refuses to hold too much."""

    def __init__(self, obj: RemoteObject, most: int) -> None:
        self.data = bytearray()
        self.checksums: Mapping[str, str] = {}
        self._obj = obj
        self._most = most

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        self.checksums = self.checksums or checksums

    def write(self, data: memoryview) -> None:
        self.data += data
        if len(self.data) > self._most:
            raise _too_large(self._obj, self._most)


def _gunzip_bytes(data: bytes, obj: RemoteObject, most: int) -> bytes:
    try:
        plain = zlib.decompressobj(_GZIP).decompress(data, most + 1)
    except zlib.error as error:
        raise WrongBytesError(f"{obj.key} is no gzip stream: {error}.", hint="Upload it again.") from error
    if len(plain) > most:
        raise _too_large(obj, most)
    return plain


def _too_large(obj: RemoteObject, most: int) -> WrongBytesError:
    return WrongBytesError(f"{obj.key} has more than {most} bytes, too many to be read.", hint="Push the model again.")

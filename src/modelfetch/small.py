"""Reads an object that fits into memory: what stands beside a model, such as its manifest."""

import zlib
from collections.abc import Mapping

from modelfetch import integrity
from modelfetch.errors import MismatchError, WrongBytesError
from modelfetch.integrity import Fingerprint, InOrder
from modelfetch.sources import RemoteObject, Source
from modelfetch.wire import Wire

_GZIP = 31  # zlib's window bits for a stream with gzip's header


def read(source: Source, obj: RemoteObject, most: int) -> bytes:
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
    wire = Wire(source, lambda _: None)
    try:
        try:
            data = _fetch(wire, obj, most)
        except MismatchError:
            data = _fetch(wire, obj, most)
    finally:
        wire.close()
    return _decoded(data, obj, most) if obj.gzip else data


def _fetch(wire: Wire, obj: RemoteObject, most: int) -> bytes:
    sink = _Sink(obj, most)
    wire.fetch(obj, 0, obj.size, sink)
    data, expected = bytes(sink.data), obj.checksums or sink.checksums
    algorithm, in_order = integrity.crc_of(expected), InOrder(expected)
    in_order.update(data)
    crc = integrity.crc_hex(algorithm, integrity.crc(algorithm, data))
    came = Fingerprint(len(data), {algorithm: crc, **in_order.results()})
    integrity.verify(obj.key, came, size=obj.size, expected=expected)
    return data


class _Sink:
    """Holds what arrives; refuses to hold too much."""

    def __init__(self, obj: RemoteObject, most: int) -> None:
        self.data = bytearray()
        self.checksums: Mapping[str, str] = {}
        self._obj = obj
        self._most = most

    def begin(self, checksums: Mapping[str, str]) -> None:
        self.checksums = self.checksums or checksums

    def write(self, data: memoryview) -> None:
        self.data += data
        if len(self.data) > self._most:
            raise _too_large(self._obj, self._most)


def _decoded(data: bytes, obj: RemoteObject, most: int) -> bytes:
    try:
        plain = zlib.decompressobj(_GZIP).decompress(data, most + 1)
    except zlib.error as error:
        raise WrongBytesError(f"{obj.key} is no gzip stream: {error}.", hint="Upload it again.") from error
    if len(plain) > most:
        raise _too_large(obj, most)
    return plain


def _too_large(obj: RemoteObject, most: int) -> WrongBytesError:
    return WrongBytesError(f"{obj.key} has more than {most} bytes, too many to be read.", hint="Push the model again.")

"""Bytes that come in order and once, and their decompression in bounded pieces."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

from modelfetch.archive.base import ForwardReader
from modelfetch.errors import ArchiveError, BudgetError, ModelfetchError

# Bytes handed on at a time, and read at a time: large, for each step lets go of Python's lock, and to get it back waits
# for a thread that downloads.
PIECE = 512 * 1024
_READ = 256 * 1024
MAX_WINDOW_LOG = 27  # 128 MiB, the largest that zstd's own tools unpack unasked; `zstd --long` needs as much
MAX_XZ_MEMORY = 128 * 1024**2  # bytes; `xz -9` needs 65 MiB
RATIO_FREE = 64 * 1024  # unpacked bytes from which a ratio means something


class Decompressor(Protocol):
    """What the standard library's decompressors have in common, and those of isal and zstd with them."""

    @property
    def eof(self) -> bool: ...  # noqa: D102
    @property
    def needs_input(self) -> bool: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...  # noqa: D102


class Codec(NamedTuple):
    """A compression: its name, a decompressor for one member of a stream, and what that raises on bad input."""

    name: str
    new: Callable[[], Decompressor]
    errors: tuple[type[Exception], ...]


def codec(kind: str) -> Codec:
    """Return the codec called `gzip`, `deflate`, `bzip2`, `xz` or `zstd`."""
    # Each library is imported on demand: most pulls unpack nothing, and start-up is what they wait for.
    match kind:
        case "gzip" | "deflate":
            from isal import igzip_lib  # noqa: PLC0415

            flag = igzip_lib.DECOMP_GZIP if kind == "gzip" else igzip_lib.DECOMP_DEFLATE
            error: Any = igzip_lib.IsalError  # its stub takes the class for an instance
            return Codec(kind, partial(igzip_lib.IgzipDecompressor, flag=flag), (error,))
        case "bzip2":
            import bz2  # noqa: PLC0415

            return Codec(kind, bz2.BZ2Decompressor, (OSError, ValueError))
        case "xz":
            import lzma  # noqa: PLC0415

            new = partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)
            return Codec(kind, new, (lzma.LZMAError,))
        case _:
            if sys.version_info >= (3, 14):
                from compression import zstd  # noqa: PLC0415
            else:
                from backports import zstd  # noqa: PLC0415

            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
            return Codec(kind, partial(zstd.ZstdDecompressor, options=options), (zstd.ZstdError,))


class CompressedInput:
    """The archive's own bytes: how many there were, and what broke off their stream."""

    def __init__(self, stream: ForwardReader) -> None:
        self._stream = stream
        self.size = 0
        self.failure: ModelfetchError | None = None

    def __iter__(self) -> Iterator[bytes]:
        while data := self._read():
            self.size += len(data)
            yield data

    def _read(self) -> bytes:
        try:
            return self._stream.read(_READ)
        except ModelfetchError as error:
            self.failure = error
            raise


class ForwardBuffer:
    """A stream that is read forward only, from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end, and leave them in the stream."""
        head = bytes(self._rest)
        while len(head) < size and (piece := next(self._pieces, b"")):
            head += piece
        self._rest = memoryview(head)
        return head[:size]

    def upto(self, size: int) -> bytes:
        """Take `size` bytes; fewer only at the end."""
        taken = bytes(self._some(size))
        while len(taken) < size and (piece := self._some(size - len(taken))):
            taken += piece
        return taken

    def exactly(self, size: int) -> Iterator[memoryview]:
        """Take `size` bytes in pieces; an ArchiveError if the stream ends before."""
        while size:
            piece = self._some(size)
            if not piece:
                raise ArchiveError("The archive ends in the middle of a member.")
            size -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """Take all that is left."""
        while piece := self._some(PIECE):
            yield bytes(piece)

    def _some(self, most: int) -> memoryview:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece


def inflate(packed: Iterator[bytes], codec: Codec, *, single: bool = False) -> Iterator[bytes]:
    """Decompress a stream of one or more members into pieces of at most PIECE bytes.

    Zeros after a member are padding, as gzip(1) and xz(1) have it; anything else after it must be another member.

    Args:
        packed: the stream, in pieces that are not empty.
        codec: how it is compressed.
        single: whether there must be one member only, and nothing after it.

    Raises:
        ArchiveError: the stream is corrupt, ends too early, needs too much memory, or something follows it.
    """
    data = next(packed, b"")
    first = True
    while data or first:
        if single and not first:
            raise ArchiveError(f"Something follows the end of a {codec.name} stream.")
        decoder = codec.new()
        while not decoder.eof:
            if decoder.needs_input and not data:
                data = next(packed, b"")
                if not data:
                    raise ArchiveError(f"The {codec.name} stream ends too early.")
            piece = _decompress(decoder, data, codec, first=first)
            data = b""
            if piece:
                yield piece
        data, first = _after_padding(decoder.unused_data, packed), False


def within_ratio(pieces: Iterator[bytes], packed: CompressedInput, most: float) -> Iterator[bytes]:
    """Pass decompressed pieces on until they are `most` times what they were unpacked from; then a BudgetError."""
    size = 0
    for piece in pieces:
        size += len(piece)
        check_ratio(size, packed.size, most)
        yield piece


def check_ratio(unpacked: int, packed: int, most: float) -> None:
    """Refuse an expansion beyond the budget.

    Raises:
        BudgetError: more than RATIO_FREE bytes came out, and more than `most` times what went in.
    """
    if unpacked > RATIO_FREE and unpacked > most * packed:
        raise BudgetError(
            f"The archive expands more than {most:g} times.",
            hint="If it may be trusted, raise --max-ratio (MODELFETCH_MAX_RATIO).",
        )


def _decompress(decoder: Decompressor, data: bytes, codec: Codec, *, first: bool) -> bytes:
    try:
        return decoder.decompress(data, PIECE)
    except codec.errors as error:
        if "memory" in str(error).lower():  # the libraries have no type of their own for it
            raise ArchiveError(
                f"Unpacking the {codec.name} stream needs more than 128 MiB of memory.",
                hint="Pack it with a smaller window, as zstd and xz do up to level 19 and 9, without --long.",
            ) from error
        where = "is corrupt" if first else "is corrupt, or something follows its end"
        raise ArchiveError(f"The {codec.name} stream {where} ({error}).") from error


def _after_padding(data: bytes, packed: Iterator[bytes]) -> bytes:
    """Return what comes after zeros; nothing, if nothing does."""
    data = data.lstrip(b"\0")
    while not data and (piece := next(packed, b"")):
        data = piece.lstrip(b"\0")
    return data

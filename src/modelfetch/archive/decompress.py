"""Forward-only byte streams and their decompression in bounded pieces."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

from modelfetch.archive.base import ForwardReader
from modelfetch.errors import ArchiveError, BudgetError, ModelfetchError

# Bytes per output piece and per read. Large pieces, because each step releases the GIL and then waits for a download
# thread to return the lock.
PIECE_BYTES = 512 * 1024
_READ_BYTES = 256 * 1024
MAX_WINDOW_LOG = 27  # 128 MiB: the largest window of the zstd tools by default, and the one of `zstd --long`
MAX_XZ_MEMORY = 128 * 1024**2  # bytes; `xz -9` needs 65 MiB
RATIO_EXEMPT_BYTES = 64 * 1024  # decompressed bytes below which a compression ratio means nothing


class Decompressor(Protocol):
    """Common interface of the decompressors of the standard library, isal and zstd."""

    @property
    def eof(self) -> bool: ...  # noqa: D102
    @property
    def needs_input(self) -> bool: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...  # noqa: D102


class Codec(NamedTuple):
    """Compression format: name, factory of a decompressor for one stream member, its exceptions for bad input."""

    name: str
    new_decompressor: Callable[[], Decompressor]
    errors: tuple[type[Exception], ...]


def load_codec(name: str) -> Codec:
    """Return the codec named `gzip`, `deflate`, `bzip2`, `xz` or `zstd`."""
    # Each library is imported on demand: most pulls extract nothing, and start-up time dominates them.
    match name:
        case "gzip" | "deflate":
            from isal import igzip_lib  # noqa: PLC0415

            flag = igzip_lib.DECOMP_GZIP if name == "gzip" else igzip_lib.DECOMP_DEFLATE
            error: Any = igzip_lib.IsalError  # the stub declares the class as an instance
            return Codec(name, partial(igzip_lib.IgzipDecompressor, flag=flag), (error,))
        case "bzip2":
            import bz2  # noqa: PLC0415

            return Codec(name, bz2.BZ2Decompressor, (OSError, ValueError))
        case "xz":
            import lzma  # noqa: PLC0415

            new = partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)
            return Codec(name, new, (lzma.LZMAError,))
        case _:
            if sys.version_info >= (3, 14):
                from compression import zstd  # noqa: PLC0415
            else:
                from backports import zstd  # noqa: PLC0415

            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
            return Codec(name, partial(zstd.ZstdDecompressor, options=options), (zstd.ZstdError,))


class CompressedInput:
    """Compressed bytes of the archive; counts the bytes read and keeps the error that ended the stream."""

    def __init__(self, stream: ForwardReader) -> None:
        self._stream = stream
        self.bytes_read = 0
        self.stream_error: ModelfetchError | None = None

    def __iter__(self) -> Iterator[bytes]:
        while data := self._read_piece():
            self.bytes_read += len(data)
            yield data

    def _read_piece(self) -> bytes:
        try:
            return self._stream.read(_READ_BYTES)
        except ModelfetchError as error:
            self.stream_error = error
            raise


class ForwardBuffer:
    """Forward-only reader over pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffered = memoryview(b"")

    def peek_bytes(self, size: int) -> bytes:
        """Return the next `size` bytes without consuming them; fewer only at the end."""
        head = bytes(self._buffered)
        while len(head) < size and (piece := next(self._pieces, b"")):
            head += piece
        self._buffered = memoryview(head)
        return head[:size]

    def read_up_to(self, size: int) -> bytes:
        """Consume and return `size` bytes; fewer only at the end."""
        taken = bytes(self._take_piece(size))
        while len(taken) < size and (piece := self._take_piece(size - len(taken))):
            taken += piece
        return taken

    def read_exactly(self, size: int) -> Iterator[memoryview]:
        """Consume exactly `size` bytes, in pieces.

        Raises:
            ArchiveError: the stream ends early.
        """
        while size:
            piece = self._take_piece(size)
            if not piece:
                raise ArchiveError("The archive ends in the middle of a member.")
            size -= len(piece)
            yield piece

    def read_rest(self) -> Iterator[bytes]:
        """Consume all remaining bytes, in pieces."""
        while piece := self._take_piece(PIECE_BYTES):
            yield bytes(piece)

    def _take_piece(self, limit: int) -> memoryview:
        if not self._buffered:
            self._buffered = memoryview(next(self._pieces, b""))
        piece, self._buffered = self._buffered[:limit], self._buffered[limit:]
        return piece


def decompress_stream(compressed: Iterator[bytes], codec: Codec, *, single_member: bool = False) -> Iterator[bytes]:
    """Decompress a stream of one or more members into pieces of at most PIECE_BYTES.

    Zeros after a member are padding, as for gzip(1) and xz(1); any other bytes must begin another member.

    Args:
        compressed: the stream, in non-empty pieces.
        codec: compression format of the stream.
        single_member: require exactly one member and nothing after it.

    Raises:
        ArchiveError: the stream is corrupt, ends early, needs too much memory, or is followed by other bytes.
    """
    data = next(compressed, b"")
    first = True
    while data or first:
        if single_member and not first:
            raise ArchiveError(f"Something follows the end of a {codec.name} stream.")
        decompressor = codec.new_decompressor()
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                data = next(compressed, b"")
                if not data:
                    raise ArchiveError(f"The {codec.name} stream ends too early.")
            piece = _decompress_piece(decompressor, data, codec, first=first)
            data = b""
            if piece:
                yield piece
        data, first = _skip_padding(decompressor.unused_data, compressed), False


def enforce_ratio(pieces: Iterator[bytes], source: CompressedInput, max_ratio: float) -> Iterator[bytes]:
    """Pass decompressed pieces through while the compression ratio stays within the budget.

    Raises:
        BudgetError: more than RATIO_EXEMPT_BYTES came out, and more than `max_ratio` times the bytes of `source`.
    """
    size = 0
    for piece in pieces:
        size += len(piece)
        check_ratio(size, source.bytes_read, max_ratio)
        yield piece


def check_ratio(decompressed: int, compressed: int, max_ratio: float) -> None:
    """Refuse a compression ratio above the budget.

    Raises:
        BudgetError: `decompressed` exceeds RATIO_EXEMPT_BYTES and `max_ratio` times `compressed`.
    """
    if decompressed > RATIO_EXEMPT_BYTES and decompressed > max_ratio * compressed:
        raise BudgetError(
            f"The archive expands more than {max_ratio:g} times.",
            hint="If it may be trusted, raise --max-ratio (MODELFETCH_MAX_RATIO).",
        )


def _decompress_piece(decompressor: Decompressor, data: bytes, codec: Codec, *, first: bool) -> bytes:
    try:
        return decompressor.decompress(data, PIECE_BYTES)
    except codec.errors as error:
        if "memory" in str(error).lower():  # the libraries have no exception type for this case
            raise ArchiveError(
                f"Unpacking the {codec.name} stream needs more than 128 MiB of memory.",
                hint="Pack it with a smaller window, as zstd and xz do up to level 19 and 9, without --long.",
            ) from error
        flaw = "is corrupt" if first else "is corrupt, or something follows its end"
        raise ArchiveError(f"The {codec.name} stream {flaw} ({error}).") from error


def _skip_padding(data: bytes, compressed: Iterator[bytes]) -> bytes:
    """Skip padding zeros and return the first bytes after them; empty at the end of the stream."""
    data = data.lstrip(b"\0")
    while not data and (piece := next(compressed, b"")):
        data = piece.lstrip(b"\0")
    return data

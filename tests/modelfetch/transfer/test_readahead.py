"""Forward reader of an object: order, memory and the end of a closed reader."""

from pathlib import Path

import pytest

from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.sources.file import FileSource
from modelfetch.transfer.adaptive_pool import TransferLimits
from modelfetch.transfer.range_reader import RangeReader, TransferStopped
from modelfetch.transfer.readahead import ReadAhead
from testkit.file_tree import random_bytes, sha256_hex

DATA = random_bytes(3_000_000, 1)
LIMITS = TransferLimits(memory=1024**2)  # parts of 256 KiB


def open_readahead(directory: Path, *, closed: bool = False) -> ReadAhead:
    """Read a file of several parts ahead, over an open or a closed reader."""
    (directory / "m").write_bytes(DATA)
    source = FileSource(parse_uri(str(directory / "m")), SourceOptions())
    reader = RangeReader(source, lambda _: None)
    if closed:
        reader.close()
    return ReadAhead(reader, source.resolve().objects[0], LIMITS)


def test_parts_are_read_in_order_with_their_fingerprint(tmp_path: Path) -> None:
    """Pieces of any size give the whole object, and the sha256 is ready at the end."""
    window = open_readahead(tmp_path)
    pieces = []
    while piece := window.read(100_000):
        pieces.append(piece)

    assert b"".join(pieces) == DATA
    assert window.fingerprint().sha256 == sha256_hex(DATA)


def test_closed_reader_ends_the_read_instead_of_a_wait(tmp_path: Path) -> None:
    """A read after the end of the pull raises; no further part will arrive."""
    window = open_readahead(tmp_path, closed=True)

    with pytest.raises(TransferStopped):
        window.read(1)

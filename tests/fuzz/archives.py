"""The archives to begin with: a bit of everything; and how a mutant gets through the checksums that would stop it."""

import random
from collections.abc import Iterator

from testkit import archives


def _noise(size: int) -> bytes:
    """The same each time: hypothesis tries an input again."""
    return random.Random("contents").randbytes(size)


def _everything() -> bytes:
    """A tar with every kind of header and member."""
    long = "/".join(["long" * 7] * 3)
    short = _noise(60)
    sized = archives.pax_header(("path", long), ("size", "70"), ("comment", "x")) + archives.tar_header("x", 70)
    return archives.make_tar(
        archives.tar_member("./", kind=b"5"),
        archives.pax_header(("comment", "abc"), kind=b"g"),
        sized + archives.pad_to_block(bytes(70)),
        archives.tar_member("././@LongLink", b"other/" + long.encode() + b"\0", b"L") + archives.tar_member("x", short),
        archives.tar_member("l", kind=b"2", target=long) + archives.tar_member("h", kind=b"1", target=long),
        archives.tar_member("run", b"#!/bin/sh", mode=0o4755),
        archives.tar_member("d", kind=b"5") + archives.tar_member("d/up", kind=b"2", target="../run"),
    )


def _zips() -> Iterator[bytes]:
    files = (("d/a", _noise(300)), ("b", b"text " * 50), ("empty", b""), ("e/", b""))
    yield archives.make_zip(*files)
    yield archives.make_zip(*files, method=12)
    entry = archives.ZipEntry
    yield archives.make_raw_zip(
        *(entry(b"good", b"x"), entry(b"l", b"good", 0o120777), entry(b"e/"), entry(b"d/x", b"content")),
        comment=b"comment",
    )


def tars() -> list[bytes]:
    """Plain tars."""
    long = "long" * 20
    return [_everything(), archives.pack_files({f"{long}/{long}": b"x" * 100, "ünï": b"y"}, "tar"), archives.make_tar()]


def seeds() -> list[bytes]:
    """Archives of every format, each with the byte that says how it is wrapped: see `wrapped`."""
    plain = [bytes([way]) + tar for tar in tars() for way in range(len(WAYS))]
    return plain + [
        b"\0" + each for each in (*_zips(), *(archives.COMPRESSORS[how](_everything()) for how in archives.COMPRESSORS))
    ]


WAYS = ("", "forged", "gzip", "zstd", "forged gzip", "bzip2", "xz")


def wrapped(data: bytes) -> bytes:
    """The archive that the first byte makes of the rest: as it is, packed, with the checksums of its headers mended."""
    way = WAYS[data[0] % len(WAYS)] if data else ""
    plain = mended(data[1:]) if way.startswith("forged") else data[1:]
    return archives.COMPRESSORS.get(way.removeprefix("forged").strip(), bytes)(plain)


def mended(data: bytes) -> bytes:
    """A tar with right checksums in all that looks like a header."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(_mended(block) if block[257:262] == b"ustar" and len(block) == 512 else block for block in blocks)


def _mended(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]

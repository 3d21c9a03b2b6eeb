"""Seed archives with every feature, and wrappings to carry a mutation past the checksums of a format."""

import random
from collections.abc import Iterator

from testkit import archives


def _fixed_bytes(size: int) -> bytes:
    """Return the same bytes each time: hypothesis repeats inputs."""
    return random.Random("contents").randbytes(size)


def _make_full_tar() -> bytes:
    """Return a tar with every kind of header and member."""
    long = "/".join(["long" * 7] * 3)
    short = _fixed_bytes(60)
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


def _make_zips() -> Iterator[bytes]:
    files = (("d/a", _fixed_bytes(300)), ("b", b"text " * 50), ("empty", b""), ("e/", b""))
    yield archives.make_zip(*files)
    yield archives.make_zip(*files, method=12)
    entry = archives.ZipEntry
    yield archives.make_raw_zip(
        *(entry(b"good", b"x"), entry(b"l", b"good", 0o120777), entry(b"e/"), entry(b"d/x", b"content")),
        comment=b"comment",
    )


def make_tars() -> list[bytes]:
    """Return several uncompressed tar archives."""
    long = "long" * 20
    return [
        _make_full_tar(),
        archives.pack_files({f"{long}/{long}": b"x" * 100, "ünï": b"y"}, "tar"),
        archives.make_tar(),
    ]


def make_seeds() -> list[bytes]:
    """Return archives of every format, each after the byte that selects a wrapping: see `wrap_archive`."""
    plain = [bytes([way]) + tar for tar in make_tars() for way in range(len(WRAPPINGS))]
    return plain + [
        b"\0" + each
        for each in (*_make_zips(), *(archives.COMPRESSORS[how](_make_full_tar()) for how in archives.COMPRESSORS))
    ]


WRAPPINGS = ("", "forged", "gzip", "zstd", "forged gzip", "bzip2", "xz")


def wrap_archive(data: bytes) -> bytes:
    """Wrap the rest as the first byte says: unchanged, compressed, with or without fixed header checksums."""
    way = WRAPPINGS[data[0] % len(WRAPPINGS)] if data else ""
    plain = fix_tar_checksums(data[1:]) if way.startswith("forged") else data[1:]
    return archives.COMPRESSORS.get(way.removeprefix("forged").strip(), bytes)(plain)


def fix_tar_checksums(data: bytes) -> bytes:
    """Return a tar with valid checksums in every block that looks like a header."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(
        _fix_header_checksum(block) if block[257:262] == b"ustar" and len(block) == 512 else block for block in blocks
    )


def _fix_header_checksum(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]

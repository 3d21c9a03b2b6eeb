"""Damage of every kind to every format: only our own errors come out, and nothing outside is touched."""

import io
import random
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from modelfetch.archive.streams import Forward, codec, inflate
from modelfetch.errors import ArchiveError, BudgetError, UnsafeNameError

RNG = random.Random("contents")
KINDS = ("tar", "pax", "gzip", "bzip2", "xz", "zstd", "zip", "zip-bzip2", "zip-stored")


def seed_archive(build: Any, kind: str) -> bytes:
    """Make an archive that has a bit of everything."""
    if kind == "zip-stored":
        entry = build.Entry
        parts = (entry(b"good", b"x"), entry(b"l", b"good", 0o120777), entry(b"e/"), entry(b"d/x", b"content"))
        stored: bytes = build.zip_raw(*parts, comment=b"comment")
        return stored
    if kind.startswith("zip"):
        files = (("d/a", RNG.randbytes(3000)), ("b", b"text " * 500), ("empty", b""), ("e/", b""))
        zipped: bytes = build.zip(*files, method=12 if kind == "zip-bzip2" else 8)
        return zipped
    long = "/".join(["long" * 7] * 3)
    members = [
        build.member("./", kind=b"5"),
        build.pax(("path", long), ("size", "700"), ("comment", "x")) + build.block("x", 700) + build.padded(bytes(700)),
        build.member("././@LongLink", b"other/" + long.encode() + b"\0", b"L") + build.member("x", RNG.randbytes(600)),
        build.member("l", kind=b"2", target=long) + build.member("h", kind=b"1", target=long),
        build.member("run", b"#!/bin/sh", mode=0o4755),
    ]
    plain = build.tar(*members) if kind != "pax" else build.packed({f"{long}/{long}": b"x" * 1000, "ünï": b"y"}, "tar")
    packed: bytes = build.packers.get(kind, bytes)(plain)
    return packed


def flip(data: bytearray, rng: random.Random) -> None:
    """Flip a few bits."""
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    """Put telling bytes somewhere."""
    telling = (b"\0", b"\xff" * 8, b"/", b"../", b"\x80", b"7777777", b"\0" * 512, b"PK\1\2", b"99 path=", b"-1", b"\n")
    piece = rng.choice(telling)
    start = rng.randrange(len(data))
    data[start : start + len(piece)] = piece


def cut(data: bytearray, rng: random.Random) -> None:
    """Take a piece out, or leave only what comes before it."""
    start = rng.randrange(len(data))
    del data[start : rng.choice((start + 1, start + 512, start + rng.randrange(2000), len(data)))]


def repeat(data: bytearray, rng: random.Random) -> None:
    """Put a piece in twice."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 20, 512, 1024, 5000))]
    where = rng.randrange(len(data))
    data[where:where] = piece


def forge(data: bytearray, rng: random.Random) -> None:
    """Change a tar's header, and make its checksum right again."""
    headers = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return flip(data, rng)
    at = rng.choice(headers)
    field, size = rng.choice(((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)))
    new = rng.choice(
        (b"../x", b"/x", b"", b"77777777777", b"\xff" * 12, b"\x80" + bytes(10) + b"\5", b"5", b"x", b"L", b"S", b"d/")
    )
    data[at + field : at + field + size] = new[:size].ljust(size, b"\0")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return None


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, overwrite, cut, repeat, forge)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archives_only_ever_raise_our_errors(build: Any, unpacked: Any, kind: str) -> None:
    """Some come out as something else, which the fixture compares with the disk; none hang, and none write outside."""
    rng = random.Random(kind)
    whole = seed_archive(build, kind)
    unpacked(whole)
    refused = []
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            rng.choice(MUTATIONS)(damaged, rng)
            damaged = damaged or bytearray(b"\0")
        if kind in ("gzip", "zstd") and rng.random() < 0.5:
            damaged = bytearray(build.packers[kind](bytes(damaged)))
        try:
            unpacked(bytes(damaged), max_bytes=2**24, max_files=50)
        except (ArchiveError, UnsafeNameError, BudgetError) as error:
            refused.append(error.message)
    assert refused
    assert all(message.isprintable() and len(message) < 600 for message in refused)


@pytest.mark.parametrize("kind", ["gzip", "deflate", "bzip2", "xz", "zstd"])
def test_damaged_streams_only_ever_raise_our_errors(build: Any, kind: str) -> None:
    """Whatever is cut or changed, the pieces stay bounded, and the end comes."""
    rng = random.Random(kind)
    data = RNG.randbytes(2000) * 20 + bytes(50_000)
    whole = build.packers.get(kind, lambda plain: build.packers["gzip"](plain)[10:-8])(data)
    for _ in range(300):
        damaged = bytearray(whole)
        rng.choice((flip, overwrite, cut, repeat))(damaged, rng)
        step = rng.choice((1, 100, 100_000))
        pieces = iter([bytes(damaged[start : start + step]) for start in range(0, len(damaged), step)])
        try:
            for piece in inflate(pieces, codec(kind)):
                assert 0 < len(piece) <= 128 * 1024
        except ArchiveError:
            continue


def test_what_both_unpack_is_what_pythons_tarfile_unpacks(build: Any, unpacked: Any) -> None:
    """Where we take a damaged tar, tarfile finds files of the same names and content in it."""
    rng = random.Random("both")
    whole = seed_archive(build, "tar")
    compared = 0
    for _ in range(300):
        damaged = bytearray(whole)
        rng.choice((flip, forge))(damaged, rng)
        try:
            root = unpacked(bytes(damaged), max_bytes=2**24)
        except (ArchiveError, UnsafeNameError, BudgetError):
            continue
        compared += 1
        with tarfile.open(fileobj=io.BytesIO(bytes(damaged))) as archive:
            for info in archive:
                file = archive.extractfile(info) if info.isreg() else None
                if file and not info.name.startswith("./"):
                    assert (root / info.name).read_bytes() == file.read()
    assert compared > 20


def test_a_stream_gives_what_is_asked_for(build: Any) -> None:
    """However the pieces come."""
    rng = random.Random("stream")
    data = rng.randbytes(10_000)
    for _ in range(100):
        cuts = sorted(rng.sample(range(1, len(data)), 20))
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        forward = Forward(iter(pieces))
        sizes = [rng.randrange(1200) for _ in range(6)]
        assert forward.peek(sizes[0]) == data[: sizes[0]]
        taken = b"".join(forward.upto(size) if size % 2 else b"".join(forward.exactly(size)) for size in sizes)
        assert taken + b"".join(forward.rest()) == data
        assert forward.upto(5) == b""
        with pytest.raises(ArchiveError):
            list(forward.exactly(1))

"""Decompression of objects stored under contentEncoding gzip."""

import gzip
import hashlib
from pathlib import Path

import pytest

from modelfetch.archive import gunzip_file
from modelfetch.archive.base import Budget, Member
from modelfetch.errors import ArchiveError, BudgetError

PLAIN = bytes(range(256)) * 4096
LARGE_BUDGET = Budget(max_bytes=1 << 30, max_files=10, max_ratio=1000)


def write_stored(tmp_path: Path, data: bytes) -> Path:
    """Write a stored object with this content."""
    path = tmp_path / "stored"
    path.write_bytes(data)
    return path


def gunzip(stored: Path, plain: Path, budget: Budget) -> Member:
    """Decompress a stored object into a new file."""
    with stored.open("rb") as source, plain.open("xb") as target:
        return gunzip_file("m.gz", source, target, budget)


def test_gunzip_returns_size_and_sha256_of_the_decompressed_file(tmp_path: Path) -> None:
    """Size and sha256 cover the decompressed bytes of all gzip members; the stored file stays."""
    stored = write_stored(tmp_path, gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]))

    member = gunzip(stored, tmp_path / "plain", LARGE_BUDGET)

    assert (tmp_path / "plain").read_bytes() == PLAIN
    assert (member.path, member.size, member.sha256) == ("m.gz", len(PLAIN), hashlib.sha256(PLAIN).hexdigest())
    assert stored.exists()


@pytest.mark.parametrize("flaw", ["cut", "flipped", "garbage", "no gzip"])
def test_damaged_gzip_is_refused(tmp_path: Path, flaw: str) -> None:
    """A truncated stream, a bad trailer, trailing bytes or plain content is an ArchiveError."""
    good = gzip.compress(PLAIN)
    bad = {
        "cut": good[:-9],
        "flipped": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
        "garbage": good + b"more",
        "no gzip": PLAIN,
    }[flaw]

    with pytest.raises(ArchiveError):
        gunzip(write_stored(tmp_path, bad), tmp_path / "plain", LARGE_BUDGET)


@pytest.mark.parametrize("budget", [Budget(1000, 10, 1000), Budget(1 << 30, 10, 2)])
def test_bomb_is_stopped_by_the_byte_budget_and_by_the_ratio(tmp_path: Path, budget: Budget) -> None:
    """More bytes than allowed, or too high a ratio, is a BudgetError before 2 MB are written."""
    stored = write_stored(tmp_path, gzip.compress(bytes(20_000_000)))

    with pytest.raises(BudgetError):
        gunzip(stored, tmp_path / "plain", budget)

    assert (tmp_path / "plain").stat().st_size < 2_000_000

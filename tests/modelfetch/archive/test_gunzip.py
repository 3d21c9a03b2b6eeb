"""The decoding of objects that are stored under contentEncoding gzip."""

import gzip
import hashlib
from pathlib import Path

import pytest

from modelfetch.archive import Budget, gunzip_file
from modelfetch.errors import ArchiveError, BudgetError

PLAIN = bytes(range(256)) * 4096
LARGE_BUDGET = Budget(max_bytes=1 << 30, max_files=10, max_ratio=1000)


def write_stored(tmp_path: Path, data: bytes) -> Path:
    """A file with these bytes."""
    path = tmp_path / "stored"
    path.write_bytes(data)
    return path


def test_the_decoded_file_is_described_and_the_stored_one_stays(tmp_path: Path) -> None:
    """Size and sha256 are those of the decoded bytes, of several members too."""
    stored = write_stored(tmp_path, gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]))

    member = gunzip_file(stored, tmp_path / "plain", LARGE_BUDGET)

    assert (tmp_path / "plain").read_bytes() == PLAIN
    assert (member.path, member.size, member.sha256) == ("plain", len(PLAIN), hashlib.sha256(PLAIN).hexdigest())
    assert stored.exists()


@pytest.mark.parametrize("flaw", ["cut", "flipped", "garbage", "no gzip"])
def test_what_is_damaged_is_refused(tmp_path: Path, flaw: str) -> None:
    """A stream that ends early, has a bad trailer or something behind it is no model."""
    good = gzip.compress(PLAIN)
    bad = {
        "cut": good[:-9],
        "flipped": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
        "garbage": good + b"more",
        "no gzip": PLAIN,
    }[flaw]

    with pytest.raises(ArchiveError):
        gunzip_file(write_stored(tmp_path, bad), tmp_path / "plain", LARGE_BUDGET)


@pytest.mark.parametrize("budget", [Budget(1000, 10, 1000), Budget(1 << 30, 10, 2)])
def test_a_bomb_is_stopped_by_either_budget(tmp_path: Path, budget: Budget) -> None:
    """More bytes than allowed, or more than allowed for each stored one; little of it was written."""
    stored = write_stored(tmp_path, gzip.compress(bytes(20_000_000)))

    with pytest.raises(BudgetError):
        gunzip_file(stored, tmp_path / "plain", budget)

    assert (tmp_path / "plain").stat().st_size < 2_000_000

import hashlib
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest

from bench import data
from bench.data import Sizes, StoredObject

SIZES = Sizes(large=100, far=10, sparse=9, weights=400, small_files=3, shards=2, shard=20, tiny=5)


def test_data_is_made_once_and_anew_for_other_sizes(tmp_path: Path) -> None:
    """Equal seeds give equal bytes; the index records the sizes."""
    first = data.make_data(tmp_path / "made", SIZES)
    (tmp_path / "made/tiny.bin").unlink()
    again = data.make_data(tmp_path / "made", SIZES)
    larger = data.make_data(tmp_path / "made", replace(SIZES, tiny=6))

    assert again == first
    assert data.make_data(tmp_path / "other", SIZES) == first
    assert (tmp_path / "made/tiny.bin").stat().st_size == 6
    assert [each.key for each in larger if each not in first] == ["tiny.bin"]


def test_what_others_have_there_is_not_touched(tmp_path: Path) -> None:
    """A directory without the bench's index is foreign and refused."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made/thesis.txt").write_text("years")

    with pytest.raises(OSError, match="not empty"):
        data.make_data(tmp_path / "made", SIZES)
    assert (tmp_path / "made/thesis.txt").read_text() == "years"


def test_checksums_are_those_of_the_bytes(tmp_path: Path) -> None:
    """Checksums equal the standard library's and Google's; the sparse object has the stated length."""
    objects = data.make_data(tmp_path / "made", SIZES)
    data.copy_objects(tmp_path / "made", objects, tmp_path / "copies")

    assert {each.key for each in objects} >= {"large.bin", "sparse.bin", "model.tar.gz", "model/weights-3.bin"}
    for each in objects:
        copied = (tmp_path / "copies" / each.key).read_bytes()
        assert each.size == len(copied)
        assert each.sha256 == hashlib.sha256(copied).hexdigest()
        assert each.md5 == hashlib.md5(copied, usedforsecurity=False).hexdigest()
        assert each.crc32c == f"{google_crc32c.value(copied):08x}"


def test_etags_and_md5_follow_the_way_of_the_upload() -> None:
    """S3 uploads in parts above 8 MiB; GCS composes from 150 MiB."""
    small = StoredObject("k", 8 * data.MIB, "aa" * 32, "bb" * 8, "cc" * 4, "dd" * 16)
    parts = replace(small, size=8 * data.MIB + 1)
    composed = replace(small, size=150 * data.MIB)

    assert (small.etag, parts.etag) == ("dd" * 16, f"{'aa' * 16}-2")
    assert parts.gcs_md5 == "3d3d3d3d3d3d3d3d3d3d3Q=="
    assert composed.gcs_md5 is None

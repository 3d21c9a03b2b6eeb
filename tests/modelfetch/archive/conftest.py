"""Fixtures that build archives by hand and extract them under guard (testkit/archives.py)."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from testkit import archives


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """Return the builders of hand-made archives."""
    return SimpleNamespace(
        block=archives.tar_header,
        end=archives.END_OF_TAR,
        member=archives.tar_member,
        packed=archives.pack_files,
        packers=archives.COMPRESSORS,
        padded=archives.pad_to_block,
        pax=archives.pax_header,
        tar=archives.make_tar,
        zip=archives.make_zip,
        zip_raw=archives.make_raw_zip,
        Entry=archives.ZipEntry,
        zstd=archives.zstd,
    )


@pytest.fixture
def extract(tmp_path: Path) -> Iterator[archives.GuardedExtractor]:
    """Extract archives, checked against the disk; no file may appear beside the numbered directories."""
    guarded = archives.GuardedExtractor(tmp_path / "guarded")
    guarded.place.mkdir()
    yield guarded
    assert {str(number + 1) for number in range(guarded.count)} == {each.name for each in guarded.place.iterdir()}

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
        block=archives.block,
        end=archives.END,
        member=archives.member,
        packed=archives.packed,
        packers=archives.PACKERS,
        padded=archives.padded,
        pax=archives.pax,
        tar=archives.tar,
        zip=archives.zip_of,
        zip_raw=archives.zip_raw,
        Entry=archives.Entry,
        zstd=archives.zstd,
    )


@pytest.fixture
def extract(tmp_path: Path) -> Iterator[archives.Guarded]:
    """Extract archives, checked against the disk; no file may appear beside the numbered directories."""
    guarded = archives.Guarded(tmp_path / "guarded")
    guarded.place.mkdir()
    yield guarded
    assert {str(number + 1) for number in range(guarded.count)} == {each.name for each in guarded.place.iterdir()}

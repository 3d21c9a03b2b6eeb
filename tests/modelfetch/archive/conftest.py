"""Archives made by hand, and their unpacking under guard: testkit/archives.py, as fixtures."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from testkit import archives


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """Makers of archives."""
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
def unpacked(tmp_path: Path) -> Iterator[archives.Guarded]:
    """Unpack archives, checked against the disk; nothing may have come to lie beside their directories."""
    guarded = archives.Guarded(tmp_path / "guarded")
    guarded.place.mkdir()
    yield guarded
    assert {str(number + 1) for number in range(guarded.count)} == {each.name for each in guarded.place.iterdir()}

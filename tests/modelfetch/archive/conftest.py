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
def unpacked(tmp_path: Path) -> Iterator[archives.GuardedExtractor]:
    """Unpack archives, checked against the disk; nothing may have come to lie beside their directories."""
    guarded = archives.GuardedExtractor(tmp_path / "guarded")
    guarded.place.mkdir()
    yield guarded
    assert {str(number + 1) for number in range(guarded.count)} == {each.name for each in guarded.place.iterdir()}

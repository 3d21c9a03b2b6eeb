import os
from pathlib import Path

import pytest

from bench import measure

GIB = 1024**3


def test_emptied_files_stay_without_their_bytes(tmp_path: Path) -> None:
    """Truncated files keep their inodes, and symlink targets keep their bytes."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    file = tmp_path / "run/model/.hidden"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"bytes")
    (tmp_path / "run/link").symlink_to(outside)
    inode = file.stat().st_ino

    measure.truncate_files(tmp_path / "run")

    assert (file.stat().st_ino, file.stat().st_size) == (inode, 0)
    assert outside.read_bytes() == b"mine"


def test_memory_is_made_ready_for_what_a_run_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much memory as the files and a reserve is touched, and all but a page per block is free."""
    monkeypatch.setattr(measure, "_SPARE_MEMORY", 200 * 1024**2)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    with measure.hold_free_memory(100 * 1024**2):
        taken = resident() - before

    assert taken < 150 * 1024**2
    assert measure.memory_to_touch(10 * GIB, 64 * GIB) == 10 * GIB + 200 * 1024**2


def test_a_run_begins_in_a_directory_that_is_there(tmp_path: Path) -> None:
    """The run's directory exists, whether new or left by an earlier run."""
    for _ in range(2):
        measure.sync_disk(tmp_path / "run")

    assert (tmp_path / "run").is_dir()


def test_memory_that_others_need_is_left_alone() -> None:
    """A reserve stays untouched, however large the files are."""
    assert measure.memory_to_touch(20 * GIB, 6 * GIB) == 4 * GIB
    assert measure.memory_to_touch(20 * GIB, GIB) == 0
    assert 0 < measure.available_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

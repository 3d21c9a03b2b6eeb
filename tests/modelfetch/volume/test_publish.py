"""A staged model is put in place: whole, the receipt last; what we did not write stays."""

import errno
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import DestinationError
from modelfetch.volume import publish
from modelfetch.volume import receipt as receipts
from modelfetch.volume.destination import Destination, locate_destination, read_published
from testkit.file_tree import RECEIPT_NAME, read_files, write_files
from testkit.publishing import (
    Files,
    assert_published,
    make_receipt,
    publish_file,
    publish_files,
    snapshot_tree,
    stage_files,
)

OLD = {"a": b"old", "d/b": b"old", "gone/x": b"old", "f": b"was a file", "g/y/z": b"was a directory"}
NEW = {"a": b"new", "d/b": b"new", "d/c": b"new", "f/x": b"new", "g": b"is a file", "n/m/o": b"new"}
MINE = {"mine.txt": b"mine", "d/mine": b"mine"}


@pytest.mark.parametrize("mine", [{}, MINE], ids=["ours alone", "with strangers"])
def test_a_new_model_replaces_the_old_one_and_strangers_stay(tmp_path: Path, mine: Files) -> None:
    """Files become directories, directories files, and what the new model lacks goes."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, mine)
    inode = dest.stat().st_ino

    publish_files(dest, NEW)

    assert_published(dest, NEW, mine)
    assert not (dest / "gone").exists()
    assert (dest.stat().st_ino == inode) == bool(mine)  # exchanged if it holds ours alone


def test_an_empty_folder_is_part_of_the_model(tmp_path: Path) -> None:
    """As in the bucket; twice too."""
    for _ in range(2):
        publish_files(tmp_path / "m", {"a": b"1"}, ("logs/old",))

    assert (tmp_path / "m" / "logs" / "old").is_dir()


def test_a_directory_in_use_as_working_directory_is_not_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell in it sees the new model."""
    publish_files(tmp_path / "m", OLD)
    monkeypatch.chdir(tmp_path / "m")

    publish_files(tmp_path / "m", NEW)

    assert Path("g").read_bytes() == NEW["g"]


def crash_at(step: int, dest: Path, files: Files) -> bool:
    """Publish in a process that dies at its n-th change of the disk; whether it did."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, _: tuple[Any, ...]) -> None:
            nonlocal left
            left -= event in (
                "os.link",
                "os.rename",
                "os.remove",
                "os.mkdir",
                "os.rmdir",
                "os.chmod",
                "ctypes.get_errno",
            )
            if left == 0:
                os._exit(9)

        try:
            sys.addaudithook(count)
            publish_files(dest, files)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("mine", [{}, MINE], ids=["exchanged", "entry by entry"])
def test_a_crash_anywhere_leaves_a_whole_model_or_none_and_the_next_run_mends_it(tmp_path: Path, mine: Files) -> None:
    """Nothing of the old model is orphaned, nothing of a stranger's is lost."""
    base, step = tmp_path / "base", 0
    publish_files(base / "m", OLD)
    write_files(base / "m", mine)
    while True:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(base, root, copy_function=shutil.copy2, symlinks=True)
        died = crash_at(step, root / "m", NEW)

        there = read_published(Destination(root / "m", directory=True))
        if there is not None:
            assert receipts.is_intact(there, root / "m")
        assert {name: (root / "m" / name).read_bytes() for name in mine} == mine
        publish_files(root / "m", NEW)
        assert_published(root / "m", NEW, mine)
        if not died:
            break
    assert step > len(NEW)


def test_a_crash_anywhere_leaves_no_single_files_receipt_that_is_not_so(tmp_path: Path) -> None:
    """A directory that replaces a file which was pulled alone withdraws its receipt first."""
    base, step, died = tmp_path / "base", 0, True
    publish_file(f"{base}/m/a", b"alone")
    publish_file(f"{base}/m/d/b", b"alone")
    while died:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(base, root, copy_function=shutil.copy2)
        died = crash_at(step, root / "m", NEW)

        for path in root.rglob(f"*{RECEIPT_NAME}"):
            assert receipts.is_intact(receipts.read_receipt(path), path.parent), f"at step {step}"
        publish_files(root / "m", NEW)
        assert_published(root / "m", NEW)
        assert len(list(root.rglob(f"*{RECEIPT_NAME}"))) == 1
    assert step > len(NEW)


@pytest.mark.parametrize("mine", [{}, {"mine.txt": b"1"}], ids=["exchanged", "entry by entry"])
def test_modes_and_times_are_the_same_whatever_the_umask(tmp_path: Path, mine: Files) -> None:
    """0644 and 0755; an executable stays one, and gets no other bits."""
    dest = write_files(tmp_path / "m", mine) if mine else tmp_path / "m"
    files = {"a": b"1", "d/run.sh": b"2"}
    before = os.umask(0o077)
    try:
        place = locate_destination(str(dest), "", directory=True, archive=False)
        with stage_files(place, files) as stage:
            (stage.tree / "d" / "run.sh").chmod(0o4700)
            publish.publish(stage, place, receipt := make_receipt(files))
    finally:
        os.umask(before)

    modes = {name: stat.S_IMODE((dest / name).stat().st_mode) for name in ("a", "d", "d/run.sh", RECEIPT_NAME)}
    assert modes == {"a": 0o644, "d": 0o755, "d/run.sh": 0o755, RECEIPT_NAME: 0o644}
    assert {(dest / name).stat().st_mtime for name in files} == {receipt.finished.timestamp()}


@pytest.mark.parametrize("mine", [{}, {"mine.txt": b"1"}], ids=["exchanged", "entry by entry"])
def test_the_longest_names_can_be_published_twice(tmp_path: Path, mine: Files) -> None:
    """255 bytes, although a receipt of their own would not fit beside them."""
    dest = tmp_path / "m"
    files = {"n" * 255: b"1", "d" * 255 + "/" + "ü" * 127: b"2"}
    publish_files(dest, files)
    write_files(dest, mine)

    publish_files(dest, files)

    assert_published(dest, files, mine)


def test_many_files_are_flushed_at_once(tmp_path: Path) -> None:
    """By another call, with the same result."""
    files = {f"{n:03}": b"x" for n in range(40)}
    publish_files(tmp_path / "m", files)

    assert_published(tmp_path / "m", files)


def test_single_files_share_a_directory(tmp_path: Path) -> None:
    """Each with its receipt; a stranger's is not replaced."""
    write_files(tmp_path, {"mine": b"0"})
    for data in (b"1", b"2"):
        publish_file(f"{tmp_path}/", data, "a")
        publish_file(f"{tmp_path}/b", data)
    with pytest.raises(DestinationError, match="in the way"):
        publish_file(f"{tmp_path}/mine", b"3")

    assert read_files(tmp_path) == {"mine": b"0", "a": b"2", "b": b"2"}
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.modelfetch.json", "b.modelfetch.json"]


@pytest.mark.parametrize("mine", [{}, MINE], ids=["exchanged", "entry by entry"])
def test_a_flush_that_fails_at_the_very_end_brings_the_old_model_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Files
) -> None:
    """Nothing is published that may not be on the disk."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, mine)
    before = snapshot_tree(tmp_path)

    def fail(path: Path) -> None:
        new = dest / RECEIPT_NAME
        if path in (dest, dest.parent) and new.exists() and receipts.read_receipt(new).files == make_receipt(NEW).files:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(publish, "fsync_path", fail)
    with pytest.raises(DestinationError, match="Input/output error"):
        publish_files(dest, NEW)

    assert snapshot_tree(tmp_path) == before


def test_a_directory_that_cannot_be_exchanged_is_changed_entry_by_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an image's layer, say."""

    def fail(one: Path, other: Path) -> bool:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(other))

    dest = tmp_path / "m"
    publish_files(dest, OLD)
    inode = dest.stat().st_ino
    monkeypatch.setattr(publish, "_rename_exchange", fail)

    publish_files(dest, NEW)

    assert_published(dest, NEW)
    assert dest.stat().st_ino == inode


def test_what_another_pull_put_there_meanwhile_is_not_exchanged_away(tmp_path: Path) -> None:
    """A file that was pulled into the directory while the new one was on its way."""
    dest = tmp_path / "m"
    publish_files(dest, {"a": b"old"})
    place = locate_destination(str(dest), "", directory=True, archive=False)
    with stage_files(place, {"a": b"new"}) as stage:
        publish_file(f"{dest}/", b"alone", "b")
        publish.publish(stage, place, make_receipt({"a": b"new"}))

    assert read_files(dest) == {"a": b"new", "b": b"alone"}
    assert receipts.is_intact(receipts.read_receipt(dest / f"b{RECEIPT_NAME}"), dest)


def test_a_directory_that_the_disk_keeps_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory of the old model's would stand in the new one."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, MINE)
    rmdir = Path.rmdir

    def fail(path: Path) -> None:
        if path.name == "gone":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", fail)
    with pytest.raises(DestinationError):
        publish_files(dest, NEW)
    monkeypatch.undo()

    assert_published(dest, OLD, MINE)
    publish_files(dest, NEW)
    assert_published(dest, NEW, MINE)


def test_a_directory_whose_mode_cannot_be_set_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that was made on the way to it."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, MINE)
    before = snapshot_tree(dest)
    chmod = Path.chmod

    def fail(path: Path, mode: int) -> None:
        if path == dest / "n/m":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", fail)
    with pytest.raises(DestinationError):
        publish_files(dest, NEW)

    assert snapshot_tree(dest) == before

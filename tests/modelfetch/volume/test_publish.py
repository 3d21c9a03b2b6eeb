"""Publishing: a staged model is complete at its destination, receipt last, and foreign files stay."""

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
FOREIGN = {"foreign.txt": b"foreign", "d/foreign": b"foreign"}


@pytest.mark.parametrize("foreign", [{}, FOREIGN], ids=["owned files only", "with foreign files"])
def test_new_model_replaces_the_old_model_and_foreign_files_stay(tmp_path: Path, foreign: Files) -> None:
    """Files become directories, directories become files, and obsolete files are removed."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, foreign)
    inode = dest.stat().st_ino

    publish_files(dest, NEW)

    assert_published(dest, NEW, foreign)
    assert not (dest / "gone").exists()
    assert (dest.stat().st_ino == inode) == bool(foreign)  # exchanged if all files are owned


def test_empty_folder_is_published_with_the_model(tmp_path: Path) -> None:
    """A folder without files is kept as in the bucket, at the second publish too."""
    for _ in range(2):
        publish_files(tmp_path / "m", {"a": b"1"}, ("logs/old",))

    assert (tmp_path / "m" / "logs" / "old").is_dir()


def test_working_directory_is_not_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in the directory sees the new model."""
    publish_files(tmp_path / "m", OLD)
    monkeypatch.chdir(tmp_path / "m")

    publish_files(tmp_path / "m", NEW)

    assert Path("g").read_bytes() == NEW["g"]


def crash_at(step: int, dest: Path, files: Files) -> bool:
    """Publish in a process that exits at its n-th change of the disk; return whether the process crashed."""
    pid = os.fork()
    if pid == 0:
        remaining = step

        def count_changes(event: str, _: tuple[Any, ...]) -> None:
            nonlocal remaining
            remaining -= event in (
                "os.link",
                "os.rename",
                "os.remove",
                "os.mkdir",
                "os.rmdir",
                "os.chmod",
                "ctypes.get_errno",
            )
            if remaining == 0:
                os._exit(9)

        try:
            sys.addaudithook(count_changes)
            publish_files(dest, files)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.process
@pytest.mark.parametrize("foreign", [{}, FOREIGN], ids=["exchanged", "entry by entry"])
def test_crash_at_any_step_leaves_a_whole_model_or_no_receipt(tmp_path: Path, foreign: Files) -> None:
    """The next run completes the publish: no old file is orphaned, no foreign file is lost."""
    base, step = tmp_path / "base", 0
    publish_files(base / "m", OLD)
    write_files(base / "m", foreign)
    while True:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(base, root, copy_function=shutil.copy2, symlinks=True)
        crashed = crash_at(step, root / "m", NEW)

        receipt = read_published(Destination(root / "m", directory=True))
        if receipt is not None:
            assert receipts.is_intact(receipt, root / "m")
        assert {name: (root / "m" / name).read_bytes() for name in foreign} == foreign
        publish_files(root / "m", NEW)
        assert_published(root / "m", NEW, foreign)
        if not crashed:
            break
    assert step > len(NEW)


@pytest.mark.process
def test_crash_at_any_step_leaves_no_false_receipt_of_a_single_file(tmp_path: Path) -> None:
    """A directory pull removes the receipt of a single file before the file changes."""
    base, step, crashed = tmp_path / "base", 0, True
    publish_file(f"{base}/m/a", b"alone")
    publish_file(f"{base}/m/d/b", b"alone")
    while crashed:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(base, root, copy_function=shutil.copy2)
        crashed = crash_at(step, root / "m", NEW)

        for path in root.rglob(f"*{RECEIPT_NAME}"):
            assert receipts.is_intact(receipts.read_receipt(path), path.parent), f"at step {step}"
        publish_files(root / "m", NEW)
        assert_published(root / "m", NEW)
        assert len(list(root.rglob(f"*{RECEIPT_NAME}"))) == 1
    assert step > len(NEW)


@pytest.mark.parametrize("foreign", [{}, {"foreign.txt": b"1"}], ids=["exchanged", "entry by entry"])
def test_modes_and_times_do_not_depend_on_the_umask(tmp_path: Path, foreign: Files) -> None:
    """Modes are 0644 and 0755; an executable file stays executable and gets no other bits."""
    dest = write_files(tmp_path / "m", foreign) if foreign else tmp_path / "m"
    files = {"a": b"1", "d/run.sh": b"2"}
    umask = os.umask(0o077)
    try:
        destination = locate_destination(str(dest), "", directory=True, archive=False)
        with stage_files(destination, files) as staging:
            (staging.tree / "d" / "run.sh").chmod(0o4700)
            publish.publish(staging, destination, receipt := make_receipt(files))
    finally:
        os.umask(umask)

    modes = {name: stat.S_IMODE((dest / name).stat().st_mode) for name in ("a", "d", "d/run.sh", RECEIPT_NAME)}
    assert modes == {"a": 0o644, "d": 0o755, "d/run.sh": 0o755, RECEIPT_NAME: 0o644}
    assert {(dest / name).stat().st_mtime for name in files} == {receipt.finished.timestamp()}


@pytest.mark.parametrize("foreign", [{}, {"foreign.txt": b"1"}], ids=["exchanged", "entry by entry"])
def test_names_of_255_bytes_can_be_published_twice(tmp_path: Path, foreign: Files) -> None:
    """Longest names work although a receipt of their own would not fit beside the files."""
    dest = tmp_path / "m"
    files = {"n" * 255: b"1", "d" * 255 + "/" + "ü" * 127: b"2"}
    publish_files(dest, files)
    write_files(dest, foreign)

    publish_files(dest, files)

    assert_published(dest, files, foreign)


def test_many_files_are_published_with_one_flush(tmp_path: Path) -> None:
    """Above the limit for single fsyncs, one syncfs gives the same result."""
    files = {f"{n:03}": b"x" for n in range(40)}
    publish_files(tmp_path / "m", files)

    assert_published(tmp_path / "m", files)


def test_single_files_share_a_directory_with_a_receipt_each(tmp_path: Path) -> None:
    """A foreign file in the same directory is not replaced."""
    write_files(tmp_path, {"foreign": b"0"})
    for data in (b"1", b"2"):
        publish_file(f"{tmp_path}/", data, "a")
        publish_file(f"{tmp_path}/b", data)
    with pytest.raises(DestinationError, match="in the way"):
        publish_file(f"{tmp_path}/foreign", b"3")

    assert read_files(tmp_path) == {"foreign": b"0", "a": b"2", "b": b"2"}
    assert sorted(path.name for path in tmp_path.glob("*.modelfetch-receipt")) == [
        "a.modelfetch-receipt",
        "b.modelfetch-receipt",
    ]


@pytest.mark.parametrize("foreign", [{}, FOREIGN], ids=["exchanged", "entry by entry"])
def test_failed_last_flush_rolls_back_to_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Files
) -> None:
    """A model that may not be on the disk is not published."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, foreign)
    before = snapshot_tree(tmp_path)

    def fail_last_flush(path: Path) -> None:
        new = dest / RECEIPT_NAME
        if path in (dest, dest.parent) and new.exists() and receipts.read_receipt(new).files == make_receipt(NEW).files:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(publish, "fsync_path", fail_last_flush)
    with pytest.raises(DestinationError, match="Input/output error"):
        publish_files(dest, NEW)

    assert snapshot_tree(tmp_path) == before


def test_failed_exchange_falls_back_to_moving_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of an image's layer, say, cannot be renamed (EXDEV)."""

    def fail_exchange(first: Path, second: Path) -> bool:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(second))

    dest = tmp_path / "m"
    publish_files(dest, OLD)
    inode = dest.stat().st_ino
    monkeypatch.setattr(publish, "_rename_exchange", fail_exchange)

    publish_files(dest, NEW)

    assert_published(dest, NEW)
    assert dest.stat().st_ino == inode


def test_file_of_a_concurrent_pull_survives_the_publish(tmp_path: Path) -> None:
    """A file pulled into the directory during the publish of a new model is kept."""
    dest = tmp_path / "m"
    publish_files(dest, {"a": b"old"})
    destination = locate_destination(str(dest), "", directory=True, archive=False)
    with stage_files(destination, {"a": b"new"}) as staging:
        publish_file(f"{dest}/", b"alone", "b")
        publish.publish(staging, destination, make_receipt({"a": b"new"}))

    assert read_files(dest) == {"a": b"new", "b": b"alone"}
    assert receipts.is_intact(receipts.read_receipt(dest / f"b{RECEIPT_NAME}"), dest)


def test_failed_removal_of_a_directory_rolls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An obsolete directory must not remain in the new model."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, FOREIGN)
    rmdir = Path.rmdir

    def fail_rmdir(path: Path) -> None:
        if path.name == "gone":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", fail_rmdir)
    with pytest.raises(DestinationError):
        publish_files(dest, NEW)
    monkeypatch.undo()

    assert_published(dest, OLD, FOREIGN)
    publish_files(dest, NEW)
    assert_published(dest, NEW, FOREIGN)


def test_failed_chmod_of_a_directory_rolls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories created on the way are removed again."""
    dest = tmp_path / "m"
    publish_files(dest, OLD)
    write_files(dest, FOREIGN)
    before = snapshot_tree(dest)
    chmod = Path.chmod

    def fail_chmod(path: Path, mode: int) -> None:
        if path == dest / "n/m":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", fail_chmod)
    with pytest.raises(DestinationError):
        publish_files(dest, NEW)

    assert snapshot_tree(dest) == before

"""Ownership: foreign files stay, whatever lists on the volume claim; files of an interrupted publish are reused."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.volume import publish
from modelfetch.volume.destination import Destination, locate_destination
from modelfetch.volume.ownership import restage_moved_files
from modelfetch.volume.staging import StagingArea
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, read_files, write_files
from testkit.publishing import (
    Files,
    assert_published,
    make_receipt,
    publish_file,
    publish_files,
    snapshot_tree,
    stage_files,
)

NEW = {"a": b"new", "d/b": b"new"}


@pytest.mark.parametrize(
    ("foreign", "files", "folders"),
    [
        ("a", {"a": b"new"}, ()),
        ("d", {"d/b": b"new"}, ()),
        ("g/x", {"g": b"new"}, ()),
        ("e", {"a2": b"new"}, ("e",)),
        ("e", {"a2": b"new"}, ("e/f",)),
        ("->d", {"d/b": b"new"}, ()),
        ("->d", {"d/e/b": b"new"}, ()),
        ("->d", {"a2": b"new"}, ("d",)),
        ("->d", {"a2": b"new"}, ("d/e",)),
        ("->a", {"a": b"new"}, ()),
    ],
)
def test_conflict_leaves_foreign_files_and_old_model_unchanged(
    tmp_path: Path, foreign: str, files: Files, folders: tuple[str, ...]
) -> None:
    """A conflict exits 73; nothing is written through a symlink, not even an empty folder."""
    dest = tmp_path / "m"
    (tmp_path / "outside").mkdir()
    publish_files(dest, {"old": b"old"})
    write_files(dest, {"foreign.txt": b"foreign"})
    if foreign.startswith("->"):
        (dest / foreign[2:]).symlink_to(tmp_path / "outside")
    else:
        write_files(dest, {foreign: b"foreign"})
    before = snapshot_tree(tmp_path)

    with pytest.raises(DestinationError) as caught:
        publish_files(dest, files, folders)

    assert caught.value.code == 73
    assert snapshot_tree(tmp_path) == before


def interrupt_publish(dest: Path, moved: Files, left: Files, plan: str = "plan") -> StagingArea:
    """Create the state after a crash between the moves of two files."""
    write_files(dest, moved)
    staging = StagingArea(dest / STAGING_NAME / "id", {})
    staging.tree.mkdir(parents=True)
    write_files(staging.tree, left)
    lines = [json.dumps(line) for line in ({"plan": plan}, *([name, 0, 0] for name in {**moved, **left}))]
    (staging.work_directory / "parts.jsonl").write_text("\n".join(lines))
    staging.claims.write_text(json.dumps(sorted({**moved, **left, "old": b""})))
    return staging


def test_files_moved_before_a_crash_are_restaged(tmp_path: Path) -> None:
    """Moved files are not downloaded again; files of earlier pulls and foreign files stay."""
    dest = Destination(tmp_path / "m", directory=True)
    staging = interrupt_publish(dest.path, {"a": b"1", "d/b": b"2"}, {"c": b"3"})
    files = write_files(dest.path, {"old": b"owned", "foreign": b"foreign", "c": b"not replaced yet"})

    restage_moved_files(staging, dest, "plan")

    assert read_files(staging.tree) == {"a": b"1", "d/b": b"2", "c": b"3"}
    assert sorted(path.name for path in files.iterdir() if path.is_file()) == ["c", "foreign", "old"]


@pytest.mark.parametrize("plan", ["another plan", ""])
def test_nothing_is_restaged_for_another_plan(tmp_path: Path, plan: str) -> None:
    """Files of another plan stay at the destination, as owned paths to remove later."""
    dest = Destination(tmp_path / "m", directory=True)
    staging = interrupt_publish(dest.path, {"a": b"1"}, {}, "plan")

    restage_moved_files(staging, dest, plan)

    assert (dest.path / "a").exists()


def test_nothing_is_restaged_beside_a_receipt(tmp_path: Path) -> None:
    """With a receipt, the crash came before the first move or after the last."""
    publish_files(tmp_path / "m", {"a": b"1"})
    dest = Destination(tmp_path / "m", directory=True)
    staging = interrupt_publish(dest.path, {}, {"a": b"2"})

    restage_moved_files(staging, dest, "plan")

    assert (dest.path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("hostile", ["../outside", "link/file", "link", "folder"])
def test_nothing_is_restaged_through_a_symlink_or_from_outside(tmp_path: Path, hostile: str) -> None:
    """Anyone may have written the lists on a shared volume."""
    (outside := tmp_path / "outside").write_text("0")
    dest = Destination(tmp_path / "m", directory=True)
    write_files(tmp_path, {"elsewhere/file": b"0", "m/folder/file": b"0"})
    (dest.path / "link").symlink_to(tmp_path / "elsewhere")
    staging = interrupt_publish(dest.path, {}, {})
    (staging.work_directory / "parts.jsonl").write_text(f'{{"plan": "plan"}}\n{json.dumps([hostile, 0, 0])}\n')
    staging.claims.write_text(json.dumps([hostile]))

    restage_moved_files(staging, dest, "plan")

    assert outside.exists()
    assert (tmp_path / "elsewhere" / "file").exists()
    assert (dest.path / "folder" / "file").exists()


@pytest.mark.parametrize("text", ["", "7", "[7, [], null]", '{"a": 1}'])
def test_invalid_claims_restage_nothing(tmp_path: Path, text: str) -> None:
    """A crash may have torn the claims, or anyone may have written them."""
    dest = Destination(tmp_path / "m", directory=True)
    staging = interrupt_publish(dest.path, {"a": b"1"}, {})
    staging.claims.write_text(text)

    restage_moved_files(staging, dest, "plan")

    assert (dest.path / "a").exists()


def test_claims_of_a_completed_publish_are_ignored(tmp_path: Path) -> None:
    """After a crash behind the receipt, a later file under an old name is foreign."""
    dest = tmp_path / "m"
    publish_files(dest, {"a": b"1"})
    write_files(dest, {"old": b"foreign"})
    destination = locate_destination(str(dest), "", directory=True, archive=False)
    with stage_files(destination, {"a": b"2"}) as staging:
        staging.claims.write_text(json.dumps(["a", "old"]))
        publish.publish(staging, destination, make_receipt({"a": b"2"}))

    assert_published(dest, {"a": b"2"}, {"old": b"foreign"})


@pytest.mark.parametrize("hostile", ["../precious", "d/../../precious", "/precious", "link/file", "a/../../precious"])
def test_hostile_receipt_removes_nothing_outside_the_directory(tmp_path: Path, hostile: str) -> None:
    """Paths of a receipt that leave the directory are ignored."""
    dest = tmp_path / "m"
    write_files(tmp_path, {"precious": b"1", "elsewhere/file": b"2"})
    write_files(dest, {"foreign.txt": b"foreign", "a": b"1"})
    (dest / "link").symlink_to(tmp_path / "elsewhere")
    receipt = make_receipt({"a": b"1", hostile: b"x"})
    (dest / RECEIPT_NAME).write_text(receipt.to_json())

    publish_files(dest, {"b": b"2"})

    assert (tmp_path / "precious").read_bytes() == b"1"
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"2"
    assert read_files(dest) == {"foreign.txt": b"foreign", "b": b"2", "link/file": b"2"} or (dest / "link").is_symlink()
    assert not (dest / "a").exists()


def test_directory_pull_replaces_single_files_and_their_receipts(tmp_path: Path) -> None:
    """A single file's receipt would describe a file that is replaced."""
    publish_file(f"{tmp_path}/a", b"1")
    write_files(tmp_path, {"foreign": b"0"})

    publish_files(tmp_path, {"a": b"2"})

    assert sorted(path.name for path in tmp_path.iterdir()) == [".modelfetch-receipt", "a", "foreign"]


def test_unreadable_directory_counts_as_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable directory is not moved away with the old model."""
    dest = tmp_path / "m"
    publish_files(dest, {"d/b": b"old"})
    (dest / "d" / "private").mkdir()
    scandir = os.scandir

    def refuse_scan(path: Any = ".") -> Any:
        if str(path).endswith("private"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_scan)
    publish_files(dest, {"d/b": b"new"})

    assert (dest / "d" / "private").is_dir()
    assert (dest / "d" / "b").read_bytes() == b"new"


def test_directory_at_the_receipts_path_is_a_conflict(tmp_path: Path) -> None:
    """The directory is foreign, with all its content."""
    dest = write_files(tmp_path / "m", {f"{RECEIPT_NAME}/foreign": b"foreign"})

    with pytest.raises(DestinationError, match="receipt"):
        publish_files(dest, NEW)

    assert (dest / RECEIPT_NAME / "foreign").read_bytes() == b"foreign"


def test_destination_too_long_for_its_receipt_is_refused(tmp_path: Path) -> None:
    """The system accepts the destination's path, but not the longer path of the receipt."""
    for last in (9, 200):  # bytes of the last name: a rename within the parent reaches further than the whole path
        parent = str(tmp_path)
        while len(parent) < 4089 - last:
            parent += "/" + "p" * min(200, 4088 - last - len(parent))

        with pytest.raises(UnsafeNameError):
            publish_files(Path(parent, "m" * last), NEW)

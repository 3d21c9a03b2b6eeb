"""What we did not write stays, whatever the lists on the volume say; what a crash left is used again."""

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
from testkit import tree
from testkit.publishing import Files, put, put_file, receipt_of, snapshot, staged, whole

NEW = {"a": b"new", "d/b": b"new"}


@pytest.mark.parametrize(
    ("stranger", "files", "folders"),
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
def test_a_stranger_in_the_way_is_left_there_and_so_is_the_old_model(
    tmp_path: Path, stranger: str, files: Files, folders: tuple[str, ...]
) -> None:
    """73; nothing is written through a link, not even an empty folder."""
    dest = tmp_path / "m"
    (tmp_path / "outside").mkdir()
    put(dest, {"old": b"old"})
    tree.write(dest, {"mine.txt": b"mine"})
    if stranger.startswith("->"):
        (dest / stranger[2:]).symlink_to(tmp_path / "outside")
    else:
        tree.write(dest, {stranger: b"mine"})
    before = snapshot(tmp_path)

    with pytest.raises(DestinationError) as caught:
        put(dest, files, folders)

    assert caught.value.code == 73
    assert snapshot(tmp_path) == before


def cut_short(dest: Path, moved: Files, left: Files, plan: str = "plan") -> StagingArea:
    """What a crash leaves that came between the moves of two files."""
    tree.write(dest, moved)
    stage = StagingArea(dest / tree.STAGING / "id")
    stage.tree.mkdir(parents=True)
    tree.write(stage.tree, left)
    lines = [json.dumps(line) for line in ({"plan": plan}, *([name, 0, 0] for name in {**moved, **left}))]
    (stage.work_directory / "parts.jsonl").write_text("\n".join(lines))
    stage.claims.write_text(json.dumps(sorted({**moved, **left, "old": b""})))
    return stage


def test_what_was_moved_before_a_crash_is_taken_back(tmp_path: Path) -> None:
    """It need not be fetched again; what is not of this pull stays."""
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {"a": b"1", "d/b": b"2"}, {"c": b"3"})
    others = tree.write(dest.path, {"old": b"ours", "mine": b"a stranger's", "c": b"not replaced yet"})

    restage_moved_files(stage, dest, "plan")

    assert tree.read(stage.tree) == {"a": b"1", "d/b": b"2", "c": b"3"}
    assert sorted(path.name for path in others.iterdir() if path.is_file()) == ["c", "mine", "old"]


@pytest.mark.parametrize("plan", ["another plan", ""])
def test_of_another_plan_nothing_is_taken_back(tmp_path: Path, plan: str) -> None:
    """It is of no use, and it is ours to remove when the time comes."""
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {"a": b"1"}, {}, "plan")

    restage_moved_files(stage, dest, plan)

    assert (dest.path / "a").exists()


def test_a_published_model_is_not_taken_back(tmp_path: Path) -> None:
    """The crash came before the first move, or after the last."""
    put(tmp_path / "m", {"a": b"1"})
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {}, {"a": b"2"})

    restage_moved_files(stage, dest, "plan")

    assert (dest.path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("hostile", ["../outside", "link/file", "link", "folder"])
def test_nothing_is_taken_back_through_a_link_or_from_outside(tmp_path: Path, hostile: str) -> None:
    """The lists are on a volume, where anyone may have written them."""
    (outside := tmp_path / "outside").write_text("0")
    dest = Destination(tmp_path / "m", directory=True)
    tree.write(tmp_path, {"elsewhere/file": b"0", "m/folder/file": b"0"})
    (dest.path / "link").symlink_to(tmp_path / "elsewhere")
    stage = cut_short(dest.path, {}, {})
    (stage.work_directory / "parts.jsonl").write_text(f'{{"plan": "plan"}}\n{json.dumps([hostile, 0, 0])}\n')
    stage.claims.write_text(json.dumps([hostile]))

    restage_moved_files(stage, dest, "plan")

    assert outside.exists()
    assert (tmp_path / "elsewhere" / "file").exists()
    assert (dest.path / "folder" / "file").exists()


@pytest.mark.parametrize("text", ["", "7", "[7, [], null]", '{"a": 1}'])
def test_a_list_that_is_none_takes_nothing_back(tmp_path: Path, text: str) -> None:
    """A crash may have cut it short, or anyone have written it."""
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {"a": b"1"}, {})
    stage.claims.write_text(text)

    restage_moved_files(stage, dest, "plan")

    assert (dest.path / "a").exists()


def test_a_list_of_a_pull_that_was_done_is_not_believed(tmp_path: Path) -> None:
    """It crashed after its receipt: a file that is there since then under an old name is a stranger's."""
    dest = tmp_path / "m"
    put(dest, {"a": b"1"})
    tree.write(dest, {"old": b"mine"})
    place = locate_destination(str(dest), "", directory=True, archive=False)
    with staged(place, {"a": b"2"}) as stage:
        stage.claims.write_text(json.dumps(["a", "old"]))
        publish.publish(stage, place, receipt_of({"a": b"2"}))

    whole(dest, {"a": b"2"}, {"old": b"mine"})


@pytest.mark.parametrize("hostile", ["../precious", "d/../../precious", "/precious", "link/file", "a/../../precious"])
def test_an_old_receipt_removes_nothing_outside(tmp_path: Path, hostile: str) -> None:
    """Whoever wrote it."""
    dest = tmp_path / "m"
    tree.write(tmp_path, {"precious": b"1", "elsewhere/file": b"2"})
    tree.write(dest, {"mine.txt": b"mine", "a": b"1"})
    (dest / "link").symlink_to(tmp_path / "elsewhere")
    old = receipt_of({"a": b"1", hostile: b"x"})
    (dest / tree.RECEIPT).write_text(old.to_json())

    put(dest, {"b": b"2"})

    assert (tmp_path / "precious").read_bytes() == b"1"
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"2"
    assert tree.read(dest) == {"mine.txt": b"mine", "b": b"2", "link/file": b"2"} or (dest / "link").is_symlink()
    assert not (dest / "a").exists()


def test_a_directory_takes_over_the_single_files_of_earlier_pulls(tmp_path: Path) -> None:
    """Their receipts would be of what is no longer there."""
    put_file(f"{tmp_path}/a", b"1")
    tree.write(tmp_path, {"mine": b"0"})

    put(tmp_path, {"a": b"2"})

    assert sorted(path.name for path in tmp_path.iterdir()) == [".modelfetch.json", "a", "mine"]


def test_a_directory_that_cannot_be_looked_into_is_a_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not moved away with ours."""
    dest = tmp_path / "m"
    put(dest, {"d/b": b"old"})
    (dest / "d" / "private").mkdir()
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if str(path).endswith("private"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    put(dest, {"d/b": b"new"})

    assert (dest / "d" / "private").is_dir()
    assert (dest / "d" / "b").read_bytes() == b"new"


def test_a_directory_in_place_of_the_receipt_is_left_there(tmp_path: Path) -> None:
    """It is a stranger's, with all that is in it."""
    dest = tree.write(tmp_path / "m", {f"{tree.RECEIPT}/mine": b"mine"})

    with pytest.raises(DestinationError, match="receipt"):
        put(dest, NEW)

    assert (dest / tree.RECEIPT / "mine").read_bytes() == b"mine"


def test_a_destination_without_room_for_the_receipts_name_is_too_long(tmp_path: Path) -> None:
    """Its own path is one that the system takes."""
    dest = str(tmp_path)
    while len(dest) < 4090:
        dest += "/" + "m" * min(200, 4089 - len(dest))

    with pytest.raises(UnsafeNameError):
        put(Path(dest), NEW)

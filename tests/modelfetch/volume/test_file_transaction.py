"""Files are moved in and out of a directory, or all of it is taken back."""

import errno
import os
from pathlib import Path

import pytest

from modelfetch.volume.file_transaction import FileTransaction
from testkit.file_tree import read_files, write_files

BEFORE = {"a": b"old", "d/b": b"old", "gone/c": b"old"}


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    """An empty directory."""
    path = tmp_path / "aside"
    path.mkdir()
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory to change."""
    return write_files(tmp_path / "base", BEFORE)


def change(moves: FileTransaction, base: Path) -> None:
    """Replace a file, add two, remove one with its directory."""
    new = write_files(base.parent / "new", {"a": b"new", "e/f": b"new", "x": b"new"})
    moves.mkdir(base / "e" / "g")
    moves.put(new / "a", base / "a")
    moves.put(new / "e" / "f", base / "e" / "f")
    moves.put(new / "x", base / "x")
    moves.remove(base / "gone" / "c")
    (base / "gone").rmdir()


def test_files_are_put_in_and_taken_out(base: Path, aside: Path) -> None:
    """What is replaced has no other name in the directory."""
    change(FileTransaction(aside), base)

    assert read_files(base) == {"a": b"new", "d/b": b"old", "e/f": b"new", "x": b"new"}
    assert (base / "e" / "g").is_dir()


@pytest.mark.parametrize("linking", [True, False], ids=["with hard links", "without"])
def test_all_is_taken_back(base: Path, aside: Path, monkeypatch: pytest.MonkeyPatch, *, linking: bool) -> None:
    """Directories, too: those made are gone, those that were emptied are there again."""
    if not linking:
        monkeypatch.setattr(os, "link", no_links)
    moves = FileTransaction(aside)
    change(moves, base)

    assert moves.rollback()

    assert read_files(base) == BEFORE
    assert sorted(path.name for path in base.iterdir()) == ["a", "d", "gone"]


def no_links(*_: object, **__: object) -> None:
    """What a file system without hard links says."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_links_are_moved_and_not_followed(base: Path, aside: Path) -> None:
    """Both ways."""
    (base / "link").symlink_to("d")
    (base / "other").symlink_to("a")
    (base / "staged").write_bytes(b"new")
    moves = FileTransaction(aside)
    moves.remove(base / "link")
    moves.put(base / "staged", base / "other")
    assert not os.path.lexists(base / "link")
    assert (base / "a").read_bytes() == b"old"

    assert moves.rollback()

    assert [(base / name).readlink() for name in ("link", "other")] == [Path("d"), Path("a")]


def test_a_directory_is_neither_replaced_nor_taken_out(base: Path, aside: Path) -> None:
    """It may hold what is not ours."""
    moves = FileTransaction(aside)
    moves.remove(base / "d")
    with pytest.raises(IsADirectoryError):
        moves.put(base / "a", base / "d")

    assert moves.rollback()
    assert read_files(base) == BEFORE


@pytest.mark.parametrize("path", ["none", "a/below"])
def test_what_is_not_there_need_not_be_taken_out(base: Path, aside: Path, path: str) -> None:
    """Nor put back."""
    moves = FileTransaction(aside)
    moves.remove(base / path)

    assert moves.rollback()
    assert read_files(base) == BEFORE


def test_it_tells_if_not_all_could_be_taken_back(base: Path, aside: Path) -> None:
    """The rest is, all the same."""
    moves = FileTransaction(aside)
    change(moves, base)
    write_files(base, {"e/mine": b"mine"})

    assert not moves.rollback()
    assert (base / "gone" / "c").read_bytes() == b"old"
    assert (base / "e" / "mine").read_bytes() == b"mine"

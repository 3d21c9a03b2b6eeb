"""File transaction: files are moved in and out of a directory, and a rollback restores the first state."""

import errno
import os
from pathlib import Path

import pytest

from modelfetch.volume.file_transaction import FileTransaction
from testkit.file_tree import read_files, write_files

BEFORE = {"a": b"old", "d/b": b"old", "gone/c": b"old"}


@pytest.fixture
def replaced_files(tmp_path: Path) -> Path:
    """An empty directory for replaced files."""
    path = tmp_path / "aside"
    path.mkdir()
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with files to change."""
    return write_files(tmp_path / "base", BEFORE)


def change(transaction: FileTransaction, base: Path) -> None:
    """Replace a file, add two files, remove a file with its directory."""
    new = write_files(base.parent / "new", {"a": b"new", "e/f": b"new", "x": b"new"})
    transaction.mkdir(base / "e" / "g")
    transaction.put(new / "a", base / "a")
    transaction.put(new / "e" / "f", base / "e" / "f")
    transaction.put(new / "x", base / "x")
    transaction.remove(base / "gone" / "c")
    (base / "gone").rmdir()


def test_put_and_remove_change_the_directory(base: Path, replaced_files: Path) -> None:
    """A replaced file keeps no second name in the directory."""
    change(FileTransaction(replaced_files), base)

    assert read_files(base) == {"a": b"new", "d/b": b"old", "e/f": b"new", "x": b"new"}
    assert (base / "e" / "g").is_dir()


@pytest.mark.parametrize("linking", [True, False], ids=["with hard links", "without"])
def test_rollback_restores_files_and_directories(
    base: Path, replaced_files: Path, monkeypatch: pytest.MonkeyPatch, *, linking: bool
) -> None:
    """Created directories are gone, and emptied directories exist again."""
    if not linking:
        monkeypatch.setattr(os, "link", refuse_hard_links)
    transaction = FileTransaction(replaced_files)
    change(transaction, base)

    assert transaction.rollback()

    assert read_files(base) == BEFORE
    assert sorted(path.name for path in base.iterdir()) == ["a", "d", "gone"]


def refuse_hard_links(*_: object, **__: object) -> None:
    """Fail like a file system without hard links."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_symlinks_are_moved_and_not_followed(base: Path, replaced_files: Path) -> None:
    """Removal, replacement and rollback treat a symlink as an entry of its own."""
    (base / "link").symlink_to("d")
    (base / "other").symlink_to("a")
    (base / "staged").write_bytes(b"new")
    transaction = FileTransaction(replaced_files)
    transaction.remove(base / "link")
    transaction.put(base / "staged", base / "other")
    assert not os.path.lexists(base / "link")
    assert (base / "a").read_bytes() == b"old"

    assert transaction.rollback()

    assert [(base / name).readlink() for name in ("link", "other")] == [Path("d"), Path("a")]


def test_directory_is_neither_replaced_nor_removed(base: Path, replaced_files: Path) -> None:
    """A directory may hold foreign files, so `put` raises and `remove` does nothing."""
    transaction = FileTransaction(replaced_files)
    transaction.remove(base / "d")
    with pytest.raises(IsADirectoryError):
        transaction.put(base / "a", base / "d")

    assert transaction.rollback()
    assert read_files(base) == BEFORE


@pytest.mark.parametrize("path", ["none", "a/below"])
def test_removal_of_a_missing_path_does_nothing(base: Path, replaced_files: Path, path: str) -> None:
    """A missing path is neither removed nor restored."""
    transaction = FileTransaction(replaced_files)
    transaction.remove(base / path)

    assert transaction.rollback()
    assert read_files(base) == BEFORE


def test_rollback_returns_false_if_a_step_cannot_be_undone(base: Path, replaced_files: Path) -> None:
    """A foreign file in a created directory stops one step; all other steps are undone."""
    transaction = FileTransaction(replaced_files)
    change(transaction, base)
    write_files(base, {"e/foreign": b"foreign"})

    assert not transaction.rollback()
    assert (base / "gone" / "c").read_bytes() == b"old"
    assert (base / "e" / "foreign").read_bytes() == b"foreign"

"""Staged tree: no file is written through a symlink that another writer of the volume put there."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelfetch.errors import DestinationError
from modelfetch.volume import staged_tree
from modelfetch.volume.staged_tree import StagedTree

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@pytest.fixture(params=["openat2", "by components"])
def tree(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StagedTree]:
    """Return an open tree, on a kernel with and without openat2(2)."""
    if request.param == "by components":
        monkeypatch.setattr(staged_tree, "call_libc", lambda *_: (-1, errno.ENOSYS))
    (tmp_path / "tree").mkdir()
    (tmp_path / "outside").mkdir()
    with StagedTree(tmp_path / "tree") as opened:
        yield opened


def write(tree: StagedTree, path: str, data: bytes = b"ours") -> None:
    """Write a file, with its directories."""
    if "/" in path:
        tree.make_directories(path.rpartition("/")[0])
    with tree.create_file(path) as file:
        file.write(data)


@pytest.mark.parametrize("swapped", ["d", "d/e"])
def test_no_file_is_created_below_a_directory_swapped_for_a_symlink(
    tree: StagedTree, tmp_path: Path, swapped: str
) -> None:
    """Neither with a relative nor with an absolute target, nor in a directory opened before."""
    tree.make_directories("d/e")
    write(tree, "other/file")
    (tree.root / swapped).rename(tmp_path / "gone")
    (tree.root / swapped).symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "e").mkdir()

    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        tree.open_file("d/e/file", CREATE)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        tree.make_directories("d/e/f")
    assert list((tmp_path / "outside").rglob("*")) == [tmp_path / "outside" / "e"]


def test_directory_swapped_after_its_opening_takes_the_file_along(tree: StagedTree, tmp_path: Path) -> None:
    """The open descriptor names the directory itself, and the check before publishing misses the file."""
    write(tree, "d/a")
    (tree.root / "d").rename(tmp_path / "gone")
    (tree.root / "d").symlink_to(tmp_path / "outside")
    with tree.create_file("d/b") as file:
        file.write(b"ours")

    assert list((tmp_path / "outside").iterdir()) == []
    with StagedTree(tree.root, {"d/b": (tmp_path / "gone/b").stat().st_ino}) as again, pytest.raises(DestinationError):
        again.check_written(["d/b"])


@pytest.mark.parametrize("replacement", ["file", "symlink", "directory", "nothing"])
def test_replaced_file_is_noticed_before_publishing(tree: StagedTree, tmp_path: Path, replacement: str) -> None:
    """A file of the same content is another file: the inode is another."""
    write(tree, "d/a")
    tree.check_written(["d/a"])
    kept = (tree.root / "d/a").rename(tmp_path / "kept")
    if replacement == "file":
        (tree.root / "d/a").write_bytes(b"ours")
    elif replacement == "symlink":
        (tree.root / "d/a").symlink_to(kept)
    elif replacement == "directory":
        (tree.root / "d/a").mkdir()

    with pytest.raises(DestinationError, match="Another writer"):
        tree.check_written(["d/a"])


def test_symlinked_parent_is_noticed_although_the_inode_is_the_same(tree: StagedTree, tmp_path: Path) -> None:
    """Every parent must be a real directory of the tree."""
    write(tree, "d/a")
    (tree.root / "d").rename(tmp_path / "outside" / "d")
    (tree.root / "d").symlink_to(tmp_path / "outside" / "d")

    written = {"d/a": (tmp_path / "outside/d/a").stat().st_ino}
    with StagedTree(tree.root, written) as again, pytest.raises(DestinationError, match="Another writer"):
        again.check_written(["d/a"])


def test_links_and_renames_keep_the_record_of_written_files(tree: StagedTree) -> None:
    """Hard links, symlinks and decoded files pass the check before publishing."""
    write(tree, "d/a")
    tree.make_directory("e")
    tree.link_file("e/hard", "d/a")
    tree.make_symlink("e/soft", "../d/a")
    write(tree, "d/plain", b"plain")
    tree.replace_file("d/plain", "d/a")

    tree.check_written(["d/a", "e/hard", "e/soft"])
    assert (tree.root / "d/a").read_bytes() == b"plain"
    assert (tree.root / "e/hard").read_bytes() == b"ours"


def test_directories_are_0755_despite_the_umask(tree: StagedTree) -> None:
    """Other users read the model."""
    umask = os.umask(0o077)
    try:
        tree.make_directories("a/b")
    finally:
        os.umask(umask)
    assert [(tree.root / path).stat().st_mode & 0o777 for path in ("a", "a/b")] == [0o755, 0o755]


def test_tree_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    """The top of the tree is no exception."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        StagedTree(tmp_path / "link")

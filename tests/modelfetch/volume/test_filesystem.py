"""What the operating system says, in plain words."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.volume import filesystem
from testkit import mounts, tree


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (errno.ENOSPC, DestinationError, "Free some space"),
        (errno.EDQUOT, DestinationError, "quota"),
        (errno.EROFS, DestinationError, "writable"),
        (errno.EACCES, DestinationError, "fsGroup"),
        (errno.EPERM, DestinationError, "fsGroup"),
        (errno.EIO, DestinationError, "kernel log"),
        (errno.EFBIG, DestinationError, "size"),
        (errno.ENOTDIR, DestinationError, "file where a directory"),
        (errno.EISDIR, DestinationError, "directory where a file"),
        (errno.ELOOP, DestinationError, "link leads nowhere"),
        (errno.EBUSY, DestinationError, "mount the directory above"),
        (errno.ENOLCK, DestinationError, "no locks"),
        (errno.ESTALE, DestinationError, "volume is gone"),
        (errno.ECANCELED, DestinationError, "Check the destination"),
        (errno.ENAMETOOLONG, UnsafeNameError, "shorter"),
        (errno.EILSEQ, UnsafeNameError, "--exclude"),
    ],
)
def test_every_failure_has_a_path_and_a_next_step(
    number: int, kind: type[DestinationError | UnsafeNameError], hint: str
) -> None:
    """The path is that of the failure, else that of the work."""
    with pytest.raises(kind) as caught, filesystem.disk_errors("/models"):
        raise OSError(number, os.strerror(number), "/models/m.bin")
    assert "/models/m.bin" in caught.value.message
    assert hint in caught.value.hint

    with pytest.raises(kind, match="/models"), filesystem.disk_errors(Path("/models")):
        raise OSError(number, os.strerror(number))


def test_what_is_no_failure_of_the_disk_passes() -> None:
    """Unchanged."""
    with pytest.raises(ValueError, match="x"), filesystem.disk_errors("/"):
        raise ValueError("x")


def test_directories_are_for_everyone_whatever_the_umask(tmp_path: Path) -> None:
    """Those made; those that were there stay as they are."""
    (tmp_path / "old").mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        filesystem.make_directory(tmp_path / "old" / "a" / "b")
        filesystem.make_directory(tmp_path / "old" / "a" / "b")
    finally:
        os.umask(before)

    modes = [stat.S_IMODE((tmp_path / "old" / name).stat().st_mode) for name in (".", "a", "a/b")]
    assert modes == [0o700, 0o755, 0o755]


@pytest.mark.parametrize("path", ["file", "file/below", "dangling"])
def test_a_directory_is_not_made_where_something_else_is(tmp_path: Path, path: str) -> None:
    """A file, or a link that leads nowhere."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")

    with pytest.raises(OSError, match="Not a directory"):
        filesystem.make_directory(tmp_path / path)


def test_a_directory_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    """As `os.walk` does: its files would be neither flushed nor given their times."""
    tree.write(tmp_path, {"a": b"1", "d/b": b"2"})
    assert [(here.name, files) for here, _, files in filesystem.walk_tree(tmp_path)][1:] == [("d", ["b"])]

    with pytest.raises(FileNotFoundError):
        list(filesystem.walk_tree(tmp_path / "none"))


def test_the_room_of_a_file_system_is_that_of_its_blocks_and_inodes(tmpfs: Callable[..., Path]) -> None:
    """Small files take more than their bytes."""
    point = tmpfs("disk", "size=1m,nr_inodes=20")
    room = filesystem.free_space(point)

    assert (room.bytes, room.block) == (1 << 20, 4096)
    assert room.files is not None
    assert 10 < room.files <= 20
    assert [room.allocated_bytes(size) for size in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


def test_a_bind_mount_is_known_by_its_name_and_by_what_it_shows(tmp_path: Path) -> None:
    """Whatever the kernel's list escapes in the name."""
    source, point = tmp_path / "source", tmp_path / "mö un\tt"
    source.mkdir()
    try:
        with mounts.bound(source, point):
            assert [filesystem.is_mount(path) for path in (point, source, tmp_path)] == [True, False, False]
            assert [filesystem.is_mounted_elsewhere(path) for path in (source, tmp_path)] == [True, False]
    except mounts.CannotMountError as error:
        pytest.skip(str(error))
    assert not filesystem.is_mounted_elsewhere(source)


def test_a_bind_mount_is_known_where_files_have_another_device_number_than_their_mount(tmp_path: Path) -> None:
    """As on btrfs."""
    volume = tmp_path / "volume"
    try:
        with mounts.btrfs(volume, tmp_path / "image"):
            (volume / "source").mkdir()
            with mounts.bound(volume / "source", tmp_path / "point"):
                assert [filesystem.is_mounted_elsewhere(path) for path in (volume / "source", volume)] == [True, True]
            assert not filesystem.is_mounted_elsewhere(volume / "source")
    except mounts.CannotMountError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("is_directory", [True, False])
def test_only_a_directory_need_not_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_directory: bool
) -> None:
    """Some file systems cannot; of a file it is a failure."""

    def fail(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "file").touch()
    if is_directory:
        filesystem.fsync_path(tmp_path)
        return
    with pytest.raises(OSError, match="Invalid argument"):
        filesystem.fsync_path(tmp_path / "file")

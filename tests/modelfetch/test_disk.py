"""What the operating system says, in plain words."""

import errno
import os
import stat
from pathlib import Path

import pytest

from modelfetch import disk
from modelfetch.errors import DestinationError, UnsafeNameError


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
        (errno.ELOOP, DestinationError, "Check the destination"),
        (errno.ENAMETOOLONG, UnsafeNameError, "shorter"),
        (errno.EILSEQ, UnsafeNameError, "--exclude"),
    ],
)
def test_every_failure_has_a_path_and_a_next_step(
    number: int, kind: type[DestinationError | UnsafeNameError], hint: str
) -> None:
    """The path is that of the failure, else that of the work."""
    with pytest.raises(kind) as caught, disk.disk_errors("/models"):
        raise OSError(number, os.strerror(number), "/models/m.bin")
    assert "/models/m.bin" in caught.value.message
    assert hint in caught.value.hint

    with pytest.raises(kind, match="/models"), disk.disk_errors(Path("/models")):
        raise OSError(number, os.strerror(number))


def test_what_is_no_failure_of_the_disk_passes() -> None:
    """Unchanged."""
    with pytest.raises(ValueError, match="x"), disk.disk_errors("/"):
        raise ValueError("x")


def test_directories_are_for_everyone_whatever_the_umask(tmp_path: Path) -> None:
    """Those made; those that were there stay as they are."""
    (tmp_path / "old").mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        disk.make_directory(tmp_path / "old" / "a" / "b")
        disk.make_directory(tmp_path / "old" / "a" / "b")
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
        disk.make_directory(tmp_path / path)

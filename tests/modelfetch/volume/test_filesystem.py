"""File system of the destination: error texts, modes, free space, mounts and flushes."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.volume import filesystem
from testkit import mounts, strace
from testkit.file_tree import write_files


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
def test_os_error_becomes_an_error_with_path_and_hint(
    number: int, kind: type[DestinationError | UnsafeNameError], hint: str
) -> None:
    """The path is taken from the OSError, else from the argument."""
    with pytest.raises(kind) as caught, filesystem.disk_errors("/models"):
        raise OSError(number, os.strerror(number), "/models/m.bin")
    assert "/models/m.bin" in caught.value.message
    assert hint in caught.value.hint

    with pytest.raises(kind, match="/models"), filesystem.disk_errors(Path("/models")):
        raise OSError(number, os.strerror(number))


def test_other_exceptions_pass_unchanged() -> None:
    """An exception other than OSError is not converted."""
    with pytest.raises(ValueError, match="x"), filesystem.disk_errors("/"):
        raise ValueError("x")


def test_created_directories_have_mode_0755_despite_the_umask(tmp_path: Path) -> None:
    """Existing directories keep their mode."""
    (tmp_path / "old").mkdir(mode=0o700)
    umask = os.umask(0o077)
    try:
        filesystem.make_directory(tmp_path / "old" / "a" / "b")
        filesystem.make_directory(tmp_path / "old" / "a" / "b")
    finally:
        os.umask(umask)

    modes = [stat.S_IMODE((tmp_path / "old" / name).stat().st_mode) for name in (".", "a", "a/b")]
    assert modes == [0o700, 0o755, 0o755]


@pytest.mark.parametrize("path", ["file", "file/below", "dangling"])
def test_directory_is_not_created_over_a_file_or_dangling_symlink(tmp_path: Path, path: str) -> None:
    """A file or a dangling symlink in the path raises NotADirectoryError."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")

    with pytest.raises(OSError, match="Not a directory"):
        filesystem.make_directory(tmp_path / path)


def test_unreadable_directory_raises_in_walk_tree(tmp_path: Path) -> None:
    """`os.walk` alone would skip the directory, and its files would miss their flush and times."""
    write_files(tmp_path, {"a": b"1", "d/b": b"2"})
    assert [(here.name, files) for here, _, files in filesystem.walk_tree(tmp_path)][1:] == [("d", ["b"])]

    with pytest.raises(FileNotFoundError):
        list(filesystem.walk_tree(tmp_path / "none"))


def test_free_space_counts_blocks_and_inodes(tmpfs: Callable[..., Path]) -> None:
    """Small files take a whole block each."""
    point = tmpfs("disk", "size=1m,nr_inodes=20")
    free = filesystem.free_space(point)

    assert (free.bytes, free.block) == (1 << 20, 4096)
    assert free.files is not None
    assert 10 < free.files <= 20
    assert [free.allocated_bytes(size) for size in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


@pytest.mark.process
def test_bind_mount_is_detected_at_both_names(tmp_path: Path) -> None:
    """Characters escaped in the kernel's list of mounts are decoded."""
    source, point = tmp_path / "source", tmp_path / "mö un\tt"
    source.mkdir()
    try:
        with mounts.bind_mount(source, point):
            assert [filesystem.is_mount(path) for path in (point, source, tmp_path)] == [True, False, False]
            assert [filesystem.is_mounted_elsewhere(path) for path in (source, tmp_path)] == [True, False]
    except mounts.CannotMountError as error:
        pytest.skip(str(error))
    assert not filesystem.is_mounted_elsewhere(source)


def test_bind_mount_is_detected_where_files_and_mount_differ_in_device(tmp_path: Path) -> None:
    """On btrfs, stat(2) reports another device number than the list of mounts."""
    volume = tmp_path / "volume"
    try:
        with mounts.mount_btrfs(volume, tmp_path / "image"):
            (volume / "source").mkdir()
            with mounts.bind_mount(volume / "source", tmp_path / "point"):
                assert [filesystem.is_mounted_elsewhere(path) for path in (volume / "source", volume)] == [True, True]
            assert not filesystem.is_mounted_elsewhere(volume / "source")
    except mounts.CannotMountError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("is_directory", [True, False])
def test_unsupported_flush_is_ignored_for_directories_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_directory: bool
) -> None:
    """Some file systems cannot flush a directory; a file that cannot be flushed is a failure."""

    def refuse_flush(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse_flush)
    (tmp_path / "file").touch()
    if is_directory:
        filesystem.fsync_path(tmp_path)
        return
    with pytest.raises(OSError, match="Invalid argument"):
        filesystem.fsync_path(tmp_path / "file")


@pytest.mark.process
@pytest.mark.parametrize("error", ["EOPNOTSUPP", "ENOSYS", "EINVAL", "EPERM"])
def test_reserved_space_is_a_file_size_alone_where_fallocate_is_refused(tmp_path: Path, error: str) -> None:
    """Without fallocate(2), as on NFS before 4.2 and under seccomp filters, not one byte is written beforehand."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    log, file = tmp_path / "log", tmp_path / "file"
    program = (
        "import os, sys\n"
        "from modelfetch.volume.filesystem import reserve_space\n"
        "reserve_space(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 64 << 20)\n"
    )

    subprocess.run(
        [*strace.strace_command(log, f"fallocate:error={error}"), sys.executable, "-c", program, str(file)],
        check=True,
        timeout=60,
    )

    assert file.stat().st_size == 64 << 20
    assert file.stat().st_blocks == 0
    # Coverage writes files of its own.
    assert [call for call in strace.read_calls(log) if call.name == "pwrite64" and str(file) in call.paths] == []


def test_reserved_space_is_allocated_on_tmpfs(tmpfs: Callable[..., Path]) -> None:
    """A memory file system has fallocate(2)."""
    file = tmpfs("memory") / "file"
    with file.open("wb") as opened:
        filesystem.reserve_space(opened.fileno(), 1 << 20)

    assert file.stat().st_blocks * 512 >= 1 << 20


@pytest.mark.process
def test_many_files_are_flushed_singly_where_syncfs_is_refused(tmp_path: Path) -> None:
    """A seccomp filter answers EPERM where an old kernel answers ENOSYS."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    log = tmp_path / "log"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from modelfetch.volume.filesystem import flush_paths\n"
        "flush_paths([Path(sys.argv[1])] * 40, Path(sys.argv[1]))\n"
    )

    command = [*strace.strace_command(log, "syncfs:error=EPERM"), sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)

    assert log.read_text().count("fsync(") == 40

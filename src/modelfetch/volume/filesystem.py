"""The destination's file system: error texts, free space, mount points, and flushing to disk."""

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError

_MAX_SINGLE_FSYNCS = 32  # files; above, one syncfs is cheaper than an fsync each
_FLUSH_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # from some file systems, for a directory
_CALL_UNSUPPORTED = (errno.ENOSYS, errno.EPERM)  # from kernels and seccomp filters that lack the call
_RESERVE_UNSUPPORTED = (*_CALL_UNSUPPORTED, errno.EOPNOTSUPP, errno.EINVAL)
_OWNER_HINT = "Check the owner and mode of the destination; in Kubernetes set fsGroup or runAsUser."
_HINTS = {
    errno.ENOSPC: "Free some space, or give the volume a larger size (emptyDir.sizeLimit).",
    errno.EDQUOT: "Raise the quota, or free some space.",
    errno.EROFS: "Mount the volume writable for this container, or choose another destination.",
    errno.EACCES: _OWNER_HINT,
    errno.EPERM: _OWNER_HINT,
    errno.EIO: "The disk fails: look at the node's kernel log.",
    errno.EFBIG: "The file system cannot hold files of this size.",
    errno.ENOTDIR: "Something is a file where a directory must go: move it away, or choose another destination.",
    errno.EISDIR: "Something is a directory where a file must go: move it away, or choose another destination.",
    errno.EBUSY: "Something is mounted there: mount the directory above it instead, or choose another destination.",
    errno.ELOOP: "A link leads nowhere: remove it, or choose another destination.",
    **dict.fromkeys(
        (errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO),
        "The volume is gone, or its server: look at its mount, and at the driver behind it.",
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), "Raise the limit of open files (ulimit -n), or lower MODELFETCH_CONNECTIONS."
    ),
    errno.ENOLCK: "The file system has no locks (flock): mount it with them, or choose another destination.",
}


def explain_os_error(error: OSError, path: Path | str) -> ModelfetchError:
    """Return the error for a failed operation on a file of the destination."""
    name = error.filename or path
    if error.errno == errno.ENAMETOOLONG:
        return UnsafeNameError(f"The name {name} is too long for the file system.", hint="Choose a shorter one.")
    if error.errno == errno.EILSEQ:
        return UnsafeNameError(f"The file system does not take the name {name}.", hint="Leave it out with --exclude.")
    hint = _HINTS.get(error.errno or 0, "Check the destination.")
    return DestinationError(f"Cannot write {name}: {error.strerror or error}.", hint=hint)


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Convert an OSError into an error of this package that names the path.

    Raises:
        DestinationError: the operating system refused an operation.
        UnsafeNameError: the file system cannot store the name.
    """
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, path) from error


def make_directory(path: Path) -> list[Path]:
    """Create a directory and its missing parents with mode 0755, regardless of the umask: other users read the model.

    Returns:
        The directories created, the topmost first.

    Raises:
        OSError: a directory cannot be created; the others are removed again.
    """
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    created: list[Path] = []
    try:
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
                created.append(directory)
                directory.chmod(0o755)
            if not directory.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    except OSError:
        for directory in reversed(created):
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise
    return created


def walk_tree(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every directory with the names of its subdirectories and of its other files; symlinks are not followed.

    Raises:
        OSError: a directory cannot be read. `os.walk` alone skips unreadable directories silently.
    """

    def raise_error(error: OSError) -> None:
        raise error

    for directory, folders, files in os.walk(top, onerror=raise_error):
        yield Path(directory), folders, files


class FreeSpace(NamedTuple):
    """Free space of a file system, for this user.

    Attributes:
        bytes: free bytes.
        block: allocation unit in bytes; every file takes a multiple.
        files: how many more files and directories can be created; None for a file system without a limit.
    """

    bytes: int
    block: int
    files: int | None

    def allocated_bytes(self, size: int) -> int:
        """Return the bytes that a file of `size` bytes takes on disk."""
        return -(-size // self.block) * self.block


def free_space(path: Path) -> FreeSpace:
    """Return the free space of the file system that holds an existing path."""
    state = os.statvfs(path)
    return FreeSpace(state.f_bavail * state.f_frsize, state.f_frsize or 1, state.f_favail if state.f_files else None)


def is_mount(path: Path) -> bool:
    """Return whether a path is a mount point; the kernel's list alone shows bind mounts of the same file system."""
    return path.is_mount() or any(mount.point == str(path) for mount in _read_mounts())


def list_mounts_below(path: Path) -> list[str]:
    """Return the mount points below a directory, relative to it: a rename would carry the mounts along."""
    prefix = f"{path}/"
    return [mount.point.removeprefix(prefix) for mount in _read_mounts() if mount.point.startswith(prefix)]


def is_mounted_elsewhere(path: Path) -> bool:
    """Return whether a mount shows this directory under another name, where a rename would leave the old content."""
    state, mounts = path.stat(), _read_mounts()
    device = _find_device(path, state, mounts)
    for mount in mounts:
        with contextlib.suppress(OSError):
            # Mounts of other file systems are not examined: stat hangs if a file server is gone.
            if mount.device == device and os.path.samestat(state, os.stat(mount.point)):  # noqa: PTH116  no Path is needed
                return True
    return False


class _Mount(NamedTuple):
    """One line of proc_pid_mountinfo(5), reduced to the fields used here."""

    mount_id: str
    device: str
    point: str


def _read_mounts() -> list[_Mount]:
    """Return the mounts visible to this process; an empty list on systems other than Linux."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return []
    mounts = []
    for line in filter(None, lines):
        mount_id, _, device, _, point, *_ = line.split(" ")
        mounts.append(_Mount(mount_id, device, re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)))
    return mounts


def _find_device(path: Path, stat: os.stat_result, mounts: Sequence[_Mount]) -> str:
    """Return the device of a path's mount, else of the path: on btrfs, stat(2) reports a device of no mount."""
    reported = f"{os.major(stat.st_dev)}:{os.minor(stat.st_dev)}"
    if not mounts:
        return reported
    fd = os.open(path, os.O_PATH)
    try:
        fdinfo = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    finally:
        os.close(fd)
    mount_id = re.search(r"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    return next((mount.device for mount in mounts if mount_id and mount.mount_id == mount_id[1]), reported)


def write_and_flush(path: Path, text: str) -> None:
    """Write a small new file with mode 0644 and flush the content to disk; whatever has the name is replaced."""
    path.unlink(missing_ok=True)  # another writer's symlink is not followed
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    path.chmod(0o644)
    fsync_path(path)


def flush_paths(paths: Sequence[Path], volume: Path) -> None:
    """Flush files and directories of one volume to disk; many paths by a single syncfs."""
    if len(paths) > _MAX_SINGLE_FSYNCS and _sync_file_system(volume):
        return
    for path in paths:
        fsync_path(path)


def reserve_space(fd: int, size: int) -> None:
    """Reserve disk space with fallocate(2), so that a full disk shows early; where unsupported, set the size alone.

    posix_fallocate(3) would write into every block of a file system without fallocate(2), uninterruptibly.

    Raises:
        OSError: no room.
    """
    fallocate = getattr(_load_libc(), "fallocate64", None)  # of glibc; musl and other systems do without
    while fallocate is not None:
        if fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
            return
        if ctypes.get_errno() in _RESERVE_UNSUPPORTED:
            break
        if ctypes.get_errno() != errno.EINTR:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.ftruncate(fd, size)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Start the writeback of bytes that will be flushed later, so that the flush finds little left to write.

    sync_file_range(2) with SYNC_FILE_RANGE_WRITE; no operation where unsupported. Errors are ignored: the later flush
    reports the same failure.
    """
    sync_file_range = getattr(_load_libc(), "sync_file_range", None)
    if sync_file_range is not None:
        sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), 2)


def call_libc(name: str, *args: object) -> tuple[int, int]:
    """Call a function of the C library; return its result and errno, -1 and ENOSYS if absent."""
    function = getattr(_load_libc(), name, None)
    return (-1, errno.ENOSYS) if function is None else (function(*args), ctypes.get_errno())


@cache
def _load_libc() -> ctypes.CDLL:
    """Load the C library once, with errno kept."""
    return ctypes.CDLL(None, use_errno=True)


def _sync_file_system(path: Path) -> bool:
    """Flush a whole file system with syncfs(2), which reports write errors since Linux 5.8; False where unsupported."""
    syncfs = getattr(_load_libc(), "syncfs", None)
    if syncfs is None:
        return False
    fd = os.open(path, os.O_RDONLY)
    try:
        if syncfs(fd) == 0:
            return True
        if ctypes.get_errno() in _CALL_UNSUPPORTED:
            return False
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(fd)


def fsync_path(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _FLUSH_UNSUPPORTED or not path.is_dir():
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(fd)

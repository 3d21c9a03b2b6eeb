"""Staged tree: a directory whose files are reached by descriptors, never through a symlink.

Other writers of the volume may swap a staged directory for a symlink at any moment. Every parent directory is therefore
opened without following symlinks, by openat2(2) with RESOLVE_NO_SYMLINKS or else component by component, and every
file relative to the parent's descriptor. Inodes of written files are kept, to be compared before publishing.
"""

import contextlib
import ctypes
import errno
import os
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from modelfetch.errors import DestinationError
from modelfetch.volume.filesystem import call_libc

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_FILE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_PATH", 0)
_HAS_DESCRIPTORS = os.open in os.supports_dir_fd  # not on Windows
_MAX_PATH_BYTES = 4095  # PATH_MAX without the final zero
_OPENAT2 = 437  # number of openat2(2) on every architecture that Python runs on
_RESOLVE_BENEATH_NO_SYMLINKS = 0x08 | 0x04
_NO_OPENAT2 = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG)  # old kernels, seccomp filters


class StagedTree:
    """Directory of staged files; paths are relative, with `/` between names.

    Attributes:
        root: path of the directory, for messages.
    """

    def __init__(self, root: Path, written: dict[str, int] | None = None, *, within: int | None = None) -> None:
        """Open the directory, which must not be a symlink.

        Args:
            root: the directory.
            written: inode of every written file by path; files written here are added.
            within: descriptor of the parent directory, instead of the path's own parent.

        Raises:
            OSError: no directory, or a symlink.
        """
        self.root = root
        self._root_bytes = len(os.fsencode(root)) + 1
        self._written = {} if written is None else written
        self._lock = threading.Lock()  # of the parent opened last
        self._parent_path = ""
        self._parent_fd: int | None = None
        self._root_fd: int | None = None
        if _HAS_DESCRIPTORS:
            self._root_fd = self._parent_fd = open_directory(root if within is None else root.name, within)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors; files opened before stay open."""
        with self._lock:
            self._set_parent("", self._root_fd)
            if self._root_fd is not None:
                os.close(self._root_fd)
            self._root_fd = self._parent_fd = None

    def open_file(self, path: str, flags: int, mode: int = 0o644) -> int:
        """Open a file; a file opened for writing is recorded as written."""
        with self._at(path) as (name, parent):
            fd = os.open(name, flags | _FILE_FLAGS, mode, dir_fd=parent)
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._written[path] = os.fstat(fd).st_ino
        return fd

    def open_reader(self, path: str) -> BinaryIO:
        """Open a file for reading."""
        return os.fdopen(self.open_file(path, os.O_RDONLY), "rb")

    def create_file(self, path: str, mode: int = 0o644) -> BinaryIO:
        """Create a file that must not exist."""
        return os.fdopen(self.open_file(path, _CREATE, mode), "wb")

    def make_directory(self, path: str) -> None:
        """Create a directory with mode 0755, regardless of the umask.

        Raises:
            OSError: the path exists, or the parent is missing or leads through a symlink.
        """
        with self._at(path) as (name, parent):
            os.mkdir(name, 0o755, dir_fd=parent)
            if not _HAS_DESCRIPTORS:
                return
            fd = os.open(name, _DIRECTORY_FLAGS & ~getattr(os, "O_PATH", 0), dir_fd=parent)
            try:
                os.fchmod(fd, 0o755)
            finally:
                os.close(fd)

    def make_directories(self, path: str) -> None:
        """Create a directory and its missing parents; existing directories are accepted, symlinks are not."""
        names = path.split("/")
        for depth in range(1, len(names) + 1):
            with contextlib.suppress(FileExistsError):
                self.make_directory("/".join(names[:depth]))
        with self._at(f"{path}/."):  # a directory, and no symlink
            pass

    def link_file(self, path: str, target: str) -> None:
        """Create a hard link to a file of the tree."""
        with self._at(target) as (original, directory):
            source = None if directory is None else os.dup(directory)
        try:
            with self._at(path) as (name, parent):
                os.link(original, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=not _HAS_DESCRIPTORS)
        finally:
            if source is not None:
                os.close(source)
        self._written[path] = self._written.get(target, -1)

    def make_symlink(self, path: str, target: str) -> None:
        """Create a symlink, and record the inode as written."""
        with self._at(path) as (name, parent):
            os.symlink(target, name, dir_fd=parent)
            self._written[path] = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino

    def replace_file(self, source: str, path: str) -> None:
        """Rename a file over another file of the same directory."""
        with self._at(path) as (name, parent):
            os.replace(self._name(source), name, src_dir_fd=parent, dst_dir_fd=parent)
        self._written[path] = self._written.pop(source)

    def take_file(self, other: "StagedTree", path: str) -> None:
        """Move a file or symlink from another tree to the same path of this tree, below existing or new directories."""
        if "/" in path:
            self.make_directories(path.rpartition("/")[0])
        with self._at(path) as (name, parent), other._at(path) as (taken, directory):  # noqa: SLF001  same class
            os.replace(taken, name, src_dir_fd=directory, dst_dir_fd=parent)

    def is_executable(self, path: str) -> bool:
        """Return whether a file has an executable bit."""
        with self._at(path) as (name, parent):
            return bool(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & 0o111)

    def check_written(self, paths: Iterable[str]) -> None:
        """Require that every path still names the inode that was written, below real directories.

        Raises:
            DestinationError: another writer of the volume replaced a file, or a directory above a file.
        """
        for path in paths:
            try:
                with self._at(path) as (name, parent):
                    inode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
            except (FileNotFoundError, NotADirectoryError):
                inode = None
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EXDEV):
                    raise
                inode = None
            if inode is None or inode != self._written.get(path):
                raise DestinationError(
                    f"Another writer of the volume replaced {self.root / path}: not the file that was written.",
                    hint="Give the volume to this pull alone, then pull again.",
                )

    def _name(self, path: str) -> str:
        """Return the last name of a path; the whole path where descriptors are unavailable."""
        return path.rpartition("/")[2] if _HAS_DESCRIPTORS else str(self.root / path)

    @contextlib.contextmanager
    def _at(self, path: str) -> Iterator[tuple[str, int | None]]:
        """Yield the last name of a path, and the descriptor of its parent directory."""
        if self._root_bytes + len(os.fsencode(path)) > _MAX_PATH_BYTES:  # readers open the file by its whole path
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        with self._lock:
            if self._root_fd is not None:
                parent = path.rpartition("/")[0]
                if parent != self._parent_path:
                    self._set_parent(parent, _open_below(self._root_fd, parent) if parent else self._root_fd)
            yield self._name(path), self._parent_fd

    def _set_parent(self, path: str, fd: int | None) -> None:
        """Keep the descriptor of the parent opened last: neighbours in a tree follow one another."""
        if self._parent_fd is not None and self._parent_fd != self._root_fd:
            os.close(self._parent_fd)
        self._parent_path, self._parent_fd = path, fd


def open_directory(path: Path | str, within: int | None = None) -> int | None:
    """Open a directory that is no symlink, below `within` if given; None where descriptors are unavailable."""
    return os.open(path, _DIRECTORY_FLAGS, dir_fd=within) if _HAS_DESCRIPTORS else None


def _open_below(root_fd: int, path: str) -> int:
    """Open a directory below another without following any symlink."""
    flags = _DIRECTORY_FLAGS | getattr(os, "O_CLOEXEC", 0)
    if sys.platform == "linux":
        how = struct.pack("QQQ", flags, 0, _RESOLVE_BENEATH_NO_SYMLINKS)  # struct open_how: flags, mode, resolve
        name = os.fsencode(path)
        fd, error = call_libc("syscall", _OPENAT2, root_fd, name, how, ctypes.c_size_t(len(how)))
        if fd >= 0:
            return fd
        if error not in _NO_OPENAT2:
            raise OSError(error, os.strerror(error), path)
    return _open_by_components(root_fd, path, flags)


def _open_by_components(root_fd: int, path: str, flags: int) -> int:
    """Open one directory after the other, each without following a symlink: for kernels without openat2(2)."""
    fd = os.dup(root_fd)
    try:
        for name in path.split("/"):
            below = os.open(name, flags, dir_fd=fd)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd

"""Target directory of an extraction: checks every member, then writes.

Directories and files are created in archive order; symlinks only after everything else, because nothing may ever be
written through a symlink.
"""

import contextlib
import errno
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from modelfetch.archive.base import Budget, Member
from modelfetch.archive.decompress import PIECE_BYTES
from modelfetch.archive.symlinks import resolve_symlinks
from modelfetch.errors import ArchiveError, BudgetError, ModelfetchError, UnsafeNameError
from modelfetch.safe_paths import MAX_PATH_BYTES, check_path, is_reserved_path, parent_paths, quote_path
from modelfetch.volume import filesystem
from modelfetch.volume.staged_tree import StagedTree

MAX_NAME_CHARS = 64 * 1024**2  # characters of all names together: names are kept in memory

MAX_RAW_NAME_CHARS = 2 * MAX_PATH_BYTES  # before normalisation, whose work grows with the length
MAX_LINK_SEGMENTS = 1_000_000  # of all symlink targets together: each segment is looked up
MAX_HEADER_BYTES = 16 * 1024**2  # of extended headers together, and beyond that per member:
MAX_HEADER_BYTES_PER_MEMBER = 4096

_LEADING_DOTS = re.compile(r"(?:\./)+(?=.)", re.DOTALL)
_WRITEBACK_BYTES = 8 * 1024**2  # bytes per request to the kernel to start writing back
_HARD_LINK_UNSUPPORTED = (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class ExtractionDir:
    """Members written so far, and the budget for further members.

    Attributes:
        budget: limits of the archive.
        reserved: number of members left out for their reserved names.
    """

    def __init__(self, tree: StagedTree, budget: Budget) -> None:
        self.budget = budget
        self._tree = tree
        self._files: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._directories: set[str] = set()
        self.reserved = 0
        self._member_count = 0
        self._content_bytes = 0
        self._name_chars = 0
        self._header_bytes = 0
        self._link_segments = 0

    def check_budget(self, *, members: int = 0, size: int = 0) -> None:
        """Refuse more members or more bytes of content than the budget allows.

        Raises:
            BudgetError: `members` or `size` exceeds the budget.
            DestinationError: `size` exceeds the free space of the disk.
        """
        if members > self.budget.max_files:
            raise BudgetError(
                f"The archive holds more than {self.budget.max_files} files.",
                hint="If it may be trusted, raise --max-files (MODELFETCH_MAX_FILES).",
            )
        self.budget.check_bytes(size, "The archive")

    def admit_member(self, name: str, *, is_directory: bool) -> str:
        """Count a member and check the name, before any other step.

        Returns:
            The member's path: without a leading `./`, and without the trailing slash of a directory's name. Empty for
            the root.

        Raises:
            BudgetError: too many members.
            UnsafeNameError: the name is unsafe.
        """
        path = _strip_leading_dots(name, "member")
        if is_directory:
            path = path.rstrip("/") or path
        if is_directory and path == ".":
            return ""
        self._member_count += 1
        self._count_name(path)
        check_path(path, "member")
        return path

    def admit_header_bytes(self, size: int) -> None:
        """Count the bytes of an extended header.

        Raises:
            BudgetError: the extended headers take more bytes than the members explain.
        """
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES + MAX_HEADER_BYTES_PER_MEMBER * self._member_count:
            raise BudgetError("The extended headers of the archive take more than 16 MiB, and 4 KiB for each member.")

    def leaves_out(self, path: str) -> bool:
        """Return whether a member has a reserved name and is left out; count such members."""
        reserved = is_reserved_path(path)
        self.reserved += reserved
        return reserved

    def make_directory(self, path: str) -> None:
        """Create a directory and missing parents; existing directories are accepted."""
        missing = []
        for directory in (path, *parent_paths(path)):
            if directory in self._directories:
                break
            if directory in self._files or directory in self._links:
                clash = f"The archive has {quote_path(directory)} both as a directory and as something else."
                raise ArchiveError(clash)
            missing.append(directory)
        for directory in reversed(missing):
            self._directories.add(directory)
            self._count_name(directory)
            with self._explain_errors(directory):
                self._tree.make_directory(directory)

    def write_file(self, path: str, size: int, pieces: Iterable[memoryview], *, executable: bool) -> None:
        """Write a file of `size` bytes with mode 0755 if executable, else 0644.

        All other mode bits are dropped. Setuid, setgid and sticky bits are not refused, because directories of real
        archives have them.
        """
        self._claim_path(path)
        self._content_bytes += size
        self.check_budget(size=self._content_bytes)
        digest = hashlib.sha256()
        written = flushing = 0
        with self._explain_errors(path):
            fd = self._tree.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for piece in pieces:
                digest.update(piece)
                with self._explain_errors(path):
                    _write_fully(fd, piece)
                written += len(piece)
                if written - flushing >= _WRITEBACK_BYTES:  # the disk writes meanwhile: less for the flush at the end
                    aligned = written - written % _WRITEBACK_BYTES
                    filesystem.start_writeback(fd, flushing, aligned - flushing)
                    flushing = aligned
            with self._explain_errors(path):
                if hasattr(os, "fchmod"):  # not on Windows
                    os.fchmod(fd, 0o755 if executable else 0o644)  # whatever the umask
        finally:
            with self._explain_errors(path):
                os.close(fd)
        self._files[path] = Member(path, size, digest.hexdigest())

    def add_hard_link(self, path: str, target: str) -> None:
        """Create a hard link to an earlier file; a copy where the file system has no hard links."""
        target = _strip_leading_dots(target, "link target")
        original = self._files.get(target)
        if original is None:
            raise ArchiveError(
                f"The member {quote_path(path)} is a link to {quote_path(target)}, which is no file before it."
            )
        self._claim_path(path)
        try:
            self._tree.link_file(path, target)
        except OSError as error:
            if error.errno not in _HARD_LINK_UNSUPPORTED:
                raise self._explain_error(error, path) from error
            executable = self._tree.is_executable(target)
            self.write_file(path, original.size, self._read_pieces(target), executable=executable)
        self._files[path] = Member(path, original.size, original.sha256)

    def add_symlink(self, path: str, target: str) -> None:
        """Record a symlink; `finish_extraction` resolves the target and creates the symlink."""
        if not target or target.startswith("/"):
            raise ArchiveError(f"The link {quote_path(path)} to {quote_path(target)} leads out of the archive.")
        if (size := len(os.fsencode(target))) > MAX_PATH_BYTES:
            raise ArchiveError(f"The member {quote_path(path)} is a link with a target of {size} bytes.")
        self._link_segments += target.count("/") + 1
        if self._link_segments > MAX_LINK_SEGMENTS:
            raise BudgetError(f"The targets of the archive's links have more than {MAX_LINK_SEGMENTS} segments.")
        self._claim_path(path)
        self._links[path] = target
        self._count_name(target)

    def finish_extraction(self) -> list[Member]:
        """Create the symlinks and return all files and symlinks, sorted by path.

        Raises:
            ArchiveError: a symlink leads to a missing path or out of the tree; or the archive holds no file.
        """
        if not self._files:
            raise ArchiveError("The archive holds no files.")
        resolved = resolve_symlinks(self._links, self._files, self._directories)
        members = dict(self._files)
        for path, end in resolved.items():
            target = PurePosixPath(self._links[path])  # drops redundant dots and slashes
            with self._explain_errors(path):
                self._tree.make_symlink(path, str(target))
            file = self._files.get(end, Member(end, 0, ""))
            members[path] = Member(path, file.size, file.sha256, target.as_posix())
        return [members[path] for path in sorted(members)]

    def _claim_path(self, path: str) -> None:
        """Check that a path is free for a file or link, and create the parent directories."""
        if path in self._directories:
            raise ArchiveError(f"The archive has {quote_path(path)} both as a directory and as something else.")
        if path in self._files or path in self._links:
            raise ArchiveError(f"The archive has {quote_path(path)} twice.")
        for parent in parent_paths(path):
            self.make_directory(parent)
            break

    def _count_name(self, name: str) -> None:
        self._name_chars += len(name)
        self.check_budget(members=max(self._member_count, len(self._directories)))
        if self._name_chars > MAX_NAME_CHARS:
            raise BudgetError("The names in the archive take more than 64 MiB.")

    def _read_pieces(self, path: str) -> Iterator[memoryview]:
        with self._explain_errors(path), self._tree.open_reader(path) as file:
            while piece := file.read(PIECE_BYTES):
                yield memoryview(piece)

    @contextlib.contextmanager
    def _explain_errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explain_error(error, path) from error

    def _explain_error(self, error: OSError, path: str) -> ModelfetchError:
        if error.errno == errno.ENAMETOOLONG:
            return UnsafeNameError(
                f"The member {quote_path(path)} has a name too long for the destination's file system."
            )
        if error.errno != errno.EEXIST:
            return filesystem.explain_os_error(OSError(error.errno, error.strerror), self._tree.root / path)
        others = (*self._files, *self._directories, *self._links)
        folded = _fold_name(path)
        other = next((name for name in others if name != path and _fold_name(name) == folded), "what is there")
        return UnsafeNameError(
            f"The file system cannot keep {quote_path(path)} and {quote_path(other)} apart.",
            hint="Pack the archive again with names that differ in more than case or Unicode form.",
        )


def _strip_leading_dots(name: str, kind: str) -> str:
    """Strip every leading `./`, as `tar c .` writes in front of names.

    Raises:
        UnsafeNameError: the raw name is longer than any path; checked first, for the work grows with the length.
    """
    if len(name) > MAX_RAW_NAME_CHARS:
        raise UnsafeNameError(f"The {kind} {quote_path(name)} is longer than {MAX_RAW_NAME_CHARS} characters.")
    return _LEADING_DOTS.sub("", name, count=1) if name.startswith("./") else name


def _write_fully(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _fold_name(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())

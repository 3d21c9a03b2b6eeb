"""The directory that an archive is unpacked into: every member is checked here, then written.

Directories and files are made as they come; symbolic links only when all else is there, so that nothing is ever
written through one.
"""

import contextlib
import errno
import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from modelfetch.archive.base import Budget, Member
from modelfetch.archive.decompress import PIECE
from modelfetch.archive.symlinks import resolve_links
from modelfetch.errors import ArchiveError, BudgetError, ModelfetchError, UnsafeNameError
from modelfetch.safe_paths import MAX_PATH_BYTES, check_path, parent_paths, quote_path
from modelfetch.volume import filesystem

MAX_NAMES = 64 * 1024**2  # characters of all names together: they are kept in memory

_BATCH = 8 * 1024**2  # bytes that the disk is told to begin with at a time
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_HARD_LINKS = (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class ExtractionDir:
    """What has been unpacked so far, and what may still be."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self.budget = budget
        self._root = root
        self._files: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._directories: set[str] = set()
        self._members = 0
        self._bytes = 0
        self._names = 0

    def expect(self, *, members: int = 0, size: int = 0) -> None:
        """Refuse more members than allowed, or more bytes of content.

        Raises:
            BudgetError: there are more than the budget has.
            DestinationError: there is no room for so much.
        """
        if members > self.budget.max_files:
            raise BudgetError(
                f"The archive holds more than {self.budget.max_files} files.",
                hint="If it may be trusted, raise --max-files (MODELFETCH_MAX_FILES).",
            )
        self.budget.check_bytes(size, "The archive")

    def admit(self, name: str, *, is_directory: bool) -> str:
        """Count and vet a member, before anything else is done with it.

        Returns:
            Its path: without a leading `./`, and without the slash that ends a directory's name. Empty for the root.

        Raises:
            BudgetError: there are too many.
            UnsafeNameError: its name must not be written.
        """
        path = _without_dot(name)
        if is_directory:
            path = path.rstrip("/") or path
        if is_directory and path == ".":
            return ""
        self._members += 1
        self._count_name(path)
        check_path(path, "member")
        return path

    def directory(self, path: str) -> None:
        """Make a directory, and those above it; one that is there already is fine."""
        missing = []
        for each in (path, *parent_paths(path)):
            if each in self._directories:
                break
            if each in self._files or each in self._links:
                raise ArchiveError(f"The archive has {quote_path(each)} both as a directory and as something else.")
            missing.append(each)
        for each in reversed(missing):
            self._directories.add(each)
            self._count_name(each)
            with self._errors(each):
                (self._root / each).mkdir()
                (self._root / each).chmod(0o755)

    def file(self, path: str, size: int, pieces: Iterable[memoryview], *, executable: bool) -> None:
        """Write a file of `size` bytes.

        It becomes 0755 or 0644: of a mode only the executable bits matter. Setuid, setgid and sticky bits are dropped
        rather than refused, as directories of real archives have them.
        """
        self._claim(path)
        self._bytes += size
        self.expect(size=self._bytes)
        digest = hashlib.sha256()
        written = begun = 0
        with self._errors(path):
            fd = os.open(self._root / path, _NEW, 0o600)
        try:
            for piece in pieces:
                digest.update(piece)
                with self._errors(path):
                    _write(fd, piece)
                written += len(piece)
                if written - begun >= _BATCH:  # the disk works meanwhile: less is left for the flush at the end
                    whole = written - written % _BATCH
                    filesystem.start_writeback(fd, begun, whole - begun)
                    begun = whole
        finally:
            with self._errors(path):
                os.close(fd)
        with self._errors(path):
            (self._root / path).chmod(0o755 if executable else 0o644)  # whatever the umask
        self._files[path] = Member(path, size, digest.hexdigest())

    def hard_link(self, path: str, target: str) -> None:
        """Give an earlier file a second name; where the file system has no such links, a copy."""
        target = _without_dot(target)
        original = self._files.get(target)
        if original is None:
            raise ArchiveError(
                f"The member {quote_path(path)} is a link to {quote_path(target)}, which is no file before it."
            )
        self._claim(path)
        try:
            (self._root / path).hardlink_to(self._root / target)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise self._explain(error, path) from error
            executable = bool((self._root / target).stat().st_mode & 0o111)
            self.file(path, original.size, self._pieces(target), executable=executable)
        self._files[path] = Member(path, original.size, original.sha256)

    def symlink(self, path: str, target: str) -> None:
        """Note a symbolic link; `finish` checks where it leads, and makes it."""
        if not target or target.startswith("/"):
            raise ArchiveError(f"The link {quote_path(path)} to {quote_path(target)} leads out of the archive.")
        if (size := len(os.fsencode(target))) > MAX_PATH_BYTES:
            raise ArchiveError(f"The member {quote_path(path)} is a link with a target of {size} bytes.")
        self._claim(path)
        self._links[path] = target
        self._count_name(target)

    def finish(self) -> list[Member]:
        """Make the links, and return all files sorted by path.

        Raises:
            ArchiveError: a link leads nowhere or out of the tree; or there is no file at all.
        """
        if not self._files:
            raise ArchiveError("The archive holds no files.")
        ends = resolve_links(self._links, self._files, self._directories)
        members = dict(self._files)
        for path, end in ends.items():
            target = PurePosixPath(self._links[path])  # without idle dots and slashes
            with self._errors(path):
                (self._root / path).symlink_to(target)
            file = self._files.get(end, Member(end, 0, ""))
            members[path] = Member(path, file.size, file.sha256, target.as_posix())
        return [members[path] for path in sorted(members)]

    def _claim(self, path: str) -> None:
        """Check that a name is free for something that is no directory, and make the directories above it."""
        if path in self._directories:
            raise ArchiveError(f"The archive has {quote_path(path)} both as a directory and as something else.")
        if path in self._files or path in self._links:
            raise ArchiveError(f"The archive has {quote_path(path)} twice.")
        for above in parent_paths(path):
            self.directory(above)
            break

    def _count_name(self, name: str) -> None:
        self._names += len(name)
        self.expect(members=max(self._members, len(self._directories)))
        if self._names > MAX_NAMES:
            raise BudgetError("The names in the archive take more than 64 MiB.")

    def _pieces(self, path: str) -> Iterator[memoryview]:
        with self._errors(path), (self._root / path).open("rb") as file:
            while piece := file.read(PIECE):
                yield memoryview(piece)

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explain(error, path) from error

    def _explain(self, error: OSError, path: str) -> ModelfetchError:
        if error.errno == errno.ENAMETOOLONG:
            return UnsafeNameError(
                f"The member {quote_path(path)} has a name too long for the destination's file system."
            )
        if error.errno != errno.EEXIST:
            return filesystem.explain_os_error(OSError(error.errno, error.strerror), self._root / path)
        others = (*self._files, *self._directories, *self._links)
        other = next((each for each in others if each != path and _folded(each) == _folded(path)), "what is there")
        return UnsafeNameError(
            f"The file system cannot keep {quote_path(path)} and {quote_path(other)} apart.",
            hint="Pack the archive again with names that differ in more than case or Unicode form.",
        )


def _without_dot(name: str) -> str:
    """Return a name without the `./` that packing a directory from inside gives it."""
    while name.startswith("./") and name != "./":
        name = name[2:]
    return name


def _write(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())

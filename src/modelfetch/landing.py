"""A file of the model while its bytes arrive: written from several threads, checksummed on the way, resumable."""

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelfetch import disk, integrity
from modelfetch.disk import disk_errors
from modelfetch.errors import UnsafeNameError
from modelfetch.front import Front
from modelfetch.integrity import Fingerprint, InOrder
from modelfetch.journal import Journal
from modelfetch.sources.base import RemoteObject

PART = 16 * 1024**2  # bytes of one request
BLOCK = 4 * 1024**2  # bytes noted in the journal at a time: what a crash can cost for each connection
_PIECE = 256 * 1024  # bytes read back at a time
_LITTLE = 1024**2  # bytes that no room is kept for


class Landing:
    """One object's file in the staging area."""

    def __init__(self, obj: RemoteObject, path: Path, journal: Journal) -> None:
        """Create the file at its full size, or take up what a crash left of it.

        Raises:
            UnsafeNameError: the file system cannot keep its name apart from another's.
            DestinationError: no room, or not writable.
        """
        stated = None if obj.checksums else journal.stated.get(obj.path)
        self.obj = obj._replace(checksums=stated) if stated else obj
        self.blocks = _blocks(obj)
        self._path = path
        self._journal = journal
        self._crcs: dict[int, int] = {}
        self._lock = threading.Lock()
        self._next = 0  # the first block that is not there
        self._choose(self.obj.checksums)
        again = obj.path in journal.files
        with disk_errors(path):
            self._fd = _open(path, obj, again=again)
            self.resumed = self._take_up() if again else 0
            if again and self.missing:
                os.ftruncate(self._fd, obj.size or 0)  # what a crash left may be longer than what will come

    def _choose(self, checksums: Mapping[str, str]) -> None:
        self.algorithm = integrity.crc_of(checksums)
        self._front = Front(InOrder(checksums), self._pieces)

    @property
    def missing(self) -> list[int]:
        """The numbers of the blocks that are still to come; their bytes are `blocks[number]`."""
        return [block for block in range(len(self.blocks)) if block not in self._crcs]

    @property
    def runs(self) -> list[list[int]]:
        """The missing blocks as runs of neighbours, each of the size of one request at most."""
        runs: list[list[int]] = []
        for block in self.missing:
            if runs and runs[-1][-1] == block - 1 and len(runs[-1]) < PART // BLOCK:
                runs[-1].append(block)
            else:
                runs.append([block])
        return runs

    def expect(self, checksums: Mapping[str, str]) -> None:
        """Learn the checksums that a listing lacked; only before the first byte."""
        self.obj = self.obj._replace(checksums=checksums)
        self._choose(checksums)
        self._journal.state(self.obj.path, checksums)

    def write(self, data: memoryview, offset: int) -> None:
        """Write at an offset. One lock round the writes: unlocked, threads burn their time in the inode's lock."""
        left, at = data, offset
        try:
            with self._lock:
                while left:
                    count = os.pwrite(self._fd, left, at)
                    left, at = left[count:], at + count
        except OSError as error:
            raise disk.explain(error, self._path) from error
        self._front.came(data, offset)

    def complete(self, block: int, crc: int) -> None:
        """Note that a block is all there."""
        self._crcs[block] = crc
        self._journal.record(self.obj.path, block, crc)
        start, end = self.blocks[block]
        if end is not None and end - start == BLOCK:
            disk.start_writing(self._fd, start, BLOCK)
        self._follow()

    def fingerprint(self) -> Fingerprint:
        """What the file is, once no block is missing."""
        self._follow()  # all of it may have been there
        size = os.fstat(self._fd).st_size
        parts = [
            (self._crcs[block], (size if end is None else end) - start)
            for block, (start, end) in enumerate(self.blocks)
        ]
        crc = integrity.crc_hex(self.algorithm, integrity.combine(self.algorithm, parts))
        return Fingerprint(size, {self.algorithm: crc, **self._front.results()})

    def halt(self) -> None:
        """Have a thread that hashes what is there leave it soon."""
        self._front.close()

    def close(self) -> None:
        """Close the file; it is not flushed yet.

        Raises:
            DestinationError: what was written did not get to the disk.
        """
        with self._lock:
            if self._fd >= 0:
                fd, self._fd = self._fd, -1  # a thread that is still about fails, and does not write into another file
                with disk_errors(self._path):  # some file systems tell of a failed write only now
                    os.close(fd)

    def _follow(self) -> None:
        """Tell the digests up to where nothing is missing."""
        with self._lock:
            while self._next in self._crcs:
                self._next += 1
            last = self._next - 1
        if last >= 0:
            end = self.blocks[last][1]
            self._front.reached(os.fstat(self._fd).st_size if end is None else end)

    def _pieces(self, at: int, end: int | None) -> Iterator[bytes]:
        while end is None or at < end:
            with disk_errors(self._path):
                piece = os.pread(self._fd, _PIECE if end is None else min(_PIECE, end - at), at)
            if not piece:
                return
            yield piece
            at += len(piece)

    def _take_up(self) -> int:
        """Believe the journal's blocks whose bytes on disk have the CRC noted; returns how many bytes that saves."""
        saved = 0
        for block in self.missing:
            noted = self._journal.done.get((self.obj.path, block))
            if noted is None:
                continue
            crc = length = 0
            for piece in self._pieces(*self.blocks[block]):
                crc = integrity.crc(self.algorithm, piece, crc)
                length += len(piece)
            if crc == noted and length:
                self._crcs[block] = crc
                saved += length
        return saved


def _blocks(obj: RemoteObject) -> list[tuple[int, int | None]]:
    if obj.size is None or not obj.ranges:
        return [(0, obj.size)]
    return [(start, min(start + BLOCK, obj.size)) for start in range(0, obj.size, BLOCK)]


def _open(path: Path, obj: RemoteObject, *, again: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        try:
            fd = os.open(path, flags | (0 if again else os.O_EXCL), 0o644)
        except FileNotFoundError:  # the first one of its directory
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(path, flags | (0 if again else os.O_EXCL), 0o644)
    except FileExistsError:
        raise UnsafeNameError(
            f"The file system cannot keep {obj.path!r} apart from another name of this model (case or Unicode form).",
            hint="Leave one of them out with --exclude, or pull onto a file system that tells them apart.",
        ) from None
    try:
        _reserve(fd, obj)
    except OSError:
        os.close(fd)
        raise
    return fd


def _reserve(fd: int, obj: RemoteObject) -> None:
    """Take the room at once, so that a full disk is known before the first byte, and writes need no new blocks.

    A small file is there, or is not, as soon.
    """
    if obj.size is None or obj.size <= _LITTLE or not hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        return
    try:
        os.posix_fallocate(fd, 0, obj.size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # some file systems cannot
            raise

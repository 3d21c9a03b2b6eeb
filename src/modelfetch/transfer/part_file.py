"""Staged file that arrives in parts: written by several threads, checksummed on the way, resumable."""

import os
import threading
from collections.abc import Iterator, Mapping

from modelfetch import checksums
from modelfetch.checksums import Fingerprint, InOrderDigests
from modelfetch.errors import UnsafeNameError
from modelfetch.sources.base import RemoteObject
from modelfetch.transfer.inorder_hasher import InOrderHasher
from modelfetch.volume import filesystem
from modelfetch.volume.filesystem import disk_errors
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staged_tree import StagedTree

PART_SIZE = 16 * 1024**2  # bytes of one request
BLOCK_SIZE = 4 * 1024**2  # bytes per journal entry: the loss of a crash, per connection
_PIECE = 256 * 1024  # bytes read back at a time
_LITTLE = 1024**2  # bytes up to which no space is reserved


class PartFile:
    """One object's file in the staging area."""

    def __init__(self, obj: RemoteObject, tree: StagedTree, journal: ResumeJournal) -> None:
        """Create the file at its full size, or resume the file of an interrupted run.

        Raises:
            UnsafeNameError: the file system takes the name for a different file's (case, Unicode form).
            DestinationError: no room, or not writable.
        """
        stated = None if obj.checksums else journal.stated_checksums.get(obj.path)
        self.obj = obj._replace(checksums=stated) if stated else obj
        self.blocks = _block_ranges(obj)
        self._path = tree.root / obj.path
        self._journal = journal
        self._crcs: dict[int, int] = {}
        self._lock = threading.Lock()
        self._next = 0  # first missing block
        self._choose_algorithms(self.obj.checksums)
        again = obj.path in journal.files
        with disk_errors(self._path):
            self._fd = _open_part_file(tree, obj, again=again)
            self.resumed_bytes = self._load_resumable_blocks() if again else 0
            if again and self.missing_blocks:
                os.ftruncate(self._fd, obj.size or 0)  # the file of an interrupted run may be longer

    def _choose_algorithms(self, expected: Mapping[str, str]) -> None:
        self.algorithm = checksums.choose_crc(expected)
        self._hasher = InOrderHasher(InOrderDigests(expected), self._read_pieces)

    @property
    def missing_blocks(self) -> list[int]:
        """Return the numbers of missing blocks; `blocks[number]` is the byte range."""
        return [block for block in range(len(self.blocks)) if block not in self._crcs]

    @property
    def missing_parts(self) -> list[list[int]]:
        """Return the missing blocks grouped into parts: neighbours, up to the size of one request."""
        runs: list[list[int]] = []
        for block in self.missing_blocks:
            if runs and runs[-1][-1] == block - 1 and len(runs[-1]) < PART_SIZE // BLOCK_SIZE:
                runs[-1].append(block)
            else:
                runs.append([block])
        return runs

    def expect_checksums(self, expected: Mapping[str, str]) -> None:
        """Take the checksums that a listing lacked; only before the first byte."""
        self.obj = self.obj._replace(checksums=expected)
        self._choose_algorithms(expected)
        self._journal.record_checksums(self.obj.path, expected)

    def write(self, data: memoryview, offset: int) -> None:
        """Write at an offset, one thread at a time: in parallel, threads burn their time in the inode's lock."""
        left, at = data, offset
        try:
            with self._lock:
                while left:
                    count = os.pwrite(self._fd, left, at)
                    left, at = left[count:], at + count
        except OSError as error:
            raise filesystem.explain_os_error(error, self._path) from error
        self._hasher.written(data, offset)

    def finish_block(self, block: int, crc: int) -> None:
        """Record a complete block in the journal."""
        self._crcs[block] = crc
        self._journal.record_block(self.obj.path, block, crc)
        start, end = self.blocks[block]
        if end is not None and end - start == BLOCK_SIZE:
            filesystem.start_writeback(self._fd, start, BLOCK_SIZE)
        self._advance_hashing()

    def fingerprint(self) -> Fingerprint:
        """Return size and checksums, once no block is missing."""
        self._advance_hashing()  # an interrupted run may have written every block
        size = os.fstat(self._fd).st_size
        parts = [
            (self._crcs[block], (size if end is None else end) - start)
            for block, (start, end) in enumerate(self.blocks)
        ]
        crc = checksums.format_crc(self.algorithm, checksums.combine_crcs(self.algorithm, parts))
        return Fingerprint(size, {self.algorithm: crc, **self._hasher.hexdigests()})

    def stop_hashing(self) -> None:
        """Stop hashing so that the pull can end at once."""
        self._hasher.close()

    def close(self) -> None:
        """Close the file without a flush.

        Raises:
            DestinationError: an earlier write failed.
        """
        with self._lock:
            if self._fd >= 0:
                fd, self._fd = self._fd, -1  # a late thread fails instead of writing into a file that reuses the number
                with disk_errors(self._path):  # some file systems report a failed write only now
                    os.close(fd)

    def _advance_hashing(self) -> None:
        """Hash up to the first missing block."""
        with self._lock:
            while self._next in self._crcs:
                self._next += 1
            last = self._next - 1
        if last >= 0:
            end = self.blocks[last][1]
            self._hasher.contiguous_to(os.fstat(self._fd).st_size if end is None else end)

    def _read_pieces(self, at: int, end: int | None) -> Iterator[bytes]:
        while end is None or at < end:
            with disk_errors(self._path):
                piece = os.pread(self._fd, _PIECE if end is None else min(_PIECE, end - at), at)
            if not piece:
                return
            yield piece
            at += len(piece)

    def _load_resumable_blocks(self) -> int:
        """Load resumable blocks: keep those whose CRC on disk matches the journal; return their bytes."""
        saved = 0
        for block in self.missing_blocks:
            noted = self._journal.block_crcs.get((self.obj.path, block))
            if noted is None:
                continue
            crc = length = 0
            for piece in self._read_pieces(*self.blocks[block]):
                crc = checksums.update_crc(self.algorithm, piece, crc)
                length += len(piece)
            if crc == noted and length:
                self._crcs[block] = crc
                saved += length
        return saved


def _block_ranges(obj: RemoteObject) -> list[tuple[int, int | None]]:
    if obj.size is None or not obj.ranges:
        return [(0, obj.size)]
    return [(start, min(start + BLOCK_SIZE, obj.size)) for start in range(0, obj.size, BLOCK_SIZE)]


def _open_part_file(tree: StagedTree, obj: RemoteObject, *, again: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | (0 if again else os.O_EXCL)
    try:
        try:
            fd = tree.open_file(obj.path, flags)
        except FileNotFoundError:  # first file of the directory
            tree.make_directories(obj.path.rpartition("/")[0])
            fd = tree.open_file(obj.path, flags)
    except FileExistsError:
        raise UnsafeNameError(
            f"The file system cannot keep {obj.path!r} apart from another name of this model (case or Unicode form).",
            hint="Leave one of them out with --exclude, or pull onto a file system that tells them apart.",
        ) from None
    try:
        if (obj.size or 0) > _LITTLE:  # the write of a small file fails as soon
            filesystem.reserve_space(fd, obj.size or 0)
    except OSError:
        os.close(fd)
        raise
    return fd

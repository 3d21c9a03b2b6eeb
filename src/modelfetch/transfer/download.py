"""Download objects as files: large objects in parallel parts, small objects with requests sent ahead."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from modelfetch import checksums
from modelfetch.checksums import Fingerprint
from modelfetch.errors import DestinationError
from modelfetch.sources.base import RemoteObject
from modelfetch.transfer.adaptive_pool import LARGE_OBJECTS, SMALL_OBJECTS, TransferLimits, run_tasks
from modelfetch.transfer.part_file import PART_SIZE, PartFile
from modelfetch.transfer.range_reader import MemorySink, RangeReader, TransferStopped
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staged_tree import StagedTree

_AHEAD = 16  # requests sent ahead, at most
_MAX_AHEAD = 1024**2  # bytes of one request sent ahead: the connection's buffers take the response, no server waits


def download(
    reader: RangeReader,
    objects: Sequence[RemoteObject],
    into: StagedTree,
    journal: ResumeJournal,
    limits: TransferLimits,
    on_file: Callable[[RemoteObject, Fingerprint, int], None],
) -> None:
    """Download objects as files below `into`.

    Args:
        reader: range reader of the source.
        objects: objects to fetch, each to its `path`.
        into: directory of the files.
        journal: blocks of earlier runs; new blocks are recorded.
        limits: memory and parallel requests.
        on_file: called once per object with the object (with known checksums), the fingerprint, and the number
            of bytes that an earlier run had fetched.

    Raises:
        ModelfetchError: the first failure; all other downloads are stopped.
    """
    part_files: list[PartFile] = []
    barrier = _WriteBarrier()
    large = any(o.size is None or o.size > PART_SIZE for o in objects)
    worker_limits = limits.worker_limits(LARGE_OBJECTS if large else SMALL_OBJECTS.capped_at(max(1, len(objects))))

    def stop() -> None:
        barrier.shut()
        reader.close()
        for part_file in part_files.copy():  # threads change it
            part_file.stop_hashing()

    try:
        tasks = _part_tasks(reader, objects, into, journal, part_files, barrier, on_file)
        run_tasks(tasks if large else _send_ahead(tasks), worker_limits, lambda: reader.bytes_received, stop)
    finally:
        barrier.wait()
        for part_file in part_files:
            with contextlib.suppress(DestinationError):  # the earlier failure counts
                part_file.close()


def _part_tasks(
    reader: RangeReader,
    objects: Sequence[RemoteObject],
    into: StagedTree,
    journal: ResumeJournal,
    open_files: list[PartFile],
    barrier: "_WriteBarrier",
    on_file: Callable[[RemoteObject, Fingerprint, int], None],
) -> Iterator["_PartTask"]:
    """Yield one task per missing run of blocks, made on demand: a directory may hold a million files."""
    for obj in objects:
        large = obj.size is None or obj.size > PART_SIZE
        known = reader.source.with_checksums(obj) if large and not obj.checksums else obj
        if reader.closed:
            return
        with barrier:
            part_file = PartFile(known, into, journal)
            open_files.append(part_file)
        reader.advance(part_file.resumed_bytes)
        task = _FileDownload(reader, part_file, open_files, barrier, on_file)
        runs = part_file.missing_parts
        if known.size == 0 and not known.checksums:
            # A listing may call an object empty that is not: only a GET proves its size.
            reader.read_range(known, 0, 0, MemorySink(bytearray()))
        if not runs:
            task.finish()
        for blocks in runs:
            yield _PartTask(task, blocks)


def _send_ahead(tasks: Iterator["_PartTask"]) -> Iterator["_PartTask"]:
    """Pipeline small objects: send up to 16 requests on idle connections before reading the first response."""
    waiting: deque[_PartTask] = deque()
    while True:
        while len(waiting) < _AHEAD and (not waiting or waiting[-1].send_ahead()):
            task = next(tasks, None)
            if task is None:
                break
            waiting.append(task)
        if not waiting:
            return
        yield waiting.popleft()


class _WriteBarrier:
    """Barrier around disk writes: `shut` refuses new writers, `wait` returns once the last writer is done."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._state:
            if self._shut:
                raise TransferStopped
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._state:
            self._inside -= 1
            self._state.notify_all()

    def shut(self) -> None:
        with self._state:
            self._shut = True

    def wait(self) -> None:
        with self._state:
            self._state.wait_for(lambda: not self._inside)


class _FileDownload:
    """Download of one file; the thread that fetches the last run finishes the file."""

    def __init__(
        self,
        reader: RangeReader,
        part_file: PartFile,
        part_files: list[PartFile],
        barrier: _WriteBarrier,
        on_file: Callable[[RemoteObject, Fingerprint, int], None],
    ) -> None:
        self._reader = reader
        self._part_file = part_file
        self._open_files = part_files
        self._barrier = barrier
        self._on_file = on_file
        self._left = len(part_file.missing_parts)
        self._lock = threading.Lock()

    def send_ahead(self, run: list[int]) -> bool:
        start, end = self._byte_range(run)
        return (
            end is not None and end - start <= _MAX_AHEAD and self._reader.send_ahead(self._part_file.obj, start, end)
        )

    def _byte_range(self, run: list[int]) -> tuple[int, int | None]:
        return self._part_file.blocks[run[0]][0], self._part_file.blocks[run[-1]][1]

    def fetch_part(self, run: list[int]) -> None:
        start, end = self._byte_range(run)
        sink = _PartWriter(self._part_file, run[0], self._barrier)
        self._reader.read_range(self._part_file.obj, start, end, sink)
        sink.finish()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.finish()

    def finish(self) -> None:
        part_file = self._part_file
        with self._barrier:
            received = part_file.fingerprint()
            part_file.close()
            self._open_files.remove(part_file)
            self._on_file(part_file.obj, received, part_file.resumed_bytes)


class _PartTask:
    """Fetch of neighbouring blocks of one file, as a task for a thread."""

    def __init__(self, file_download: _FileDownload, blocks: list[int]) -> None:
        self._file_download = file_download
        self._blocks = blocks

    def __call__(self) -> None:
        self._file_download.fetch_part(self._blocks)

    def send_ahead(self) -> bool:
        """Send the request ahead on an idle connection; return whether the request was sent."""
        return self._file_download.send_ahead(self._blocks)


class _PartWriter:
    """Sink that writes neighbouring blocks to a file and computes the CRC of each block."""

    def __init__(self, part_file: PartFile, block: int, barrier: _WriteBarrier) -> None:
        self._part_file = part_file
        self._barrier = barrier
        self._block = block
        self._offset = self._start = part_file.blocks[block][0]
        self._crc = 0

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        if checksums and not self._part_file.obj.checksums and self._offset == self._start:
            self._part_file.expect_checksums(checksums)

    def write(self, data: memoryview) -> None:
        with self._barrier:
            self._write_blocks(data)

    def _write_blocks(self, view: memoryview) -> None:
        while view:
            end = self._part_file.blocks[self._block][1]
            piece = view if end is None else view[: end - self._offset]
            self._crc = checksums.update_crc(self._part_file.algorithm, piece, self._crc)
            self._part_file.write(piece, self._offset)
            self._offset += len(piece)
            view = view[len(piece) :]
            if self._offset == end:
                self._finish_block()

    def finish(self) -> None:
        """Finish the last block of an object of unknown size: the block ends with the bytes."""
        if self._block < len(self._part_file.blocks) and self._part_file.blocks[self._block][1] is None:
            with self._barrier:
                self._finish_block()

    def _finish_block(self) -> None:
        self._part_file.finish_block(self._block, self._crc)
        self._block += 1
        self._crc = 0

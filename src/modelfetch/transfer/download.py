"""Moves bytes for every source: files in parallel parts onto the disk, archives in order through a bounded window."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from modelfetch import checksums
from modelfetch.checksums import Fingerprint
from modelfetch.errors import DestinationError
from modelfetch.sources.base import RemoteObject
from modelfetch.transfer.adaptive_pool import LARGE_OBJECTS, SMALL_OBJECTS, TransferLimits, run_tasks
from modelfetch.transfer.part_file import PART_SIZE, PartFile
from modelfetch.transfer.range_reader import MemorySink, RangeReader, TransferStopped
from modelfetch.volume.resume_journal import ResumeJournal

_AHEAD = 16  # requests sent ahead, at most
_LITTLE = 1024**2  # bytes to ask for ahead, at most: what waits in a connection's buffers keeps no server waiting


def download(
    reader: RangeReader,
    objects: Sequence[RemoteObject],
    into: Path,
    journal: ResumeJournal,
    limits: TransferLimits,
    on_file: Callable[[RemoteObject, Fingerprint, int], None],
) -> None:
    """Fetch objects as files below `into`.

    Args:
        reader: connections to their source.
        objects: what to fetch, each to its `path`.
        into: an existing directory.
        journal: what is there already; what comes is noted in it.
        limits: how many requests run at once.
        on_file: called once for each object (with its checksums), what its bytes are, and how many were there before.

    Raises:
        ModelfetchError: the first failure; all else is stopped.
    """
    landings: list[PartFile] = []
    gate = _WriteBarrier()
    large = any(o.size is None or o.size > PART_SIZE for o in objects)
    crew = limits.worker_limits(LARGE_OBJECTS if large else SMALL_OBJECTS.capped_at(max(1, len(objects))))

    def stop() -> None:
        gate.shut()
        reader.close()
        for landing in landings.copy():  # threads change it
            landing.stop_hashing()

    try:
        tasks = _part_tasks(reader, objects, into, journal, landings, gate, on_file)
        run_tasks(tasks if large else _send_ahead(tasks), crew, lambda: reader.bytes_received, stop)
    finally:
        gate.wait()
        for landing in landings:
            with contextlib.suppress(DestinationError):  # what has failed before is what counts
                landing.close()


def _part_tasks(
    reader: RangeReader,
    objects: Sequence[RemoteObject],
    into: Path,
    journal: ResumeJournal,
    open_files: list[PartFile],
    barrier: "_WriteBarrier",
    on_file: Callable[[RemoteObject, Fingerprint, int], None],
) -> Iterator["_PartTask"]:
    """One task for each missing run of blocks, made when its turn comes: a directory may hold a million."""
    for obj in objects:
        large = obj.size is None or obj.size > PART_SIZE
        known = reader.source.with_checksums(obj) if large and not obj.checksums else obj
        if reader.closed:
            return
        with barrier:
            landing = PartFile(known, into / obj.path, journal)
            open_files.append(landing)
        reader.advance(landing.resumed_bytes)
        task = _FileDownload(reader, landing, open_files, barrier, on_file)
        runs = landing.missing_parts
        if known.size == 0 and not known.checksums:
            # A listing may call an object empty that is not: only a GET proves its size.
            reader.read_range(known, 0, 0, MemorySink(bytearray()))
        if not runs:
            task.finish()
        for blocks in runs:
            yield _PartTask(task, blocks)


def _send_ahead(tasks: Iterator["_PartTask"]) -> Iterator["_PartTask"]:
    """The same, asked for ahead as far as connections are idle: a thread need not wait for each reply by itself."""
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
    """Lets threads at the disk until it is shut: whoever stops them may then wait until the last has left."""

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
    """Fetches the runs of one file; whoever brings the last one finishes the file."""

    def __init__(
        self,
        reader: RangeReader,
        landing: PartFile,
        landings: list[PartFile],
        gate: _WriteBarrier,
        on_file: Callable[[RemoteObject, Fingerprint, int], None],
    ) -> None:
        self._reader = reader
        self._part_file = landing
        self._landings = landings
        self._gate = gate
        self._on_file = on_file
        self._left = len(landing.missing_parts)
        self._lock = threading.Lock()

    def send_ahead(self, run: list[int]) -> bool:
        start, end = self._byte_range(run)
        return end is not None and end - start <= _LITTLE and self._reader.send_ahead(self._part_file.obj, start, end)

    def _byte_range(self, run: list[int]) -> tuple[int, int | None]:
        return self._part_file.blocks[run[0]][0], self._part_file.blocks[run[-1]][1]

    def fetch_part(self, run: list[int]) -> None:
        start, end = self._byte_range(run)
        sink = _PartWriter(self._part_file, run[0], self._gate)
        self._reader.read_range(self._part_file.obj, start, end, sink)
        sink.finish()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.finish()

    def finish(self) -> None:
        landing = self._part_file
        with self._gate:
            came = landing.fingerprint()
            landing.close()
            self._landings.remove(landing)
            self._on_file(landing.obj, came, landing.resumed_bytes)


class _PartTask:
    """A task: to fetch neighbouring blocks of one file."""

    def __init__(self, arrival: _FileDownload, blocks: list[int]) -> None:
        self._arrival = arrival
        self._blocks = blocks

    def __call__(self) -> None:
        self._arrival.fetch_part(self._blocks)

    def send_ahead(self) -> bool:
        """Ask for them ahead, if that can be; whether they have been asked for."""
        return self._arrival.send_ahead(self._blocks)


class _PartWriter:
    """Passes the bytes of neighbouring blocks on to their file, each block with its CRC."""

    def __init__(self, landing: PartFile, block: int, gate: _WriteBarrier) -> None:
        self._landing = landing
        self._gate = gate
        self._block = block
        self._offset = self._start = landing.blocks[block][0]
        self._crc = 0

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        if checksums and not self._landing.obj.checksums and self._offset == self._start:
            self._landing.expect_checksums(checksums)

    def write(self, data: memoryview) -> None:
        with self._gate:
            self._write_blocks(data)

    def _write_blocks(self, view: memoryview) -> None:
        while view:
            end = self._landing.blocks[self._block][1]
            piece = view if end is None else view[: end - self._offset]
            self._crc = checksums.update_crc(self._landing.algorithm, piece, self._crc)
            self._landing.write(piece, self._offset)
            self._offset += len(piece)
            view = view[len(piece) :]
            if self._offset == end:
                self._finish_block()

    def finish(self) -> None:
        """The last block of an object of unknown size ends where its bytes do."""
        if self._block < len(self._landing.blocks) and self._landing.blocks[self._block][1] is None:
            with self._gate:
                self._finish_block()

    def _finish_block(self) -> None:
        self._landing.finish_block(self._block, self._crc)
        self._block += 1
        self._crc = 0

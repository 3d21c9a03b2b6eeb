"""Read an object's bytes in order, several parts ahead of the reader, in bounded memory."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

from modelfetch import checksums
from modelfetch.checksums import Fingerprint, InOrderDigests
from modelfetch.sources.base import RemoteObject
from modelfetch.transfer.adaptive_pool import LARGE_OBJECTS, TransferLimits, WorkerLimits, run_tasks, start_thread
from modelfetch.transfer.range_reader import CHUNK, MemorySink, RangeReader, TransferStopped

_PART_SIZE = 4 * 1024**2  # bytes of one request; smaller than for files, to keep several parts in memory


class ReadAhead:
    """Forward reader of an object, for the extraction of archives: parts are fetched in parallel and hashed ahead."""

    def __init__(self, reader: RangeReader, obj: RemoteObject, limits: TransferLimits) -> None:
        """Start to fetch; the object's size must be known, and the server must serve ranges.

        Raises:
            ResourceError: the system grants no further thread.
        """
        assert obj.size is not None
        self.obj = obj
        self._reader = reader
        self._algorithm = checksums.choose_crc(obj.checksums)
        self._in_order = InOrderDigests(obj.checksums)
        self._crc = 0
        part = min(_PART_SIZE, max(CHUNK, limits.memory // 4))
        self._starts = range(0, obj.size, part)
        # Together with the part being read they take half of the memory; decompression gets the rest.
        self._ahead = max(2, limits.memory // 2 // part - 1)
        self._arrived: dict[int, memoryview] = {}  # by offset
        self._spare: list[bytearray] = []  # buffers of read parts, to be filled again
        self._hashed = 0  # bytes of the hashed prefix, which may be read
        self._hashing = threading.Lock()
        self._failure: BaseException | None = None
        self._change = threading.Condition()
        self._part = memoryview(b"")
        self._parts_read = 0
        workers = limits.worker_limits(LARGE_OBJECTS)
        start_thread(partial(self._fetch_all, workers), "read-ahead")

    def _fetch_all(self, workers: WorkerLimits) -> None:
        try:
            run_tasks(self._part_tasks(), workers, lambda: self._reader.bytes_received, self._reader.close)
            self._refuse_gap()
        except BaseException as error:  # noqa: BLE001  `read` raises the error
            with self._change:
                self._failure = error
                self._change.notify_all()

    def _refuse_gap(self) -> None:
        """Raise TransferStopped if the reader was closed before the last part."""
        if self._hashed < (self.obj.size or 0):
            raise TransferStopped

    def _part_tasks(self) -> Iterator[Callable[[], None]]:
        """Yield one task per part, as soon as the memory has room for the part."""
        for number, start in enumerate(self._starts):
            with self._change:
                self._change.wait_for(partial(self._has_room, number))
            if self._reader.closed:
                return
            yield partial(self._fetch_part, start)

    def _has_room(self, number: int) -> bool:
        return self._reader.closed or number - self._parts_read < self._ahead

    def _fetch_part(self, start: int) -> None:
        assert self.obj.size is not None
        sink = MemorySink(self._take_buffer())
        try:
            self._reader.read_range(self.obj, start, min(start + self._starts.step, self.obj.size), sink)
        except BaseException:
            sink.take()  # the traceback would keep the buffer
            raise
        self._arrived[start] = sink.take()
        while self._hashed in self._arrived and self._hashing.acquire(blocking=False):
            try:
                self._hash_arrived()
            finally:
                self._hashing.release()

    def _take_buffer(self) -> bytearray:
        try:
            return self._spare.pop()
        except IndexError:
            return bytearray(self._starts.step)

    def _hash_arrived(self) -> None:
        """Hash the parts that continue the hashed prefix; the reader's thread is busy with decompression."""
        while (part := self._arrived.get(self._hashed)) is not None:
            self._in_order.update(part)
            self._crc = checksums.update_crc(self._algorithm, part, self._crc)
            with self._change:
                self._hashed += len(part)
                self._change.notify_all()

    def _next_part(self, start: int) -> memoryview:
        with self._change:
            self._change.wait_for(lambda: start < self._hashed or self._failure)
            if self._failure:
                raise self._failure
            self._parts_read += 1
            self._change.notify_all()
            return self._arrived.pop(start)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, at most `size`; empty at the end.

        Raises:
            TransferStopped: the reader was closed before the end.
            ModelfetchError: a part cannot be fetched.
        """
        if not self._part and self._parts_read < len(self._starts):
            self._part = self._next_part(self._starts[self._parts_read])
        piece = bytes(self._part[:size] if size >= 0 else self._part)
        self._part = self._part[len(piece) :]
        if piece and not self._part and isinstance(self._part.obj, bytearray):
            self._spare.append(self._part.obj)
        return piece

    def fingerprint(self) -> Fingerprint:
        """Return size and checksums, once every byte has been read."""
        crc = {self._algorithm: checksums.format_crc(self._algorithm, self._crc)}
        return Fingerprint(self._hashed, {**crc, **self._in_order.hexdigests()})

    def close(self) -> None:
        """Stop fetching and release the memory at once: a retry has a read-ahead of its own."""
        self._reader.close()
        with self._change:
            self._change.notify_all()
        self._arrived.clear()
        self._spare.clear()
        self._part = memoryview(b"")

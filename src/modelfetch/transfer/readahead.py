"""Read an object's bytes in order, several parts ahead of the reader, in bounded memory."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

from modelfetch import checksums
from modelfetch.checksums import Fingerprint, InOrderDigests
from modelfetch.sources.base import RemoteObject
from modelfetch.transfer.adaptive_pool import LARGE_OBJECTS, TransferLimits, WorkerLimits, run_tasks
from modelfetch.transfer.range_reader import CHUNK, MemorySink, RangeReader

_WINDOW_PART = 4 * 1024**2  # bytes of one request when the bytes are wanted in order


class ReadAhead:
    """An object's bytes in order, fetched a few parts ahead of the reader: an archive is unpacked from it."""

    def __init__(self, reader: RangeReader, obj: RemoteObject, limits: TransferLimits) -> None:
        """Begin to fetch; the object must have a size and its server ranges."""
        assert obj.size is not None
        self.obj = obj
        self._reader = reader
        self._algorithm = checksums.choose_crc(obj.checksums)
        self._in_order = InOrderDigests(obj.checksums)
        self._crc = 0
        part = min(_WINDOW_PART, max(CHUNK, limits.memory // 4))
        self._starts = range(0, obj.size, part)
        # With the one that is being read they take half of the memory; the rest is for what is made of them.
        self._ahead = max(2, limits.memory // 2 // part - 1)
        self._arrived: dict[int, memoryview] = {}  # by their start
        self._spare: list[bytearray] = []  # parts that have been read: new ones are written over them
        self._hashed = 0  # bytes: those before have been hashed, and may be read
        self._hashing = threading.Lock()
        self._failure: BaseException | None = None
        self._change = threading.Condition()
        self._part = memoryview(b"")
        self._parts_read = 0
        crew = limits.worker_limits(LARGE_OBJECTS)
        threading.Thread(target=self._fetch_all, args=[crew], name="window", daemon=True).start()

    def _fetch_all(self, crew: WorkerLimits) -> None:
        try:
            run_tasks(self._part_tasks(), crew, lambda: self._reader.bytes_received, self._reader.close)
        except BaseException as error:  # noqa: BLE001  whoever reads raises it
            with self._change:
                self._failure = error
                self._change.notify_all()

    def _part_tasks(self) -> Iterator[Callable[[], None]]:
        """One task for each part, made once there is room for it in the window."""
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
            sink.take()  # else the traceback would keep it
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
        """Hash what follows the bytes already hashed: not in the reader's thread, which has an archive to inflate."""
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
        """The next bytes, at most `size`; none at the end.

        Raises:
            ModelfetchError: they cannot be had.
        """
        if not self._part and self._parts_read < len(self._starts):
            self._part = self._next_part(self._starts[self._parts_read])
        piece = bytes(self._part[:size] if size >= 0 else self._part)
        self._part = self._part[len(piece) :]
        if piece and not self._part and isinstance(self._part.obj, bytearray):
            self._spare.append(self._part.obj)
        return piece

    def fingerprint(self) -> Fingerprint:
        """What the bytes were, once all are read."""
        crc = {self._algorithm: checksums.format_crc(self._algorithm, self._crc)}
        return Fingerprint(self._hashed, {**crc, **self._in_order.hexdigests()})

    def close(self) -> None:
        """Stop fetching, and give the memory back at once: what failed may be tried again, in a window of its own."""
        self._reader.close()
        with self._change:
            self._change.notify_all()
        self._arrived.clear()
        self._spare.clear()
        self._part = memoryview(b"")

"""Digests that must see a file's bytes in order, while these arrive in any: they follow the front of what is there."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue

from modelfetch.integrity import InOrder

_WAITING = 8  # pieces that may wait for the digests: beyond these they are read back, for memory is dear
_PIECE = 256 * 1024  # bytes read back at a time


class Front:
    """Hashes what comes in order from memory, and the rest from the file as soon as nothing before it is missing."""

    def __init__(self, digests: InOrder, read: Callable[[int, int], Iterable[bytes]], *, beside: bool) -> None:
        """Begin at the file's first byte.

        Args:
            digests: what sees the bytes.
            read: gives the file's bytes between two offsets.
            beside: hash in a thread of its own; else only one thread at a time may call this.
        """
        self._digests = digests
        self._read = read
        self._beside = beside
        self._lock = threading.Lock()
        self._taken = 0  # bytes: hashed, or waiting in memory to be
        self._there = 0  # bytes: all of them are in the file
        self._waiting = 0  # pieces in memory
        self._failure: BaseException | None = None
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def came(self, data: memoryview, offset: int) -> None:
        """Learn of bytes that were just written to the file; they must not change any more."""
        with self._lock:
            if offset != self._taken or self._waiting >= _WAITING:
                return
            self._taken += len(data)
            self._waiting += 1
        self._do(partial(self._hash, data))

    def reached(self, offset: int) -> None:
        """Learn that all bytes before this offset are in the file."""
        with self._lock:
            self._there = offset
            if offset <= self._taken:
                return
        self._do(self._catch_up)

    def results(self) -> dict[str, str]:
        """The digests of all that was reached.

        Raises:
            DestinationError: the file cannot be read.
        """
        done = threading.Event()
        self._do(done.set)
        done.wait()
        if self._failure is not None:
            raise self._failure
        return self._digests.results()

    def close(self) -> None:
        """End; the file is not read any more."""
        with self._lock:
            self._there = 0
            thread = self._thread
        if thread:
            self._jobs.put(None)
            thread.join()

    def _do(self, job: Callable[[], None]) -> None:
        if not self._beside:
            job()
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="digests", daemon=True)
                self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001  whoever wants the results raises it
                self._failure = error

    def _hash(self, data: memoryview) -> None:
        self._digests.update(data)
        with self._lock:
            self._waiting -= 1
        self._catch_up()

    def _catch_up(self) -> None:
        """Read back what nobody kept in memory; what waits there comes before it."""
        while True:
            with self._lock:
                start, end = self._taken, min(self._there, self._taken + _PIECE)
                if self._waiting or start >= end:
                    return
                self._taken = end
            for data in self._read(start, end):
                self._digests.update(data)

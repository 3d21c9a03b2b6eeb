"""Digests that must see a file's bytes in order, while these arrive in any: they follow the front of what is there."""

import threading
from collections.abc import Callable, Iterable

from modelfetch.checksums import InOrderDigests


class InOrderHasher:
    """Hashes what comes in order from memory, and the rest from the file as soon as nothing before it is missing.

    Whichever thread brings bytes hashes them, one at a time and the others do not wait: a core's cache still holds
    them, and a thread of its own would cost as much again in bytes handed over.
    """

    def __init__(self, digests: InOrderDigests, read: Callable[[int, int], Iterable[bytes]]) -> None:
        """Begin at the file's first byte.

        Args:
            digests: what sees the bytes.
            read: gives the file's bytes between two offsets.
        """
        self._digests = digests
        self._read = read
        self._hashing = threading.Lock()
        self._moving = threading.Lock()
        self._hashed = 0  # bytes; changed by who holds the lock
        self._contiguous = 0  # bytes: all of them are in the file
        self._closed = False

    def written(self, data: memoryview, offset: int) -> None:
        """Learn of bytes that were just written to the file."""
        if offset == self._hashed and self._hashing.acquire(blocking=False):
            try:
                if offset == self._hashed:
                    self._digests.update(data)
                    self._hashed += len(data)
            finally:
                self._hashing.release()
            self._catch_up()  # with what was reached meanwhile

    def contiguous_to(self, offset: int) -> None:
        """Learn that all bytes before this offset are in the file.

        Raises:
            DestinationError: it cannot be read.
        """
        with self._moving:
            self._contiguous = max(self._contiguous, offset)
        self._catch_up()

    def hexdigests(self) -> dict[str, str]:
        """The digests of all that was reached.

        Raises:
            DestinationError: the file cannot be read.
        """
        with self._hashing:
            self._read_back()
        if self._closed:
            raise RuntimeError("closed before all was hashed")
        return self._digests.hexdigests()

    def close(self) -> None:
        """Have whoever hashes stop soon: nobody waits for the digests any more."""
        self._closed = True

    def _catch_up(self) -> None:
        while self._hashed < self._contiguous and not self._closed and self._hashing.acquire(blocking=False):
            try:
                self._read_back()
            finally:
                self._hashing.release()  # what was reached in the meantime is for whoever looks next: this thread, too

    def _read_back(self) -> None:
        while self._hashed < self._contiguous:
            for data in self._read(self._hashed, self._contiguous):
                if self._closed:
                    return
                self._digests.update(data)
                self._hashed += len(data)

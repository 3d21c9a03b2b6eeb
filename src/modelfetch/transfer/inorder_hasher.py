"""In-order hashing (sha256) of a file whose parts arrive out of order."""

import threading
from collections.abc import Callable, Iterable

from modelfetch.checksums import InOrderDigests


class InOrderHasher:
    """Hashes bytes from memory if they continue the hashed prefix, else from the file once the gap before is closed.

    The writing thread hashes its bytes while the core's cache still holds them: a separate thread would pay as much
    again for the hand-over. One thread hashes at a time; the others go on without waiting.
    """

    def __init__(self, digests: InOrderDigests, read: Callable[[int, int], Iterable[bytes]]) -> None:
        """Start at the file's first byte.

        Args:
            digests: digests to update, in order.
            read: reads the file's bytes between two offsets.
        """
        self._digests = digests
        self._read = read
        self._hashing = threading.Lock()
        self._moving = threading.Lock()
        self._hashed = 0  # bytes of the hashed prefix; changed under the lock
        self._contiguous = 0  # bytes of the prefix that is complete in the file
        self._closed = False

    def written(self, data: memoryview, offset: int) -> None:
        """Hash `data` now if `data` continues the hashed prefix; otherwise the file is read back later."""
        if offset == self._hashed and self._hashing.acquire(blocking=False):
            try:
                if offset == self._hashed:
                    self._digests.update(data)
                    self._hashed += len(data)
            finally:
                self._hashing.release()
            self._catch_up()  # the prefix may have grown meanwhile

    def contiguous_to(self, offset: int) -> None:
        """Mark the prefix `[0, offset)` as complete on disk and hash up to its end.

        Raises:
            DestinationError: the file cannot be read.
        """
        with self._moving:
            self._contiguous = max(self._contiguous, offset)
        self._catch_up()

    def hexdigests(self) -> dict[str, str]:
        """Return the digests of the complete prefix, in hexadecimal.

        Raises:
            DestinationError: the file cannot be read.
        """
        with self._hashing:
            self._read_back()
        if self._closed:
            raise RuntimeError("closed before all was hashed")
        return self._digests.hexdigests()

    def close(self) -> None:
        """Cancel hashing: the digests are no longer needed."""
        self._closed = True

    def _catch_up(self) -> None:
        while self._hashed < self._contiguous and not self._closed and self._hashing.acquire(blocking=False):
            try:
                self._read_back()
            finally:
                self._hashing.release()  # the next look, also by this thread, covers a prefix that grew meanwhile

    def _read_back(self) -> None:
        while self._hashed < self._contiguous:
            for data in self._read(self._hashed, self._contiguous):
                if self._closed:
                    return
                self._digests.update(data)
                self._hashed += len(data)

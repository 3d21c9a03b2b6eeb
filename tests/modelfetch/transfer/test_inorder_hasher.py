"""Digests follow the contiguous prefix of a file, for bytes in any order."""

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from modelfetch.checksums import InOrderDigests
from modelfetch.errors import DestinationError
from modelfetch.transfer.inorder_hasher import InOrderHasher
from testkit.file_tree import random_bytes, sha256_hex

SIZE = 3_000_000
DATA = random_bytes(SIZE, 5)
PIECE = 100_000


def reader(there: bytearray) -> Callable[[int, int], Iterator[bytes]]:
    """Reader of an in-memory file that records the reads."""
    return lambda start, end: iter([bytes(there[start:end])])


@pytest.mark.parametrize("seed", range(5))
def test_digest_equals_the_digest_of_the_bytes_in_order(seed: int) -> None:
    """Bytes in order are hashed from memory, other bytes are read back."""
    chance = random.Random(seed)
    offsets = list(range(0, SIZE, PIECE))
    for place in range(0, len(offsets) - 1, 2):  # some of them with their neighbour, some not
        if chance.random() < seed / 4:
            offsets[place : place + 2] = reversed(offsets[place : place + 2])
    there, done, reached = bytearray(SIZE), set(), 0
    front = InOrderHasher(InOrderDigests({}), reader(there))
    for offset in offsets:
        there[offset : offset + PIECE] = DATA[offset : offset + PIECE]
        front.written(memoryview(DATA)[offset : offset + PIECE], offset)
        done.add(offset)
        while reached in done:
            reached += PIECE
        front.contiguous_to(reached)

    assert front.hexdigests()["sha256"] == sha256_hex(DATA)
    assert front.hexdigests()["sha256"] == sha256_hex(DATA), "asked twice"


def test_bytes_in_order_are_not_read_back() -> None:
    """A file of one connection is hashed without a second read."""

    def refuse(start: int, end: int) -> Iterator[bytes]:
        raise AssertionError(f"read from {start} to {end}")

    front = InOrderHasher(InOrderDigests({}), refuse)
    for offset in range(0, SIZE, PIECE):
        front.written(memoryview(DATA)[offset : offset + PIECE], offset)
        front.contiguous_to(offset + PIECE)

    assert front.hexdigests()["sha256"] == sha256_hex(DATA)


def test_pieces_from_several_threads_give_the_right_digest() -> None:
    """Each thread brings neighbouring pieces, as connections do."""
    there = bytearray(SIZE)
    done: set[int] = set()
    lock = threading.Lock()
    front = InOrderHasher(InOrderDigests({}), reader(there))

    def bring(first: int) -> None:
        for offset in range(first, first + SIZE // 3, PIECE):
            there[offset : offset + PIECE] = DATA[offset : offset + PIECE]
            front.written(memoryview(DATA)[offset : offset + PIECE], offset)
            with lock:
                done.add(offset)
                front.contiguous_to(next(end for end in range(0, SIZE + 1, PIECE) if end not in done))

    threads = [threading.Thread(target=bring, args=[first]) for first in range(0, SIZE, SIZE // 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert front.hexdigests()["sha256"] == sha256_hex(DATA)


def test_writers_do_not_wait_for_the_hashing_thread() -> None:
    """The hashing thread hashes the pieces of the others, too."""
    reading, go = threading.Event(), threading.Event()

    def slow(start: int, end: int) -> Iterator[bytes]:
        reading.set()
        assert go.wait(60)
        yield DATA[start:end]

    front = InOrderHasher(InOrderDigests({}), slow)
    hashing = threading.Thread(target=front.contiguous_to, args=[PIECE])
    hashing.start()
    assert reading.wait(60)
    front.contiguous_to(SIZE)
    go.set()
    hashing.join(60)

    assert not hashing.is_alive()
    assert front.hexdigests()["sha256"] == sha256_hex(DATA)


def test_unreadable_file_raises_the_error_of_the_disk() -> None:
    """In the thread that hashes the file."""

    def fail(start: int, end: int) -> Iterator[bytes]:
        raise DestinationError(f"no bytes from {start} to {end}")

    front = InOrderHasher(InOrderDigests({}), fail)
    with pytest.raises(DestinationError, match="no bytes from 0 to 10"):
        front.contiguous_to(10)
    with pytest.raises(DestinationError, match="no bytes from 0 to 10"):
        front.hexdigests()


def test_closed_hasher_reads_nothing_more() -> None:
    """An ended pull does not hash the rest of a resumed file, and has no digests."""
    read: list[int] = []

    def pieces(start: int, end: int) -> Iterator[bytes]:
        for at in range(start, end, PIECE):
            read.append(at)
            yield DATA[at : at + PIECE]
            front.close()

    front = InOrderHasher(InOrderDigests({}), pieces)
    front.contiguous_to(SIZE)

    assert read == [0, PIECE], "the piece at which it was closed is the last"
    with pytest.raises(RuntimeError, match="closed"):
        front.hexdigests()

"""Digests follow the front of a file, whatever the order in which its bytes come."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from modelfetch.errors import DestinationError
from modelfetch.front import Front
from modelfetch.integrity import InOrder
from rigs import tree

SIZE = 3_000_000
DATA = tree.noise(SIZE, 5)
PIECE = 100_000


def reader(there: bytearray) -> Callable[[int, int], Iterator[bytes]]:
    """Reads what is in a file that is none."""
    return lambda start, end: iter([bytes(there[start:end])])


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_the_digest_is_that_of_the_bytes_in_order(seed: int, *, beside: bool) -> None:
    """Pieces come mixed; what comes in order is hashed from memory, what does not is read back."""
    chance = random.Random(seed)
    offsets = list(range(0, SIZE, PIECE))
    for place in range(0, len(offsets) - 1, 2):  # some of them with their neighbour, some not
        if chance.random() < seed / 4:
            offsets[place : place + 2] = reversed(offsets[place : place + 2])
    there, done, reached = bytearray(SIZE), set(), 0
    with closing(Front(InOrder({}), reader(there), beside=beside)) as front:
        for offset in offsets:
            there[offset : offset + PIECE] = DATA[offset : offset + PIECE]
            front.came(memoryview(DATA)[offset : offset + PIECE], offset)
            done.add(offset)
            while reached in done:
                reached += PIECE
            front.reached(reached)

        assert front.results()["sha256"] == tree.sha256(DATA)
        assert front.results()["sha256"] == tree.sha256(DATA), "asked twice"


def test_threads_may_bring_pieces_at_once() -> None:
    """Each brings a run of neighbours, as connections do."""
    there = bytearray(SIZE)
    done: set[int] = set()
    lock = threading.Lock()
    with closing(Front(InOrder({}), reader(there), beside=True)) as front:

        def bring(first: int) -> None:
            for offset in range(first, first + SIZE // 3, PIECE):
                there[offset : offset + PIECE] = DATA[offset : offset + PIECE]
                front.came(memoryview(DATA)[offset : offset + PIECE], offset)
                with lock:
                    done.add(offset)
                    front.reached(next(end for end in range(0, SIZE + 1, PIECE) if end not in done))

        threads = [threading.Thread(target=bring, args=[first]) for first in range(0, SIZE, SIZE // 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert front.results()["sha256"] == tree.sha256(DATA)


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_that_cannot_be_read_is_told_of(*, beside: bool) -> None:
    """By whoever wants the digests, if not before."""

    def fail(start: int, end: int) -> Iterator[bytes]:
        raise DestinationError(f"no bytes from {start} to {end}")

    def ask() -> None:
        front.reached(10)
        front.results()

    front = Front(InOrder({}), fail, beside=beside)
    with closing(front), pytest.raises(DestinationError, match="no bytes from 0 to 10"):
        ask()


def test_nothing_is_read_once_it_is_closed() -> None:
    """Its file may be another one's by then."""
    reading, go = threading.Event(), threading.Event()

    def slow(start: int, end: int) -> Iterator[bytes]:
        reading.set()
        go.wait(60)
        yield bytes(end - start)

    front = Front(InOrder({}), slow, beside=True)
    front.reached(SIZE)
    assert reading.wait(60)
    closer = threading.Thread(target=front.close)
    closer.start()
    go.set()
    closer.join(60)

    assert not closer.is_alive()
    assert not any(thread.name == "digests" and thread.is_alive() for thread in threading.enumerate())

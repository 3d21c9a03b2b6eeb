"""Small damages of the kinds that have found bugs."""

import random
from collections.abc import Callable, Sequence

Mutation = Callable[[bytearray, random.Random], None]

TELLING_BYTES = (
    *(b"\0", b"\xff" * 8, b"/", b"../", b"..", b"\\", b"\x80", b"7777777", b"\0" * 512, b"PK\1\2", b"99 path=", b"-1"),
    *(b"\n", b"\r\n", b"9" * 5000, b"1e400", b"NaN", b"[" * 2000, b"{", b'"', b"null", b"\\ud800"),
    *(b"\\u0000", b"\xed\xa0\x80"),
    *(b"%2e%2e/", b"%00", b"%ff", b"\xe2\x80\xae", b"\xc2\x9b2J", b"a//b", b"-", b"*", b"=", b":", b"\xd9\xa1", b"#1"),
)  # fmt: skip


def flip_bits(data: bytearray, rng: random.Random) -> None:
    """Flip a few random bits."""
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite_bytes(data: bytearray, rng: random.Random) -> None:
    """Overwrite a random place with telling bytes."""
    piece = rng.choice(TELLING_BYTES)
    start = rng.randrange(len(data))
    data[start : start + len(piece)] = piece


def insert_bytes(data: bytearray, rng: random.Random) -> None:
    """Insert telling bytes at a random place."""
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.choice(TELLING_BYTES)


def cut_bytes(data: bytearray, rng: random.Random) -> None:
    """Remove a random piece, or everything after a random offset."""
    start = rng.randrange(len(data))
    del data[start : rng.choice((start + 1, start + 512, start + rng.randrange(2000), len(data)))]


def repeat_bytes(data: bytearray, rng: random.Random) -> None:
    """Insert a random piece a second time."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 20, 512, 1024, 5000))]
    where = rng.randrange(len(data))
    data[where:where] = piece


MUTATIONS: tuple[Mutation, ...] = (flip_bits, overwrite_bytes, insert_bytes, cut_bytes, repeat_bytes)


def mutate(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of the seeds, damaged up to three times."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 3)):
        data = data or bytearray(b"\0")
        rng.choice(MUTATIONS)(data, rng)
    return bytes(data)

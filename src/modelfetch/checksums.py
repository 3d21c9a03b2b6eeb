"""Checksums: computed in flight, combined from parts, compared with the values of the store and of the caller."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import anycrc

from modelfetch.errors import MismatchError

# Cheapest first: 0.03 CPU s/GB for each CRC.
CRCS = {"crc64nvme": "CRC64-NVME", "crc32c": "CRC32C", "crc32": "CRC32"}
_CRC_BYTES = {"crc64nvme": 8, "crc32c": 4, "crc32": 4}
_FALLBACK_DIGESTS = ("sha1", "md5")  # beside sha256, always computed for the receipt


class _Hash(Protocol):
    """Interface of the objects returned by `hashlib.new`."""

    def update(self, data: Any, /) -> None: ...  # noqa: ANN401  hashlib takes any buffer
    def hexdigest(self) -> str: ...


@cache
def _crc_model(algorithm: str) -> Any:  # noqa: ANN401  anycrc ships no types
    """Return the anycrc model of an algorithm, built once."""
    return anycrc.Model(CRCS[algorithm])


def choose_crc(expected: Mapping[str, str]) -> str:
    """Return the CRC to compute for an object with these checksums: a CRC known to the store, else CRC64NVME."""
    return next((name for name in CRCS if name in expected), "crc64nvme")


def update_crc(algorithm: str, data: memoryview | bytes, crc: int = 0) -> int:
    """Return the CRC continued over more bytes."""
    return int(_crc_model(algorithm).calc(data, crc))


def combine_crcs(algorithm: str, parts: Sequence[tuple[int, int]]) -> int:
    """Return the CRC of the whole from (crc, length in bytes) of its parts, in order, without a second read."""
    total = 0
    for crc, length in parts:
        total = int(_crc_model(algorithm).combine(total, crc, length))
    return total


def format_crc(algorithm: str, crc: int) -> str:
    """Return a CRC in the zero-padded hexadecimal form used for comparison and display."""
    return f"{crc:0{_CRC_BYTES[algorithm] * 2}x}"


class InOrderDigests:
    """Digests over bytes in order: sha256 always; md5 or sha1 only if the store states no stronger checksum."""

    def __init__(self, expected: Mapping[str, str]) -> None:
        """Choose the digests for an object with these checksums."""
        needs_fallback = not any(name in expected for name in (*CRCS, "sha256"))
        algorithms = ["sha256", *[name for name in _FALLBACK_DIGESTS if needs_fallback and name in expected][:1]]
        self._hashes: dict[str, _Hash] = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}

    def update(self, data: memoryview | bytes) -> None:
        """Add the next bytes to every digest."""
        for digest in self._hashes.values():
            digest.update(data)

    def hexdigests(self) -> dict[str, str]:
        """Return each digest in hexadecimal, by algorithm."""
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}


class Fingerprint(NamedTuple):
    """Size in bytes of the bytes received, and their checksums in hexadecimal by algorithm."""

    size: int
    checksums: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Return the sha256 in hexadecimal, present in every fingerprint."""
        return self.checksums["sha256"]


def compare_checksums(
    label: str, received: Fingerprint, *, size: int | None, expected: Mapping[str, str]
) -> tuple[str, ...]:
    """Compare the bytes received with the store's size and checksums; return the names of the checks made.

    Raises:
        MismatchError: size or checksums differ; the message lists every difference with both values.
    """
    mismatches = []
    checks = []
    if size is not None:
        checks.append("size")
        if received.size != size:
            mismatches.append(f"size: expected {size} bytes, got {received.size}")
    for name in sorted(set(expected) & set(received.checksums)):
        checks.append(name)
        if received.checksums[name] != expected[name]:
            mismatches.append(f"{name}: expected {expected[name]}, got {received.checksums[name]}")
    if mismatches:
        raise MismatchError(
            f"{label} arrived damaged ({'; '.join(mismatches)}).",
            hint="Something between the store and here alters bytes, or the stored object is bad: upload it again.",
        )
    return tuple(checks)


def check_manifest_sha256(label: str, stated: str, received: Sequence[str]) -> None:
    """Compare a manifest's sha256 with the sha256 of each form received: as stored, and decompressed.

    Raises:
        MismatchError: no form has the stated sha256.
    """
    if stated not in received:
        raise MismatchError(
            f"{label} is not what its manifest says (sha256: expected {stated}, got {' or '.join(received)}).",
            hint="It was replaced after the push, or a push is about to end: push the model again.",
        )


def check_pin(label: str, pin: str, received: Sequence[str]) -> None:
    """Compare the caller's sha256 with the sha256 of each form received: as stored, and decompressed.

    Raises:
        MismatchError: no form has the pinned sha256.
    """
    if pin not in received:
        raise MismatchError(
            f"{label} is not the pinned model (sha256: expected {pin}, got {' or '.join(received)}).",
            hint="The object was replaced, or the pin is of another version: compare with `modelfetch inspect`.",
        )

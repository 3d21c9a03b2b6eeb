"""Checksums: computed while the bytes pass, combined from parts, compared with what the store and the caller say."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import anycrc

from modelfetch.errors import MismatchError

# Cheapest first: 0.03 CPU s/GB for each CRC.
CRCS = {"crc64nvme": "CRC64-NVME", "crc32c": "CRC32C", "crc32": "CRC32"}
_CRC_BYTES = {"crc64nvme": 8, "crc32c": 4, "crc32": 4}
_FALLBACK_DIGESTS = ("sha1", "md5")  # sha256 is always computed: every receipt has it


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...  # noqa: ANN401  hashlib takes any buffer
    def hexdigest(self) -> str: ...


@cache
def _crc_model(algorithm: str) -> Any:  # noqa: ANN401  anycrc ships no types
    return anycrc.Model(CRCS[algorithm])


def choose_crc(expected: Mapping[str, str]) -> str:
    """The CRC to compute for an object with these checksums: one that the store knows, else CRC64NVME."""
    return next((name for name in CRCS if name in expected), "crc64nvme")


def update_crc(algorithm: str, data: memoryview | bytes, crc: int = 0) -> int:
    """Continue a CRC over more bytes."""
    return int(_crc_model(algorithm).calc(data, crc))


def combine_crcs(algorithm: str, parts: Sequence[tuple[int, int]]) -> int:
    """The CRC of the whole from (crc, length in bytes) of its parts, in order; no byte is read again."""
    total = 0
    for crc, length in parts:
        total = int(_crc_model(algorithm).combine(total, crc, length))
    return total


def format_crc(algorithm: str, crc: int) -> str:
    """A CRC in the form in which checksums are compared and shown."""
    return f"{crc:0{_CRC_BYTES[algorithm] * 2}x}"


class InOrderDigests:
    """The digests that must see the bytes in order: sha256, and md5 or sha1 if nothing else can tell."""

    def __init__(self, expected: Mapping[str, str]) -> None:
        """Choose what to compute for an object with these checksums."""
        needs_fallback = not any(name in expected for name in (*CRCS, "sha256"))
        algorithms = ["sha256", *[name for name in _FALLBACK_DIGESTS if needs_fallback and name in expected][:1]]
        self._hashes: dict[str, _Hash] = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}

    def update(self, data: memoryview | bytes) -> None:
        """Take the next bytes."""
        for digest in self._hashes.values():
            digest.update(data)

    def hexdigests(self) -> dict[str, str]:
        """Each digest in hexadecimal."""
        return {name: one.hexdigest() for name, one in self._hashes.items()}


class Fingerprint(NamedTuple):
    """What the bytes that came are: their number and their checksums in hexadecimal by algorithm."""

    size: int
    checksums: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """The sha256 in hexadecimal."""
        return self.checksums["sha256"]


def compare_checksums(
    label: str, received: Fingerprint, *, size: int | None, expected: Mapping[str, str]
) -> tuple[str, ...]:
    """Compare what came with what the store says; return the names of the checks made.

    Raises:
        MismatchError: naming every difference with both values.
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
    """Compare the sha256 that a manifest states with what came (any of the forms in which it may be meant).

    Raises:
        MismatchError: it is none of them.
    """
    if stated not in received:
        raise MismatchError(
            f"{label} is not what its manifest says (sha256: expected {stated}, got {' or '.join(received)}).",
            hint="It was replaced after the push, or a push is about to end: push the model again.",
        )


def check_pin(label: str, pin: str, received: Sequence[str]) -> None:
    """Compare the caller's sha256 with what came (any of the forms in which it may be meant).

    Raises:
        MismatchError: it is none of them.
    """
    if pin not in received:
        raise MismatchError(
            f"{label} is not the pinned model (sha256: expected {pin}, got {' or '.join(received)}).",
            hint="The object was replaced, or the pin is of another version: compare with `modelfetch inspect`.",
        )

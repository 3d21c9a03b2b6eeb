"""The values that go into the unpacking of an archive, and come out of it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Budget:
    """What an archive may take at most.

    Attributes:
        max_bytes: of file content.
        max_files: members of any kind; directories that no member stands for count on their own.
        max_ratio: bytes that come out of the decompression to bytes that went in; looked at from 64 KiB on.
    """

    max_bytes: int
    max_files: int
    max_ratio: float


@dataclass(frozen=True, slots=True)
class Member:
    """One unpacked file.

    Attributes:
        path: relative to the directory, with slashes.
        size: in bytes; of a link, that of the file it leads to.
        sha256: in hexadecimal; empty for a link to a directory.
        link: the target, if this is a symbolic link: as the archive has it, without idle dots and slashes.
    """

    path: str
    size: int
    sha256: str
    link: str | None = None


class ForwardReader(Protocol):
    """An archive's bytes in order, as they arrive."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, none only at the very end; a ModelfetchError if the transfer fails."""
        ...

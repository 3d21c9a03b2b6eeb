"""The values that go into the unpacking of an archive, and come out of it."""

from typing import NamedTuple, Protocol

from modelfetch.errors import BudgetError, DestinationError


class Budget(NamedTuple):
    """What an archive may take at most.

    Attributes:
        max_bytes: of file content.
        max_files: members of any kind; directories that no member stands for count on their own.
        max_ratio: bytes that come out of the decompression to bytes that went in; looked at from 64 KiB on.
        full_disk: whether it is the disk that has no room for more bytes, and not somebody who allows no more.
    """

    max_bytes: int
    max_files: int
    max_ratio: float
    full_disk: bool = False

    def check_bytes(self, size: int, what: str) -> None:
        """Refuse content of more bytes than may be.

        Raises:
            BudgetError: more than allowed.
            DestinationError: more than the disk has room for.
        """
        if size <= self.max_bytes:
            return
        if self.full_disk:
            raise DestinationError(
                f"{what} holds more than the {self.max_bytes} bytes that the destination's disk has free.",
                hint="Free some space, or give the volume a larger size.",
            )
        raise BudgetError(
            f"{what} holds more than {self.max_bytes} bytes.",
            hint="If it may be trusted, raise --max-bytes (MODELFETCH_MAX_BYTES).",
        )


class Member(NamedTuple):
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

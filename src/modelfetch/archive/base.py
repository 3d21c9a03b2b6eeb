"""Input and output values of archive extraction: budget, archive stream, extracted member."""

from typing import NamedTuple, Protocol

from modelfetch.errors import BudgetError, DestinationError


class Budget(NamedTuple):
    """Upper limits for the content of one archive.

    Attributes:
        max_bytes: bytes of file content.
        max_files: members of any kind; implied directories (without a member of their own) count, too.
        max_ratio: compression ratio: decompressed to compressed bytes; checked above 64 KiB of output.
        limited_by_disk: `max_bytes` is the free space of the disk, not a limit set by the user.
    """

    max_bytes: int
    max_files: int
    max_ratio: float
    limited_by_disk: bool = False

    def check_bytes(self, size: int, subject: str) -> None:
        """Refuse content larger than the budget; `subject` names the archive or object in the message.

        Raises:
            BudgetError: `size` exceeds the user's limit.
            DestinationError: `size` exceeds the free space of the disk.
        """
        if size <= self.max_bytes:
            return
        if self.limited_by_disk:
            raise DestinationError(
                f"{subject} holds more than the {self.max_bytes} bytes that the destination's disk has free.",
                hint="Free some space, or give the volume a larger size.",
            )
        raise BudgetError(
            f"{subject} holds more than {self.max_bytes} bytes.",
            hint="If it may be trusted, raise --max-bytes (MODELFETCH_MAX_BYTES).",
        )


class Member(NamedTuple):
    """One extracted file or symlink.

    Attributes:
        path: relative to the target directory, with slashes.
        size: in bytes; for a symlink, the size of the resolved file.
        sha256: in hexadecimal; empty for a symlink to a directory.
        symlink_target: target as written in the archive, without redundant dots and slashes; None for a regular file.
    """

    path: str
    size: int
    sha256: str
    symlink_target: str | None = None


class ForwardReader(Protocol):
    """Archive bytes in order, while the transfer runs."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; an empty result means the end of the archive.

        Raises:
            ModelfetchError: the transfer failed.
        """
        ...

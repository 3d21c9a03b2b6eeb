"""Decompression of an object stored with contentEncoding gzip: no archive, but with the same budget and checks."""

import hashlib
from typing import BinaryIO

from modelfetch.archive.base import Budget, Member
from modelfetch.archive.decompress import CompressedInput, decompress_stream, enforce_ratio, load_codec
from modelfetch.errors import ArchiveError
from modelfetch.volume.filesystem import disk_errors

_HINT = "Upload it again: what is stored with contentEncoding gzip must be gzip, and whole."


def gunzip_file(name: str, source: BinaryIO, target: BinaryIO, budget: Budget) -> Member:
    """Decompress the gzip file `name` into a new file and return the new file's size and sha256.

    Raises:
        ArchiveError: the gzip stream is corrupt or truncated.
        BudgetError: the content exceeds the budget.
        DestinationError: the disk is full or fails.
    """
    size = 0
    digest = hashlib.sha256()
    stream = CompressedInput(source)
    try:
        for piece in enforce_ratio(decompress_stream(iter(stream), load_codec("gzip")), stream, budget.max_ratio):
            size += len(piece)
            budget.check_bytes(size, name)
            digest.update(piece)
            with disk_errors(name):
                target.write(piece)
    except ArchiveError as error:
        raise ArchiveError(f"{name}: {error.message}", hint=error.hint or _HINT) from error
    return Member(name, size, digest.hexdigest())

"""Decompression of an object stored with contentEncoding gzip: no archive, but with the same budget and checks."""

import hashlib
from pathlib import Path

from modelfetch.archive.base import Budget, Member
from modelfetch.archive.decompress import CompressedInput, decompress_stream, enforce_ratio, load_codec
from modelfetch.errors import ArchiveError
from modelfetch.volume.filesystem import disk_errors

_HINT = "Upload it again: what is stored with contentEncoding gzip must be gzip, and whole."


def gunzip_file(compressed_file: Path, target_file: Path, budget: Budget) -> Member:
    """Decompress a gzip file into a new file and return the new file's name, size and sha256.

    Raises:
        ArchiveError: the gzip stream is corrupt or truncated.
        BudgetError: the content exceeds the budget.
        DestinationError: the disk is full or fails.
    """
    try:
        return _decompress_file(compressed_file, target_file, budget)
    except ArchiveError as error:
        raise ArchiveError(f"{compressed_file.name}: {error.message}", hint=error.hint or _HINT) from error


def _decompress_file(compressed_file: Path, target_file: Path, budget: Budget) -> Member:
    size = 0
    digest = hashlib.sha256()
    with disk_errors(target_file), compressed_file.open("rb") as source, target_file.open("xb") as target:
        stream = CompressedInput(source)
        for piece in enforce_ratio(decompress_stream(iter(stream), load_codec("gzip")), stream, budget.max_ratio):
            size += len(piece)
            budget.check_bytes(size, compressed_file.name)
            digest.update(piece)
            target.write(piece)
    return Member(target_file.name, size, digest.hexdigest())

"""Decodes an object that is stored under contentEncoding gzip: no archive, but bombs and damage all the same."""

import hashlib
from pathlib import Path

from modelfetch.archive.base import Budget, Member
from modelfetch.archive.decompress import CompressedInput, codec, inflate, within_ratio
from modelfetch.errors import ArchiveError
from modelfetch.volume.filesystem import disk_errors

_HINT = "Upload it again: what is stored with contentEncoding gzip must be gzip, and whole."


def gunzip_file(packed: Path, into: Path, budget: Budget) -> Member:
    """Decode a gzip file into a new file; returns the latter's name, size and sha256.

    Raises:
        ArchiveError: it is corrupt or cut short.
        BudgetError: it expands beyond the budget.
        DestinationError: the disk has no room, or fails.
    """
    try:
        return _gunzip(packed, into, budget)
    except ArchiveError as error:
        raise ArchiveError(f"{packed.name}: {error.message}", hint=error.hint or _HINT) from error


def _gunzip(packed: Path, into: Path, budget: Budget) -> Member:
    size = 0
    total = hashlib.sha256()
    with disk_errors(into), packed.open("rb") as source, into.open("xb") as target:
        stream = CompressedInput(source)
        for piece in within_ratio(inflate(iter(stream), codec("gzip")), stream, budget.max_ratio):
            size += len(piece)
            budget.check_bytes(size, packed.name)
            total.update(piece)
            target.write(piece)
    return Member(into.name, size, total.hexdigest())

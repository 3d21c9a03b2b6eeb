"""Receipts of modelfetch, schema 1, read: what was published, from where, and when.

A single file's receipt is `<file>.modelfetch.json`; a directory's is `.modelfetch.json` inside it.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modelserve.errors import WrongBytesError

SCHEMA = 1
SUFFIX = ".modelfetch.json"


@dataclass(frozen=True)
class Entry:
    """A published file: its size in bytes and its sha256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """The part of a receipt that a server needs; `files` by path relative to the receipt's directory."""

    path: Path
    source: str
    version: str
    digest: str
    files: dict[str, Entry]
    bytes: int
    seconds: float
    finished: datetime
    tool: str


def find(file: Path) -> tuple[Receipt, Entry] | None:
    """The receipt that speaks for `file`, and what it says of it; None if there is none.

    The file's own receipt comes first, then its directory's, then those of the directories above that list it.

    Raises:
        WrongBytesError: the receipt is damaged or of another schema, or does not list the file that it stands beside.
    """
    own = file.with_name(file.name + SUFFIX)
    for path in (own, *(parent / SUFFIX for parent in file.parents)):
        if not _exists(path):
            continue
        receipt = read(path)
        if entry := receipt.files.get(file.relative_to(path.parent).as_posix()):
            return receipt, entry
        if path.parent == file.parent:
            raise WrongBytesError(
                f"{file.name} is not what was fetched: the receipt {path} does not list it.",
                hint="Set MODEL_PATH to a file that the receipt lists, or pull the model again.",
            )
    return None


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a directory above that this user may not look into
        return False


def read(path: Path) -> Receipt:
    """Read one receipt; unknown keys are ignored.

    Raises:
        WrongBytesError: it cannot be read, or is of a schema that this version does not know.
    """
    try:
        return _decode(path, json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise WrongBytesError(f"The receipt {path} is damaged: {what}.", hint="Pull the model again.") from error


def _decode(path: Path, data: dict[str, Any]) -> Receipt:
    if data["schema"] != SCHEMA:
        raise ValueError(f"its schema is {data['schema']!r}, and this version reads {SCHEMA}")
    return Receipt(
        path=path,
        source=str(data["source"]),
        version=str(data["version"]),
        digest=str(data["digest"]),
        files={str(f["path"]): Entry(int(f["size"]), str(f["sha256"])) for f in data["files"]},
        bytes=int(data["bytes"]),
        seconds=float(data["seconds"]),
        finished=datetime.fromisoformat(data["finished"]),
        tool=str(data["tool"]),
    )

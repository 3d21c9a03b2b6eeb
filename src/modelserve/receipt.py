"""Reader of modelfetch receipts, schema 1: published files, source, version and time.

The receipt of a single file is `<file>.modelfetch-receipt`; the receipt of a directory is `.modelfetch-receipt` inside.
Where no receipt of that name stands, the old name `….modelfetch.json` counts.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modelserve.errors import WrongBytesError

SCHEMA = 1
SUFFIX = ".modelfetch-receipt"
OLD_SUFFIX = ".modelfetch.json"  # read until 0.2.0 is tagged
_LATER_DEFAULTS = {
    **dict.fromkeys(("source", "version", "digest", "tool"), ""),
    "bytes": 0,
    "seconds": 0.0,
    "finished": "1970-01-01T00:00:00+00:00",
}


@dataclass(frozen=True)
class FileEntry:
    """Published file: size in bytes and sha256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """Receipt fields needed by a server; `files` by path relative to the directory of the receipt."""

    path: Path
    source: str
    version: str
    digest: str
    files: dict[str, FileEntry]
    bytes: int
    seconds: float
    finished: datetime
    tool: str


def find_receipt(file: Path) -> tuple[Receipt, FileEntry] | None:
    """Find the receipt that lists `file`, and the entry in it; None without a receipt.

    Search order: the receipt of the file, of the directory, then of each directory above that lists the file. A receipt
    that the receipt of a directory above lists as a file is part of that model, and speaks for nothing.

    Raises:
        WrongBytesError: the receipt is damaged, has an unknown schema, or lies beside the file without listing it.
    """
    found = [_choose_name(file.parent, file.name), *(_choose_name(parent, "") for parent in file.parents)]
    paths = [path for path in found if path is not None]
    for position, path in enumerate(paths):
        if any(_lists_file(above, path) for above in paths[position + 1 :]):
            continue
        receipt = read_receipt(path)
        if entry := receipt.files.get(file.relative_to(path.parent).as_posix()):
            return receipt, entry
        if path.parent == file.parent:
            raise WrongBytesError(
                f"{file.name} is not what was fetched: the receipt {path} does not list it.",
                hint="Set MODEL_PATH to a file that the receipt lists, or pull the model again.",
            )
    return None


def _choose_name(directory: Path, name: str) -> Path | None:
    """Return the receipt of a file, or of the directory if `name` is empty, by the new name or else the old."""
    candidates = (directory / f"{name}{suffix}" for suffix in (SUFFIX, OLD_SUFFIX))
    return next((path for path in candidates if _is_readable_file(path)), None)


def _lists_file(receipt: Path, file: Path) -> bool:
    """Return whether a receipt lists a file below its directory; a damaged receipt lists none."""
    try:
        return (
            file.is_relative_to(receipt.parent)
            and file.relative_to(receipt.parent).as_posix() in read_receipt(receipt).files
        )
    except WrongBytesError:
        return False


def _is_readable_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # this user may not search a directory above
        return False


def read_receipt(path: Path) -> Receipt:
    """Read one receipt; unknown keys are ignored.

    Raises:
        WrongBytesError: the receipt is unreadable, damaged or of an unknown schema.
    """
    try:
        return _parse_receipt(path, json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise WrongBytesError(f"The receipt {path} is damaged: {reason}.", hint="Pull the model again.") from error


def _parse_receipt(path: Path, data: dict[str, Any]) -> Receipt:
    schema, files = data["schema"], data["files"]
    if type(schema) is int and schema > SCHEMA:  # read for the files: a rolled-back app must still know its model
        data = {**_LATER_DEFAULTS, **{name: data[name] for name in ("source", "version", "digest") if name in data}}
    elif schema != SCHEMA:
        raise ValueError(f"its schema is {schema!r}, and this version reads {SCHEMA}")
    return Receipt(
        path=path,
        source=str(data["source"]),
        version=str(data["version"]),
        digest=str(data["digest"]),
        files={str(f["path"]): FileEntry(int(f["size"]), str(f["sha256"])) for f in files},
        bytes=int(data["bytes"]),
        seconds=float(data["seconds"]),
        finished=datetime.fromisoformat(data["finished"]),
        tool=str(data["tool"]),
    )

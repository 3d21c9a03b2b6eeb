"""The receipt: the JSON file beside a published model, the only link between the fetcher and readers of the model.

Path: `<file>.modelfetch-receipt` for a single file, `.modelfetch-receipt` inside a directory. Written last: a receipt
on disk means that the model is complete. A receipt of the old name, `….modelfetch.json`, is read where no receipt of
the new name exists.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from modelfetch import __version__
from modelfetch.errors import ModelfetchError, NotFoundError, WrongBytesError
from modelfetch.safe_paths import OLD_RECEIPT_SUFFIX, RECEIPT_SUFFIX

SCHEMA = 1
MAX_RECEIPT_BYTES = 512 * 1024**2  # enough for a million files with long names
_EPOCH = datetime.fromtimestamp(0, UTC)
_RECEIPT_START = b'{"schema": '  # of every receipt, of any schema


class FileEntry(NamedTuple):
    """One published file of a model.

    Attributes:
        path: relative to the receipt's directory, with slashes.
        size: in bytes; for a symlink, the size of the target file.
        sha256: in hexadecimal; empty for a symlink to a directory.
        link: target of a symlink from an archive; None for a plain file.
        checks: names of the checks passed by the file, if more than the receipt's `checks`.
    """

    path: str
    size: int
    sha256: str
    link: str | None = None
    checks: tuple[str, ...] | None = None


class ArchiveEntry(NamedTuple):
    """The archive that the files were extracted from: name, size in bytes, and sha256 in hexadecimal."""

    name: str
    size: int
    sha256: str


class Receipt(NamedTuple):
    """Record of a published model: source, version, files and checks made.

    Attributes:
        source: URI that was pulled.
        version: version of the object or of the set.
        digest: `sha256:` and the model's digest in hexadecimal.
        files: every published file.
        checks: names of the checks that every object passed.
        bytes: size in bytes of the objects as stored.
        resumed_bytes: bytes taken over from an interrupted pull.
        seconds: duration of the whole pull.
        retries: number of requests tried again.
        started: start of the pull, in UTC.
        finished: end of the pull, in UTC; the mtime of every published file.
        archive: archive that the files were extracted from, if any.
        signer: identity whose signature was verified, if any.
        tool: name and version of the writer.
        schema: schema that the receipt was read from; of a later one only `files` is known.
    """

    source: str
    version: str
    digest: str
    files: tuple[FileEntry, ...]
    checks: tuple[str, ...]
    bytes: int
    resumed_bytes: int
    seconds: float
    retries: int
    started: datetime
    finished: datetime
    archive: ArchiveEntry | None = None
    signer: str | None = None
    tool: str = f"modelfetch/{__version__}"
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the receipt as one line of JSON."""
        data = {"schema": self.schema, "tool": self.tool, **self._asdict()}
        data["files"] = [_drop_null_fields(f) for f in self.files]
        data["started"], data["finished"] = (f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in (self.started, self.finished))
        data["archive"] = self.archive and _drop_null_fields(self.archive)
        return json.dumps({name: value for name, value in data.items() if value is not None}, ensure_ascii=False)


def _drop_null_fields(entry: FileEntry | ArchiveEntry) -> dict[str, object]:
    """Return the fields of an entry that hold a value, by name."""
    return {name: value for name, value in entry._asdict().items() if value is not None}


def utc_now() -> datetime:
    """Return the current time in whole seconds, the precision of receipts and of published files' mtimes."""
    return datetime.now(UTC).replace(microsecond=0)


def receipt_path(dest: Path, *, directory: bool) -> Path:
    """Return the path for the receipt of the model at `dest`."""
    return dest / RECEIPT_SUFFIX if directory else dest.with_name(dest.name + RECEIPT_SUFFIX)


def receipt_paths(dest: Path, *, directory: bool) -> tuple[Path, Path]:
    """Return the paths where the receipt of the model at `dest` may be, by the new name and by the old."""
    old = dest / OLD_RECEIPT_SUFFIX if directory else dest.with_name(dest.name + OLD_RECEIPT_SUFFIX)
    return receipt_path(dest, directory=directory), old


def find_receipt(dest: Path, *, directory: bool) -> Path | None:
    """Return the path of the receipt of the model at `dest`, by the new name or else the old; None without a receipt.

    A receipt that the receipt of a directory above lists as a file is part of that model, and speaks for nothing.
    """
    found = next((path for path in receipt_paths(dest, directory=directory) if os.path.lexists(path)), None)
    return None if found is None or _is_part_of_model(found) else found


def _is_part_of_model(receipt: Path) -> bool:
    """Return whether the receipt of a directory above lists a receipt as a file of its model."""
    absolute = receipt.absolute()
    for parent in absolute.parents:
        above = next((path for path in receipt_paths(parent, directory=True) if os.path.lexists(path)), None)
        try:
            listed = read_receipt(above).files if above and above != absolute else ()
        except ModelfetchError:  # damaged: of no concern to a model below
            continue
        if absolute.relative_to(parent).as_posix() in {f.path for f in listed}:
            return True
    return False


def is_receipt_file(path: Path) -> bool:
    """Return whether a file is a receipt of ours, damaged or of another schema too; anything else is foreign."""
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            state = os.fstat(file.fileno())
            head = file.read(len(_RECEIPT_START)) if stat.S_ISREG(state.st_mode) else b"-"
    except OSError:
        return False
    return not path.is_symlink() and _RECEIPT_START.startswith(head)  # a torn write may have left less, or nothing


def model_digest(files: Iterable[FileEntry], *, directory: bool) -> str:
    """Return a model's digest: the sha256 of a single file, or of the output of `sha256sum`, sorted by path."""
    if not directory:
        (single,) = files
        return f"sha256:{single.sha256}"
    lines = sorted((f.path, f"{f.sha256}  {f.path}\n") for f in files if f.sha256)
    total = hashlib.sha256()
    for _, line in lines:
        total.update(line.encode("utf-8", "surrogateescape"))
    return f"sha256:{total.hexdigest()}"


def read_receipt(path: Path) -> Receipt:
    """Read and validate a receipt.

    Raises:
        NotFoundError: no receipt exists at `path`.
        WrongBytesError: the receipt is damaged, or of a later schema without paths, sizes and sha256.
    """
    try:
        text = _read_regular_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise missing_receipt_error(path) from None
    except (OSError, ValueError) as error:
        raise WrongBytesError(f"The receipt {path} cannot be read: {error}.", hint="Pull the model again.") from error
    try:
        return _decode_receipt(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise WrongBytesError(f"The receipt {path} is damaged: {error}.", hint="Pull the model again.") from error


def missing_receipt_error(path: Path) -> NotFoundError:
    """Return the error for a model without a receipt at `path`."""
    return NotFoundError(f"No receipt at {path}.", hint="modelfetch pull writes one; was this model pulled with it?")


def _read_regular_file(path: Path) -> str:
    """Read a regular file of bounded size; anyone may write to the volume, even a FIFO without a writer."""
    with open(path, encoding="utf-8", opener=_open_nonblocking) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is no file")
        if state.st_size > MAX_RECEIPT_BYTES:
            raise ValueError(f"it has {state.st_size} bytes")
        return file.read()


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file without waiting for the writer of a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode_receipt(data: dict[str, Any]) -> Receipt:
    """Convert the JSON object of a receipt, with the type of every field checked."""
    schema = data["schema"]
    if type(schema) is int and schema > SCHEMA:
        return _decode_later_receipt(data)
    if schema != SCHEMA:
        raise ValueError(f"schema {schema!r} is not {SCHEMA}")
    archive = data.get("archive")
    return Receipt(
        source=str(data["source"]),
        version=str(data["version"]),
        digest=str(data["digest"]),
        files=tuple(_decode_entry(f) for f in data["files"]),
        checks=tuple(data["checks"]),
        bytes=int(data["bytes"]),
        resumed_bytes=int(data["resumed_bytes"]),
        seconds=float(data["seconds"]),
        retries=int(data["retries"]),
        started=datetime.fromisoformat(data["started"]).astimezone(UTC),
        finished=datetime.fromisoformat(data["finished"]).astimezone(UTC),
        archive=ArchiveEntry(archive["name"], int(archive["size"]), archive["sha256"]) if archive else None,
        signer=None if data.get("signer") is None else str(data["signer"]),
        tool=str(data["tool"]),
    )


def _decode_later_receipt(data: dict[str, Any]) -> Receipt:
    """Convert a receipt of a later schema as far as its files: a rolled-back image must know what is its own.

    The version stays empty: such a model never counts as up to date.
    """
    files = tuple(_decode_entry({key: entry[key] for key in ("path", "size", "sha256")}) for entry in data["files"])
    return Receipt(
        source=str(data.get("source", "")),
        version="",
        digest=str(data.get("digest", "")),
        files=files,
        checks=(),
        bytes=sum(entry.size for entry in files),
        resumed_bytes=0,
        seconds=0.0,
        retries=0,
        started=_EPOCH,
        finished=_EPOCH,
        tool=str(data.get("tool", "")),
        schema=data["schema"],
    )


def _decode_entry(data: dict[str, Any]) -> FileEntry:
    """Convert the JSON object of one file."""
    link, checks = data.get("link"), data.get("checks")
    return FileEntry(
        path=_check_path_text(data["path"]),
        size=int(data["size"]),
        sha256=str(data["sha256"]),
        link=None if link is None else _check_path_text(link),
        checks=None if checks is None else tuple(checks),
    )


def _check_path_text(value: object) -> str:
    """Validate a path from an untrusted receipt: text, no NUL, valid UTF-8."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} is no path")
    value.encode()  # fails for surrogates, which UTF-8 cannot hold
    return value


def is_intact(receipt: Receipt, base: Path) -> bool:
    """Return whether every file below `base` has the size and mtime of its publication; no content is read."""
    mtime_ns = int(receipt.finished.timestamp()) * 1_000_000_000
    try:
        return all(_is_unchanged(base / f.path, f, mtime_ns) for f in receipt.files)
    except OSError:
        return False


def _is_unchanged(path: Path, entry: FileEntry, mtime_ns: int) -> bool:
    """Return whether one file or symlink matches its entry by type, target, size and mtime."""
    if entry.link is not None and path.readlink().as_posix() != entry.link:
        return False
    if entry.link is not None and not entry.sha256:
        return path.is_dir()
    state = path.stat() if entry.link is not None else path.lstat()
    return os.path.isfile(path) and state.st_size == entry.size and state.st_mtime_ns == mtime_ns  # noqa: PTH113

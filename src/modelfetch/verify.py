"""Verification of a published model on disk against its receipt."""

import hashlib
from pathlib import Path

from modelfetch.errors import MismatchError
from modelfetch.volume import receipt as receipts
from modelfetch.volume.receipt import FileEntry, Receipt


def verify(path: Path) -> Receipt:
    """Hash every file of the published model at `path`, and return the receipt.

    Raises:
        NotFoundError: no receipt exists for `path`.
        MismatchError: files are missing or differ; the message lists up to 20.
    """
    found = receipts.find_receipt(path, directory=path.is_dir())
    if found is None:
        raise receipts.missing_receipt_error(receipts.receipt_path(path, directory=path.is_dir()))
    receipt = receipts.read_receipt(found)
    base = path if path.is_dir() else path.parent
    if differences := find_mismatches(receipt, base):
        raise MismatchError(
            f"{path} is not what was published: {'; '.join(differences[:20])}{' …' if len(differences) > 20 else ''}.",
            hint="Pull it again: what differs is replaced.",
        )
    return receipt


def find_mismatches(receipt: Receipt, base: Path) -> list[str]:
    """Return the differences between receipt and files below `base`, with both values."""
    found = [flaw for entry in receipt.files if (flaw := _find_flaw(base / entry.path, entry))]
    directory = not (len(receipt.files) == 1 and receipt.digest == f"sha256:{receipt.files[0].sha256}")
    if (
        not found
        and receipt.schema == receipts.SCHEMA
        and receipt.digest != receipts.model_digest(receipt.files, directory=directory)
    ):
        found.append(f"the receipt's digest {receipt.digest} is not that of its files")
    return found


def _find_flaw(path: Path, entry: FileEntry) -> str:
    """Return the difference between a file and its entry, or an empty string if equal."""
    try:
        if entry.link is not None and path.readlink().as_posix() != entry.link:
            return f"{entry.path}: the link leads elsewhere"
        if entry.link is not None and not entry.sha256:
            return "" if path.is_dir() else f"{entry.path}: the link leads to no directory"
        size = path.stat().st_size
        if size != entry.size:
            return f"{entry.path}: expected {entry.size} bytes, got {size}"
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{entry.path}: {error.strerror}"
    return "" if sha256 == entry.sha256 else f"{entry.path}: expected sha256 {entry.sha256}, got {sha256}"

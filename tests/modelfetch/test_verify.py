"""Verification: a model on disk is compared with its receipt."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import MismatchError, NotFoundError
from modelfetch.verify import verify
from modelfetch.volume import receipt as receipts
from modelfetch.volume.receipt import FileEntry, Receipt
from testkit.file_tree import RECEIPT_NAME, sha256_hex, write_files

MODEL = {"a.bin": b"1", "w/b": b"22", "empty": b""}


def write_model(root: Path, *, digest: str = "") -> Receipt:
    """Write a published directory with symlinks and its receipt."""
    write_files(root, MODEL)
    (root / "link").symlink_to("w/b")
    (root / "folder").symlink_to("w")
    files = [FileEntry(name, len(data), sha256_hex(data)) for name, data in MODEL.items()]
    files += [FileEntry("link", 2, sha256_hex(b"22"), "w/b"), FileEntry("folder", 0, "", "w")]
    now = datetime(2026, 11, 21, tzinfo=UTC)
    digest = digest or receipts.model_digest(files, directory=True)
    receipt = Receipt("s3://b/m", "v", digest, tuple(files), (), 0, 0, 0.0, 0, now, now)
    (root / RECEIPT_NAME).write_text(receipt.to_json())
    return receipt


def test_unchanged_model_is_verified(tmp_path: Path) -> None:
    """Verification returns the receipt; mtimes and foreign files do not matter."""
    receipt = write_model(tmp_path)
    (tmp_path / "foreign").touch()

    assert verify(tmp_path) == receipt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "a.bin").write_bytes(b"2"), f"a.bin: expected sha256 {sha256_hex(b'1')}, got "),
        (lambda root: (root / "a.bin").write_bytes(b"11"), "a.bin: expected 1 bytes, got 2"),
        (lambda root: (root / "a.bin").unlink(), "a.bin: No such file"),
        (lambda root: ((root / "empty").unlink(), (root / "empty").mkdir()), "empty: "),
        (
            lambda root: ((root / "link").unlink(), (root / "link").symlink_to("a.bin")),
            "link: the link leads elsewhere",
        ),
        (lambda root: ((root / "link").unlink(), (root / "link").write_bytes(b"22")), "link: Invalid argument"),
        (lambda root: ((root / "w" / "b").unlink(), (root / "w").rmdir()), "folder: the link leads to no directory"),
    ],
)
def test_difference_is_reported_with_both_values(tmp_path: Path, change: Any, message: str) -> None:
    """A change hidden from size and time is found too."""
    write_model(tmp_path)
    change(tmp_path)

    with pytest.raises(MismatchError) as caught:
        verify(tmp_path)

    assert message in caught.value.message


def test_every_difference_is_reported(tmp_path: Path) -> None:
    """The message does not stop at the first difference."""
    write_model(tmp_path)
    (tmp_path / "a.bin").unlink()
    (tmp_path / "w" / "b").write_bytes(b"33")

    with pytest.raises(MismatchError) as caught:
        verify(tmp_path)

    assert all(name in caught.value.message for name in ("a.bin", "w/b", "link"))


def test_receipt_with_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    """An edited receipt does not match the digest of the files listed."""
    write_model(tmp_path, digest="sha256:" + "0" * 64)

    with pytest.raises(MismatchError, match="digest"):
        verify(tmp_path)


def test_model_without_a_receipt_raises_not_found(tmp_path: Path) -> None:
    """Without a receipt verification fails with exit code 66."""
    with pytest.raises(NotFoundError):
        verify(tmp_path)

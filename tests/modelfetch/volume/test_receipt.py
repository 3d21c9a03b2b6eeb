"""Receipt: written, read, and compared with the files on disk."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import NotFoundError, WrongBytesError
from modelfetch.volume import receipt as receipts
from modelfetch.volume.receipt import ArchiveEntry, FileEntry, Receipt
from testkit.file_tree import directory_digest, sha256_hex, write_files

MODEL = {"a.bin": b"1", "w/ü.bin": b"22", "w-x": b"", "w/0": b"4444"}
WHEN = datetime(2026, 11, 21, 9, 0, 1, tzinfo=UTC)


def list_entries(files: dict[str, bytes]) -> tuple[FileEntry, ...]:
    """Return the files as entries of a receipt."""
    return tuple(FileEntry(name, len(data), sha256_hex(data)) for name, data in files.items())


def make_receipt(files: tuple[FileEntry, ...] = list_entries(MODEL)) -> Receipt:
    """Return the receipt of a directory with these files."""
    return Receipt(
        source="s3://models/m",
        version="v1",
        digest=receipts.model_digest(files, directory=True),
        files=files,
        checks=("size", "crc64nvme"),
        bytes=7,
        resumed_bytes=2,
        seconds=0.41,
        retries=1,
        started=datetime(2026, 11, 21, 9, tzinfo=UTC),
        finished=WHEN,
    )


def publish_model(root: Path) -> Receipt:
    """Write a model with symlinks to disk, and return its receipt."""
    write_files(root, MODEL)
    (root / "link").symlink_to("w/0")
    (root / "folder").symlink_to("w")
    for name in MODEL:
        os.utime(root / name, (WHEN.timestamp(), WHEN.timestamp()))
    linked = FileEntry("link", 4, sha256_hex(MODEL["w/0"]), "w/0")
    return make_receipt((*list_entries(MODEL), linked, FileEntry("folder", 0, "", "w")))


def test_receipt_has_a_signer_only_after_verification(tmp_path: Path) -> None:
    """Without a verified signature the JSON has no field `signer`."""
    signed, file = make_receipt()._replace(signer="public key sha256:ab"), tmp_path / ".modelfetch-receipt"
    file.write_text(signed.to_json())

    assert receipts.read_receipt(file) == signed
    assert "signer" not in json.loads(make_receipt().to_json())


def test_receipt_has_the_documented_schema() -> None:
    """The JSON has every key, one line, and times in UTC."""
    text = make_receipt(list_entries({"m.bin": b"1"}))._replace(archive=ArchiveEntry("m.tar", 10, "ab")).to_json()

    data = json.loads(text)
    assert "\n" not in text
    assert data.pop("tool").startswith("modelfetch/")
    assert data.pop("digest").startswith("sha256:")
    assert data == {
        "schema": 1,
        "source": "s3://models/m",
        "version": "v1",
        "files": [{"path": "m.bin", "size": 1, "sha256": sha256_hex(b"1")}],
        "checks": ["size", "crc64nvme"],
        "bytes": 7,
        "resumed_bytes": 2,
        "seconds": 0.41,
        "retries": 1,
        "started": "2026-11-21T09:00:00Z",
        "finished": "2026-11-21T09:00:01Z",
        "archive": {"name": "m.tar", "size": 10, "sha256": "ab"},
    }


def test_written_receipt_is_read_back_equal(tmp_path: Path) -> None:
    """Symlinks, archives and non-ASCII names are kept; keys of a later version are ignored."""
    linked = (*list_entries(MODEL), FileEntry("l", 0, "", "w"))
    for receipt in (
        make_receipt(),
        make_receipt(linked),
        make_receipt()._replace(archive=ArchiveEntry("m.tar", 10, "ab")),
    ):
        data = {**json.loads(receipt.to_json()), "later": {"x": 1}}
        (tmp_path / "r").write_text(json.dumps(data))

        assert receipts.read_receipt(tmp_path / "r") == receipt


def test_receipt_path_is_beside_a_file_or_inside_a_directory() -> None:
    """Readers of the model look for receipts at these paths."""
    assert receipts.receipt_path(Path("/m/a.bin"), directory=False) == Path("/m/a.bin.modelfetch-receipt")
    assert receipts.receipt_path(Path("/m"), directory=True) == Path("/m/.modelfetch-receipt")


@pytest.mark.process
def test_directory_digest_is_the_sha256_of_sha256sum_output(tmp_path: Path) -> None:
    """The order of the files does not matter."""
    write_files(tmp_path, MODEL)
    shell = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    run = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)

    expected = f"sha256:{run.stdout.split()[0]}"
    assert receipts.model_digest(list_entries(MODEL), directory=True) == expected
    assert receipts.model_digest(reversed(list_entries(MODEL)), directory=True) == expected == directory_digest(MODEL)


def test_file_digest_is_the_files_sha256() -> None:
    """A single file has the same digest as its pin."""
    assert receipts.model_digest(list_entries({"m": b"1"}), directory=False) == f"sha256:{sha256_hex(b'1')}"


def test_directory_digest_ignores_symlinks_to_directories() -> None:
    """A symlink to a directory has no content."""
    assert receipts.model_digest(
        (*list_entries(MODEL), FileEntry("l", 0, "", "w")), directory=True
    ) == directory_digest(MODEL)


@pytest.mark.parametrize("path", ["none", "file/none"])
def test_missing_receipt_raises_not_found(tmp_path: Path, path: str) -> None:
    """A path below a file counts as missing too."""
    (tmp_path / "file").touch()

    with pytest.raises(NotFoundError, match="No receipt"):
        receipts.read_receipt(tmp_path / path)


FILE: dict[str, Any] = {"path": "m", "size": 1, "sha256": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 0},
        {"schema": None},
        {"files": None},
        {"files": "m"},
        {"files": [{"path": "m"}]},
        {"files": [FILE | {"path": 5}]},
        {"files": [FILE | {"path": None}]},
        {"files": [FILE | {"path": "a\0b"}]},
        {"files": [FILE | {"path": "a\ud800"}]},
        {"files": [FILE | {"link": ["x"]}]},
        {"files": [FILE | {"size": "many"}]},
        {"bytes": float("inf")},
        {"bytes": {}},
        {"finished": "yesterday"},
        {"finished": "0001-01-01T00:00:00+23:00"},
        {"finished": 5},
        {"archive": "m.tar"},
        {"archive": {"name": "m.tar"}},
    ],
)
def test_receipt_of_another_schema_or_shape_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """A field of a wrong type raises WrongBytesError, never another exception."""
    (tmp_path / "r").write_text(json.dumps({**json.loads(make_receipt().to_json()), **change}))

    with pytest.raises(WrongBytesError, match="damaged"):
        receipts.read_receipt(tmp_path / "r")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_damaged_receipt_is_refused(tmp_path: Path, content: bytes) -> None:
    """A crash of the node or a manual edit may have damaged the file."""
    (tmp_path / "r").write_bytes(content)

    with pytest.raises(WrongBytesError, match=str(tmp_path)):
        receipts.read_receipt(tmp_path / "r")


def test_directory_at_the_receipts_path_cannot_be_read(tmp_path: Path) -> None:
    """A directory instead of a receipt raises WrongBytesError."""
    with pytest.raises(WrongBytesError, match="cannot be read"):
        receipts.read_receipt(tmp_path)


def test_unchanged_model_is_intact(tmp_path: Path) -> None:
    """Files and symlinks as published count as intact."""
    assert receipts.is_intact(publish_model(tmp_path), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "a.bin").write_bytes(b"longer"), id="size"),
        pytest.param(lambda root: os.utime(root / "a.bin"), id="mtime"),
        pytest.param(lambda root: (root / "a.bin").unlink(), id="missing"),
        pytest.param(lambda root: ((root / "a.bin").unlink(), (root / "a.bin").mkdir()), id="directory"),
        pytest.param(lambda root: ((root / "w-x").unlink(), (root / "w-x").symlink_to("a.bin")), id="file to link"),
        pytest.param(lambda root: ((root / "link").unlink(), (root / "link").symlink_to("a.bin")), id="link"),
        pytest.param(lambda root: ((root / "link").unlink(), (root / "link").touch()), id="link to file"),
        pytest.param(lambda root: ((root / "folder").unlink(), (root / "folder").symlink_to("x")), id="folder link"),
    ],
)
def test_changed_model_is_not_intact(tmp_path: Path, change: Any) -> None:
    """A change of size, time or target is found without reading content."""
    receipt = publish_model(tmp_path)
    change(tmp_path)

    assert not receipts.is_intact(receipt, tmp_path)


def test_utc_now_returns_whole_seconds() -> None:
    """Every file system can store an mtime of whole seconds."""
    assert receipts.utc_now().microsecond == 0
    assert receipts.utc_now().tzinfo is UTC


def test_endless_receipt_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO without a writer would block, and a huge file would fill the memory."""
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(receipts.MAX_RECEIPT_BYTES + 1)

    for name in ("fifo", "huge"):
        with pytest.raises(WrongBytesError, match="cannot be read"):
            receipts.read_receipt(tmp_path / name)

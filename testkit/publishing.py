"""Models published without a pull: staged, published, inspected."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelfetch.volume import publish
from modelfetch.volume import receipt as receipts
from modelfetch.volume.destination import Destination, locate_destination
from modelfetch.volume.receipt import FileEntry, Receipt
from modelfetch.volume.staging import StagingArea, lock_staging_area
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, read_files, sha256_hex, write_files

Files = dict[str, bytes]


def make_receipt(files: Files, *, directory: bool = True) -> Receipt:
    """Return the receipt of these files."""
    listed = tuple(FileEntry(name, len(data), sha256_hex(data)) for name, data in sorted(files.items()))
    digest = receipts.model_digest(listed, directory=directory)
    now = receipts.utc_now()
    return Receipt("s3://b/m", "v", digest, listed, ("size",), 0, 0, 0.0, 0, now, now)


@contextmanager
def stage_files(place: Destination, files: Files, folders: tuple[str, ...] = ()) -> Iterator[StagingArea]:
    """Stage these files for a destination."""
    with lock_staging_area(place.staging_parent, place.name, lambda: None) as stage:
        stage.clear()
        stage.tree.mkdir()
        write_files(stage.tree, files)
        stage.written.update({path: (stage.tree / path).lstat().st_ino for path in files})
        for folder in folders:
            (stage.tree / folder).mkdir(parents=True, exist_ok=True)
        yield stage


def publish_files(dest: Path, files: Files, folders: tuple[str, ...] = ()) -> Receipt:
    """Publish a directory of files."""
    place = locate_destination(str(dest), "", directory=True, archive=False)
    with stage_files(place, files, folders) as stage:
        publish.publish(stage, place, receipt := make_receipt(files))
    return receipt


def publish_file(dest: str, data: bytes, name: str = "m.bin") -> Path:
    """Publish a single file and return its path."""
    place = locate_destination(dest, name, directory=False, archive=False)
    files = {place.path.name: data}
    with stage_files(place, files) as stage:
        publish.publish(stage, place, make_receipt(files, directory=False))
    return place.path


def assert_published(dest: Path, files: Files, foreign_files: Files | None = None) -> None:
    """Check that a directory holds exactly these files, as the receipt says, and no staging area."""
    receipt = receipts.read_receipt(dest / RECEIPT_NAME)
    assert read_files(dest) == {**files, **(foreign_files or {})}
    assert [entry.path for entry in receipt.files] == sorted(files)
    assert receipts.is_intact(receipt, dest)
    assert not (dest / STAGING_NAME).exists()
    assert not (dest.parent / STAGING_NAME).exists()


def snapshot_tree(root: Path) -> dict[str, Any]:
    """Return everything below a directory, symlinks unresolved."""
    found = sorted(root.rglob("*"))
    return {
        path.relative_to(root).as_posix(): path.readlink()
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in found
    }

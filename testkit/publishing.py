"""Models put in place without a pull: staged, published, looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelfetch.volume import publish
from modelfetch.volume import receipt as receipts
from modelfetch.volume.destination import Destination, locate_destination
from modelfetch.volume.receipt import FileEntry, Receipt
from modelfetch.volume.staging import StagingArea, lock_staging_area
from testkit import tree

Files = dict[str, bytes]


def receipt_of(files: Files, *, directory: bool = True) -> Receipt:
    """The receipt of these files."""
    listed = tuple(FileEntry(name, len(data), tree.sha256(data)) for name, data in sorted(files.items()))
    digest = receipts.model_digest(listed, directory=directory)
    now = receipts.utc_now()
    return Receipt("s3://b/m", "v", digest, listed, ("size",), 0, 0, 0.0, 0, now, now)


@contextmanager
def staged(place: Destination, files: Files, folders: tuple[str, ...] = ()) -> Iterator[StagingArea]:
    """A stage that holds these files."""
    with lock_staging_area(place.staging_parent, place.name, lambda: None) as stage:
        stage.clear()
        stage.tree.mkdir()
        tree.write(stage.tree, files)
        for folder in folders:
            (stage.tree / folder).mkdir(parents=True, exist_ok=True)
        yield stage


def put(dest: Path, files: Files, folders: tuple[str, ...] = ()) -> Receipt:
    """Publish a directory."""
    place = locate_destination(str(dest), "", directory=True, archive=False)
    with staged(place, files, folders) as stage:
        publish.publish(stage, place, receipt := receipt_of(files))
    return receipt


def put_file(dest: str, data: bytes, name: str = "m.bin") -> Path:
    """Publish a single file."""
    place = locate_destination(dest, name, directory=False, archive=False)
    files = {place.path.name: data}
    with staged(place, files) as stage:
        publish.publish(stage, place, receipt_of(files, directory=False))
    return place.path


def whole(dest: Path, files: Files, strangers: Files | None = None) -> None:
    """The directory holds these and nothing else, as its receipt says."""
    receipt = receipts.read_receipt(dest / tree.RECEIPT)
    assert tree.read(dest) == {**files, **(strangers or {})}
    assert [entry.path for entry in receipt.files] == sorted(files)
    assert receipts.is_intact(receipt, dest)
    assert not (dest / tree.STAGING).exists()
    assert not (dest.parent / tree.STAGING).exists()


def snapshot(root: Path) -> dict[str, Any]:
    """All there is below a directory, links as such."""
    found = sorted(root.rglob("*"))
    return {
        path.relative_to(root).as_posix(): path.readlink()
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in found
    }

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modelserve.errors import WrongBytesError
from modelserve.receipt import find_receipt

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Create a file in a new directory."""
    path = tmp_path / "m" / "model.joblib"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    return path


def test_a_file_without_a_receipt_returns_none(file: Path) -> None:
    """A file without receipts in the directories above returns None."""
    assert find_receipt(file) is None


def test_the_receipt_of_a_file_is_found(file: Path, receipt_for: Write) -> None:
    """The receipt beside the file is found, with every field for a server."""
    receipt_for(file)

    found = find_receipt(file)

    assert found is not None
    said, entry = found
    assert (3, said.files["model.joblib"]) == (entry.size, entry)
    assert (said.source, said.version) == ("s3://models/m/model.joblib", "3sL4kqtJlcpXroDTDmJ")
    assert (said.bytes, said.seconds, said.finished.isoformat()) == (3, 0.41, "2026-11-21T09:00:01+00:00")


def test_the_receipt_of_a_directory_above_is_found(file: Path, receipt_for: Write, tmp_path: Path) -> None:
    """The receipt of a fetched directory is found for files at every depth."""
    written = receipt_for(tmp_path, file)

    found = find_receipt(file)

    assert found is not None
    assert found[0].path == written


def test_the_receipt_of_the_file_comes_before_the_directory(file: Path, receipt_for: Write, tmp_path: Path) -> None:
    """With two receipts the receipt of the file is used."""
    receipt_for(tmp_path, file)
    own = receipt_for(file)

    found = find_receipt(file)

    assert found is not None
    assert found[0].path == own


def test_a_directory_receipt_without_the_file_is_skipped_further_up(
    file: Path, receipt_for: Write, tmp_path: Path
) -> None:
    """A receipt further up that does not list the file is ignored."""
    other = tmp_path / "other"
    other.write_bytes(b"x")
    receipt_for(tmp_path, other)

    assert find_receipt(file) is None


def test_a_receipt_beside_an_unlisted_file_is_refused(file: Path, receipt_for: Write) -> None:
    """A directory receipt beside a file absent from the list is a WrongBytesError."""
    other = file.with_name("other")
    other.write_bytes(b"x")
    receipt_for(file.parent, other)

    with pytest.raises(WrongBytesError, match=r"the receipt .* does not list it"):
        find_receipt(file)


def test_unknown_keys_are_ignored(file: Path, receipt_for: Write) -> None:
    """Keys of later modelfetch versions are ignored."""
    receipt_for(file, news={"a": 1})

    assert find_receipt(file) is not None


def test_an_unknown_schema_is_refused(file: Path, receipt_for: Write) -> None:
    """A receipt of schema 0 is a WrongBytesError."""
    receipt_for(file, schema=0)

    with pytest.raises(WrongBytesError, match="its schema is 0, and this version reads 1"):
        find_receipt(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "files": 3}'])
def test_a_damaged_receipt_is_refused(file: Path, text: str) -> None:
    """An unreadable receipt is a WrongBytesError, and not treated as absent."""
    file.with_name("model.joblib.modelfetch-receipt").write_text(text)

    with pytest.raises(WrongBytesError, match="is damaged"):
        find_receipt(file)


@pytest.mark.parametrize("suffix", [".modelfetch-receipt", ".modelfetch.json"])
def test_a_receipt_that_is_a_file_of_the_model_is_not_believed(
    file: Path, receipt_for: Write, tmp_path: Path, suffix: str
) -> None:
    """The receipt of the published directory counts, not a forged receipt inside the model."""
    forged = receipt_for(file)
    forged = forged.rename(file.with_name(f"{file.name}{suffix}"))
    inside = file.parent / suffix
    inside.write_bytes(forged.read_bytes())
    written = receipt_for(tmp_path, file, forged, inside)

    found = find_receipt(file)

    assert found is not None
    assert found[0].path == written


def test_a_damaged_receipt_far_above_does_not_hide_the_receipt_of_the_file(
    file: Path, receipt_for: Write, tmp_path: Path
) -> None:
    """A receipt of another directory is of no concern."""
    own = receipt_for(file)
    (tmp_path / ".modelfetch-receipt").write_text("{")

    found = find_receipt(file)

    assert found is not None
    assert found[0].path == own


def test_a_receipt_of_a_later_schema_is_read_for_its_files(file: Path, receipt_for: Write) -> None:
    """A rolled-back app still checks the model that a newer init image has published."""
    written = receipt_for(file)
    content = json.loads(written.read_text())
    later = {"schema": 2, "digest": content["digest"], "files": [{**content["files"][0], "blocks": []}]}
    written.write_text(json.dumps(later))

    found = find_receipt(file)

    assert found is not None
    assert (found[0].digest, found[1].sha256) == (content["digest"], content["files"][0]["sha256"])

from collections.abc import Callable
from pathlib import Path

import pytest

from modelserve.errors import WrongBytesError
from modelserve.receipt import find_receipt

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a directory of its own."""
    path = tmp_path / "m" / "model.joblib"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    return path


def test_no_receipt_is_none(file: Path) -> None:
    """A file that nobody fetched has none."""
    assert find_receipt(file) is None


def test_a_files_own_receipt_is_found(file: Path, receipt_for: Write) -> None:
    """Everything a server needs is read."""
    receipt_for(file)

    found = find_receipt(file)

    assert found is not None
    said, entry = found
    assert (3, said.files["model.joblib"]) == (entry.size, entry)
    assert (said.source, said.version) == ("s3://models/m/model.joblib", "3sL4kqtJlcpXroDTDmJ")
    assert (said.bytes, said.seconds, said.finished.isoformat()) == (3, 0.41, "2026-11-21T09:00:01+00:00")


def test_a_directorys_receipt_is_found_from_below(file: Path, receipt_for: Write, tmp_path: Path) -> None:
    """A file in a fetched directory is spoken for by the receipt of the directory, at any depth."""
    written = receipt_for(tmp_path, file)

    found = find_receipt(file)

    assert found is not None
    assert found[0].path == written


def test_the_files_own_receipt_comes_first(file: Path, receipt_for: Write, tmp_path: Path) -> None:
    """Of two receipts, the nearer one speaks."""
    receipt_for(tmp_path, file)
    own = receipt_for(file)

    found = find_receipt(file)

    assert found is not None
    assert found[0].path == own


def test_a_receipt_further_up_that_does_not_list_the_file_says_nothing(
    file: Path, receipt_for: Write, tmp_path: Path
) -> None:
    """A stranger's file below a fetched directory is just a file without a receipt."""
    other = tmp_path / "other"
    other.write_bytes(b"x")
    receipt_for(tmp_path, other)

    assert find_receipt(file) is None


def test_a_receipt_beside_the_file_must_list_it(file: Path, receipt_for: Write) -> None:
    """A file that is not part of what was fetched there is refused."""
    other = file.with_name("other")
    other.write_bytes(b"x")
    receipt_for(file.parent, other)

    with pytest.raises(WrongBytesError, match=r"the receipt .* does not list it"):
        find_receipt(file)


def test_unknown_keys_are_ignored(file: Path, receipt_for: Write) -> None:
    """Later versions may say more."""
    receipt_for(file, news={"a": 1})

    assert find_receipt(file) is not None


def test_another_schema_is_refused(file: Path, receipt_for: Write) -> None:
    """What a later schema means is not guessed."""
    receipt_for(file, schema=2)

    with pytest.raises(WrongBytesError, match="its schema is 2, and this version reads 1"):
        find_receipt(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "files": 3}'])
def test_a_damaged_receipt_is_refused(file: Path, text: str) -> None:
    """A receipt that cannot be read is not the same as none."""
    file.with_name("model.joblib.modelfetch.json").write_text(text)

    with pytest.raises(WrongBytesError, match="is damaged"):
        find_receipt(file)

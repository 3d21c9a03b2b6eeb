import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelserve.engine.repository import ModelSource, find_model_file, load_model
from modelserve.errors import ConfigError, NotFoundError, UnfitError, WrongBytesError

Write = Callable[..., Path]


@pytest.fixture
def copy(iris: Path, tmp_path: Path) -> Path:
    """The iris model, without its receipt, in a directory called `copy`."""
    path = tmp_path / "copy" / "model.joblib"
    path.parent.mkdir()
    shutil.copy(iris, path)
    return path


def test_a_file_is_the_model(tmp_path: Path) -> None:
    """A path to a file is taken, whatever its name."""
    file = tmp_path / "anything"
    file.touch()

    assert file == find_model_file(file)


@pytest.mark.parametrize("name", ["a.joblib", "a.pkl", "a.PICKLE", "model.bin", "a.joblib.gz"])
def test_a_directory_holds_one_model(tmp_path: Path, name: str) -> None:
    """The one candidate is found among receipts, signatures, hidden files and others."""
    beside = (".modelfetch.json", ".model.pkl", "README.md", "mymodel.txt", "model.sig", "model.joblib.sig")
    for other in (name, f"{name}.modelfetch.json", *beside):
        (tmp_path / other).touch()

    assert tmp_path / name == find_model_file(tmp_path)


def test_several_models_are_an_error_that_names_them(tmp_path: Path) -> None:
    """Nobody guesses which one was meant."""
    for name in ("a.joblib", "b.pkl"):
        (tmp_path / name).touch()

    with pytest.raises(ConfigError, match=r"holds several models: a\.joblib, b\.pkl"):
        find_model_file(tmp_path)


def test_a_directory_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    """The message shows what was found in place of a model."""
    (tmp_path / "README.md").touch()

    with pytest.raises(NotFoundError, match=r"only: README\.md"):
        find_model_file(tmp_path)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    """A wrong path is named."""
    with pytest.raises(NotFoundError, match=r"There is no model at .*gone"):
        find_model_file(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_said(copy: Path) -> None:
    """Permissions are named as the cause."""
    copy.chmod(0)

    with pytest.raises(NotFoundError, match="Permission denied"):
        load_model(ModelSource(copy))


def test_the_name_is_the_directorys(iris: Path, copy: Path) -> None:
    """Unless it is given, the model is called as its directory."""
    assert load_model(ModelSource(iris.parent)).name == "iris"
    assert load_model(ModelSource(copy, name="flowers")).name == "flowers"


def test_a_receipt_gives_the_provenance(iris: Path) -> None:
    """Source, version and digest are the receipt's."""
    loaded = load_model(ModelSource(iris))

    assert (loaded.source, loaded.version) == ("s3://models/iris/model.joblib", "3sL4kqtJlcpXroDTDmJ")
    assert loaded.digest == f"sha256:{loaded.sha256}"


def test_in_a_fetched_directory_the_digest_is_the_directorys(copy: Path, receipt_for: Write) -> None:
    """The digest is of all that was published, not of the one file."""
    (copy.parent / "notes.txt").write_text("x")
    receipt_for(copy.parent, copy, copy.with_name("notes.txt"))

    loaded = load_model(ModelSource(copy.parent))

    assert loaded.receipt is not None
    assert loaded.digest == loaded.receipt.digest != f"sha256:{loaded.sha256}"


def test_without_a_receipt_the_version_is_the_digests(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model from nowhere is loaded with a warning, and has no source."""
    loaded = load_model(ModelSource(copy))

    assert (loaded.source, loaded.version) == ("", loaded.sha256[:12])
    assert "has no receipt" in caplog.text


def test_a_required_receipt_must_be_there(copy: Path) -> None:
    """The policy turns the warning into a refusal."""
    with pytest.raises(WrongBytesError, match="has no receipt"):
        load_model(ModelSource(copy, require_receipt=True))


def test_a_flipped_bit_is_refused_with_both_checksums(copy: Path, receipt_for: Write) -> None:
    """The bytes must be those that were fetched; nothing of others is unpickled."""
    receipt_for(copy)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)

    with pytest.raises(WrongBytesError, match=r"has the sha256 [0-9a-f]{64}, and its receipt .* says [0-9a-f]{64}"):
        load_model(ModelSource(copy))


def test_another_size_is_refused_with_both_sizes(copy: Path, receipt_for: Write) -> None:
    """A cut file is told by its size."""
    receipt_for(copy)
    size = copy.stat().st_size
    os.truncate(copy, 100)

    with pytest.raises(WrongBytesError, match=rf"has 100 bytes, and its receipt .* says {size}"):
        load_model(ModelSource(copy))


def test_a_format_without_a_runtime_is_named(tmp_path: Path) -> None:
    """Other formats are told apart from broken pickles."""
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07")

    with pytest.raises(UnfitError, match=r"no runtime for \.onnx files"):
        load_model(ModelSource(tmp_path))

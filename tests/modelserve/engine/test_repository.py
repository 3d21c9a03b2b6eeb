import os
import shutil
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest
from sklearn.dummy import DummyClassifier

from modelserve.engine import repository
from modelserve.engine.repository import LoadedModel, ModelRepository, ModelSource, find_model_file, load_model
from modelserve.errors import ConfigError, NotFoundError, UnfitError, WrongBytesError
from modelserve.metrics import Metrics

Write = Callable[..., Path]


@pytest.fixture
def copy(iris: Path, tmp_path: Path) -> Path:
    """Copy of the iris model without a receipt, in a directory called `copy`."""
    path = tmp_path / "copy" / "model.joblib"
    path.parent.mkdir()
    shutil.copy(iris, path)
    return path


def test_a_path_to_a_file_is_the_model(tmp_path: Path) -> None:
    """A path to a file is accepted regardless of the file name."""
    file = tmp_path / "anything"
    file.touch()

    assert file == find_model_file(file)


@pytest.mark.parametrize("name", ["a.joblib", "a.pkl", "a.PICKLE", "model.bin", "a.joblib.gz"])
def test_the_single_candidate_of_a_directory_is_found(tmp_path: Path, name: str) -> None:
    """The candidate is found among receipts, signatures, hidden and unrelated files."""
    beside = (".modelfetch-receipt", ".model.pkl", "README.md", "mymodel.txt", "model.sig", "model.joblib.sig")
    for other in (name, f"{name}.modelfetch-receipt", *beside):
        (tmp_path / other).touch()

    assert tmp_path / name == find_model_file(tmp_path)


def test_several_candidates_are_a_config_error(tmp_path: Path) -> None:
    """Several candidates are a ConfigError with the file names."""
    for name in ("a.joblib", "b.pkl"):
        (tmp_path / name).touch()

    with pytest.raises(ConfigError, match=r"holds several models: a\.joblib, b\.pkl"):
        find_model_file(tmp_path)


def test_a_directory_without_a_model_is_not_found(tmp_path: Path) -> None:
    """The NotFoundError lists the supported names and the files of the directory."""
    (tmp_path / "README.md").touch()

    with pytest.raises(NotFoundError, match=r"only: README\.md"):
        find_model_file(tmp_path)


def test_a_missing_path_is_not_found(tmp_path: Path) -> None:
    """A missing path is a NotFoundError with the path."""
    with pytest.raises(NotFoundError, match=r"There is no model at .*gone"):
        find_model_file(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_not_found(copy: Path) -> None:
    """A file without read permission is a NotFoundError with the cause."""
    copy.chmod(0)

    with pytest.raises(NotFoundError, match="Permission denied"):
        load_model(ModelSource(copy))


def test_the_default_name_is_the_directory_name(iris: Path, copy: Path) -> None:
    """Without a configured name the model has the name of the directory."""
    assert load_model(ModelSource(iris.parent)).name == "iris"
    assert load_model(ModelSource(copy, name="flowers")).name == "flowers"


def test_source_version_and_digest_come_from_the_receipt(iris: Path) -> None:
    """A model with a receipt has source, version and digest of the receipt."""
    loaded = load_model(ModelSource(iris))

    assert (loaded.source, loaded.version) == ("s3://models/iris/model.joblib", "3sL4kqtJlcpXroDTDmJ")
    assert loaded.digest == f"sha256:{loaded.sha256}"


def test_the_digest_of_a_fetched_directory_covers_the_directory(copy: Path, receipt_for: Write) -> None:
    """With a directory receipt the digest is the directory digest, not the sha256 of the file."""
    (copy.parent / "notes.txt").write_text("x")
    receipt_for(copy.parent, copy, copy.with_name("notes.txt"))

    loaded = load_model(ModelSource(copy.parent))

    assert loaded.receipt is not None
    assert loaded.digest == loaded.receipt.digest != f"sha256:{loaded.sha256}"


def test_without_a_receipt_the_version_is_the_digest_prefix(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model without a receipt is loaded with a warning, without a source."""
    loaded = load_model(ModelSource(copy))

    assert (loaded.source, loaded.version) == ("", loaded.sha256[:12])
    assert "has no receipt" in caplog.text


def test_a_missing_required_receipt_is_refused(copy: Path) -> None:
    """With require_receipt a model without a receipt is a WrongBytesError."""
    with pytest.raises(WrongBytesError, match="has no receipt"):
        load_model(ModelSource(copy, require_receipt=True))


def test_a_flipped_bit_is_refused_with_both_checksums(copy: Path, receipt_for: Write) -> None:
    """A sha256 mismatch is refused before unpickling; the message has both checksums."""
    receipt_for(copy)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)

    with pytest.raises(WrongBytesError, match=r"has the sha256 [0-9a-f]{64}, and its receipt .* says [0-9a-f]{64}"):
        load_model(ModelSource(copy))


def test_a_truncated_file_is_refused_with_both_sizes(copy: Path, receipt_for: Write) -> None:
    """A size mismatch is refused; the message has both sizes."""
    receipt_for(copy)
    size = copy.stat().st_size
    os.truncate(copy, 100)

    with pytest.raises(WrongBytesError, match=rf"has 100 bytes, and its receipt .* says {size}"):
        load_model(ModelSource(copy))


def test_a_format_without_a_runtime_is_unfit(tmp_path: Path) -> None:
    """A known format without a runtime is an UnfitError, not a broken pickle."""
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07")

    with pytest.raises(UnfitError, match=r"no runtime for \.onnx files"):
        load_model(ModelSource(tmp_path))


@pytest.fixture
def versions(tmp_path: Path, receipt_for: Write) -> Path:
    """Directories `v1` and `v2`, each with a model and a directory receipt, and the link `current` to `v1`."""
    for version in ("v1", "v2"):
        file = tmp_path / version / "model.joblib"
        file.parent.mkdir()
        joblib.dump(DummyClassifier(strategy="constant", constant=version).fit([[0.0]], [version]), file)
        receipt_for(file.parent, file, version=version)
    (tmp_path / "current").symlink_to("v1")
    return tmp_path


def swap_link(versions: Path) -> None:
    """Point `current` to `v2`, atomically."""
    (versions / "next").symlink_to("v2")
    (versions / "next").replace(versions / "current")


def predict_version(model: LoadedModel) -> object:
    """Return the version that the model predicts."""
    return model.runtime.predict([[0.0]])[0]


@pytest.mark.parametrize("path", ["current", "current/model.joblib"])
@pytest.mark.parametrize("step", ["find_model_file", "find_receipt", "_read_file"])
def test_receipt_and_file_are_of_one_version_across_a_link_swap(
    versions: Path, monkeypatch: pytest.MonkeyPatch, path: str, step: str
) -> None:
    """If the link moves to the next version during a load, the load still ends with the first version."""
    original = getattr(repository, step)

    def run_step_then_swap(*arguments: object) -> object:
        result = original(*arguments)
        swap_link(versions)
        return result

    monkeypatch.setattr(repository, step, run_step_then_swap)
    first = load_model(ModelSource(versions / path))
    monkeypatch.undo()
    second = load_model(ModelSource(versions / path))

    assert (first.version, predict_version(first), first.file) == ("v1", "v1", versions / "v1" / "model.joblib")
    assert (second.version, predict_version(second), second.file) == ("v2", "v2", versions / "v2" / "model.joblib")
    assert (first.name, second.name) == ("current", "current")


def test_a_link_to_a_file_uses_the_receipt_beside_the_link(versions: Path, receipt_for: Write) -> None:
    """A link to a model file with a receipt beside the link is loaded under the name of the link."""
    link = versions / "linked.joblib"
    link.symlink_to("v1/model.joblib")
    receipt_for(link, version="beside")

    loaded = load_model(ModelSource(link, require_receipt=True))

    assert (loaded.version, loaded.file) == ("beside", link)


def test_a_link_to_a_file_uses_the_receipt_beside_the_target(versions: Path) -> None:
    """A link to a model file without a receipt is resolved, and the receipt of the target is used."""
    link = versions / "linked.joblib"
    link.symlink_to("v2/model.joblib")

    loaded = load_model(ModelSource(link, require_receipt=True))

    assert (loaded.version, loaded.file) == ("v2", versions / "v2" / "model.joblib")


@pytest.mark.parametrize("path", ["loop", "loop/model.joblib"])
def test_a_circular_link_is_not_found(tmp_path: Path, path: str) -> None:
    """A circular link in MODEL_PATH is a NotFoundError, as a missing file."""
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(NotFoundError):
        load_model(ModelSource(tmp_path / path))


def test_a_repository_loads_again_in_one_process(versions: Path) -> None:
    """A second load in one process replaces model and metrics, and does not raise DuplicateTimeseries."""
    metrics = Metrics()
    models = ModelRepository(ModelSource(versions / "current"), metrics)

    models._load_model()
    first = models.model
    swap_link(versions)
    models._load_model()
    second = models.model

    assert models.failure is None
    assert first is not None
    assert second is not None
    assert (first.version, second.version) == ("v1", "v2")
    assert metrics.render_metrics("")[0].decode().count("modelserve_model_info{") == 1

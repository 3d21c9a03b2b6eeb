from pathlib import Path

import pytest

from modelserve import runtimes
from modelserve.errors import UnfitError
from modelserve.runtimes import MODEL_GLOBS, RUNTIMES, ModelLoader, is_model_name, load_model


@pytest.mark.parametrize(
    "name", ["a.joblib", "a.PKL", "a.b.pickle", "a.joblib.gz", "a.pkl.lz4", "model.onnx", "MODEL.bin", "model.joblib.z"]
)
def test_names_with_a_registered_suffix_or_the_stem_model_are_models(name: str) -> None:
    """Registered suffixes, compressed or not, and the stem `model` mark a model file, in every case."""
    assert is_model_name(name)


@pytest.mark.parametrize("name", ["joblib", ".joblib", "a.joblib.zip", "a.json", "model", "mymodel.txt", "a.pkl.gz.gz"])
def test_other_names_are_not_models(name: str) -> None:
    """Unregistered suffixes, bare suffixes and doubly compressed files are not model files."""
    assert not is_model_name(name)


def test_the_globs_list_every_registered_suffix() -> None:
    """The message about a missing model lists the suffixes of the registry."""
    assert MODEL_GLOBS == ("*.joblib", "*.pkl", "*.pickle", "model.*")


def test_a_format_without_a_runtime_is_unfit_with_the_supported_formats() -> None:
    """The error names the suffix; the hint lists the formats of the registry."""
    with pytest.raises(UnfitError, match=r"^a\.ONNX: no runtime for \.ONNX files\.$") as refused:
        load_model(Path("a.ONNX"), b"", allow_version_mismatch=False)

    assert refused.value.hint == "This app serves joblib and pickle files."


def test_a_missing_library_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library of the runtime the error names the library to install."""

    def import_missing() -> ModelLoader:
        raise ModuleNotFoundError(name="sklearn")

    monkeypatch.setattr(runtimes, "DEFAULT_RUNTIME", RUNTIMES[0]._replace(import_loader=import_missing))

    with pytest.raises(UnfitError, match=r"The scikit-learn runtime needs sklearn\."):
        load_model(Path("anything"), b"", allow_version_mismatch=False)

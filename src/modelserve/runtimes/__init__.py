"""What turns the bytes of a model into predictions: one module for each library, imported only when it is needed."""

from pathlib import Path

from modelserve.errors import UnfitError
from modelserve.runtimes.base import Runtime

_FOREIGN = frozenset(
    {".onnx", ".skops", ".pt", ".pth", ".safetensors", ".h5", ".keras", ".tflite", ".json", ".ubj", ".cbm", ".pmml"}
)


def load(file: Path, data: bytes, *, allow_version_mismatch: bool) -> Runtime:
    """Load `data`, the content of `file`, with the runtime that its name calls for.

    Raises:
        StartError: no runtime takes it, or the one that does cannot load it.
    """
    if file.suffix.lower() in _FOREIGN:
        raise UnfitError(
            f"{file.name}: no runtime for {file.suffix} files.", hint="This app serves joblib and pickle files."
        )
    try:
        from modelserve.runtimes import sklearn  # noqa: PLC0415  seconds of imports, and not every image has it
    except ModuleNotFoundError as error:
        raise UnfitError(f"The scikit-learn runtime needs {error.name}.", hint="Install it in the image.") from error
    return sklearn.load(data, file.name, allow_version_mismatch=allow_version_mismatch)

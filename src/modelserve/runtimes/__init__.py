"""Runtimes turn the bytes of a model into predictions: one module per library, imported only on first use.

`RUNTIMES` is the only list of supported formats. To add a runtime: write a module with a `ModelLoader`, and add a
`RuntimeSpec` here.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from modelserve.errors import UnfitError
from modelserve.runtimes.base import Runtime


class ModelLoader(Protocol):
    """Loader of a runtime: the content of a file, and the file's name for messages."""

    def __call__(self, data: bytes, name: str, *, allow_version_mismatch: bool) -> Runtime:
        """Load the model.

        Raises:
            StartError: the model is damaged, or unfit for this environment.
        """


class RuntimeSpec(NamedTuple):
    """Registry entry of a runtime.

    Attributes:
        library: name of the library in messages.
        formats: formats of the runtime, for messages.
        suffixes: file name suffixes, lower case, with the dot.
        compression_suffixes: optional second suffixes of compressed files.
        import_loader: import the library, and return the loader; raises ModuleNotFoundError without the library.
    """

    library: str
    formats: str
    suffixes: tuple[str, ...]
    compression_suffixes: tuple[str, ...]
    import_loader: Callable[[], ModelLoader]


def _import_sklearn() -> ModelLoader:
    from modelserve.runtimes import sklearn  # noqa: PLC0415  seconds of imports, and not every image has the library

    return sklearn.load_model


_SKLEARN = RuntimeSpec(
    library="scikit-learn",
    formats="joblib and pickle",
    suffixes=(".joblib", ".pkl", ".pickle"),
    compression_suffixes=(".gz", ".z", ".bz2", ".xz", ".lzma", ".lz4"),
    import_loader=_import_sklearn,
)
RUNTIMES = (_SKLEARN,)
DEFAULT_RUNTIME = _SKLEARN  # for a file with an unknown suffix
_UNSUPPORTED_SUFFIXES = frozenset(
    {".onnx", ".skops", ".pt", ".pth", ".safetensors", ".h5", ".keras", ".tflite", ".json", ".ubj", ".cbm", ".pmml"}
)


def _compile_model_names() -> re.Pattern[str]:
    """Compile the pattern of model file names: a supported suffix, maybe compressed, or the stem `model`."""
    endings = [
        f"{_join_suffixes(spec.suffixes)}({_join_suffixes(spec.compression_suffixes)})?"
        if spec.compression_suffixes
        else _join_suffixes(spec.suffixes)
        for spec in RUNTIMES
    ]
    return re.compile(rf".+({'|'.join(endings)})|model\..+", re.IGNORECASE)


def _join_suffixes(suffixes: tuple[str, ...]) -> str:
    return "(" + "|".join(map(re.escape, suffixes)) + ")"


_MODEL_NAME = _compile_model_names()
MODEL_GLOBS = (*(f"*{suffix}" for spec in RUNTIMES for suffix in spec.suffixes), "model.*")


def is_model_name(name: str) -> bool:
    """Return whether a file of this name, found in a directory, may be the model."""
    return _MODEL_NAME.fullmatch(name) is not None


def load_model(file: Path, data: bytes, *, allow_version_mismatch: bool) -> Runtime:
    """Load `data`, the content of `file`, with the runtime registered for the file's suffix.

    Raises:
        StartError: no runtime supports the format, or the runtime cannot load the data.
    """
    spec = _select_runtime(file)
    try:
        loader = spec.import_loader()
    except ModuleNotFoundError as error:
        raise UnfitError(f"The {spec.library} runtime needs {error.name}.", hint="Install it in the image.") from error
    return loader(data, file.name, allow_version_mismatch=allow_version_mismatch)


def _select_runtime(file: Path) -> RuntimeSpec:
    suffix = file.suffix.lower()
    if suffix in _UNSUPPORTED_SUFFIXES:
        formats = ", ".join(spec.formats for spec in RUNTIMES)
        raise UnfitError(f"{file.name}: no runtime for {file.suffix} files.", hint=f"This app serves {formats} files.")
    return next((spec for spec in RUNTIMES if suffix in spec.suffixes), DEFAULT_RUNTIME)

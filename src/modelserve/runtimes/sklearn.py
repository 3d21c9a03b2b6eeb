"""scikit-learn models and pipelines, and what looks like one, from joblib or pickle files."""

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from modelserve.errors import RequestError, UnfitError, WrongBytesError
from modelserve.runtimes.base import Inputs, Table
from modelserve.runtimes.sklearn_inputs import describe, parts, wants_frame

log = logging.getLogger(__name__)
_ABOUT_NULLS = re.compile(r"\bNaN\b|missing values")
_NAME = f"scikit-learn {sklearn.__version__}"


def load(data: bytes, name: str, *, allow_version_mismatch: bool) -> "SklearnModel":
    """Unpickle a model and prepare it for serving; `name` is the file's, for messages.

    Raises:
        WrongBytesError: the bytes are no pickle, or no model.
        UnfitError: a module, a class or a version is missing here.
    """
    model = _unpickle(data, name, allow_version_mismatch=allow_version_mismatch)
    if not callable(getattr(model, "predict", None)):
        raise WrongBytesError(
            f"{name} holds a {type(model).__name__}, which has no predict.",
            hint="Save the fitted estimator or pipeline itself.",
        )
    _check_fitted(model, name)
    for part in parts(model):
        # One request is too small to share out: starting threads costs more than it saves.
        if getattr(part, "n_jobs", None) not in (None, 1):
            part.n_jobs = 1
    return SklearnModel(model)


def _unpickle(data: bytes, name: str, *, allow_version_mismatch: bool) -> Any:  # noqa: ANN401  a pickle holds anything
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if not allow_version_mismatch:
                warnings.simplefilter("error", InconsistentVersionWarning)
            model = joblib.load(io.BytesIO(data))
    except InconsistentVersionWarning as warning:
        raise UnfitError(
            f"{name} was saved by scikit-learn {warning.original_sklearn_version}, and this is {sklearn.__version__}.",
            hint="Use that version in the image or train anew; MODELSERVE_ALLOW_VERSION_MISMATCH=true loads it anyway.",
        ) from warning
    except ModuleNotFoundError as error:
        raise _missing(name, error.name or "?") from error
    except (AttributeError, ImportError) as error:
        raise UnfitError(
            f"{name} needs something that is not here: {first_line(error)}.",
            hint=f"Its classes must be importable, at the versions it was saved with; this is {_NAME}.",
        ) from error
    except Exception as error:
        raise WrongBytesError(
            f"{name} cannot be unpickled: {type(error).__name__}: {first_line(error)}.",
            hint=f"Is it a whole joblib or pickle file, saved with versions like these ({_NAME})?",
        ) from error
    for text in dict.fromkeys(str(w.message) for w in caught):
        log.warning("%s: %s", name, " ".join(text.split()))
    return model


def _missing(name: str, module: str) -> UnfitError:
    """A module that is not here: a library to install, or one that is here in another version."""
    library = module.partition(".")[0]
    there = library != module and importlib.util.find_spec(library) is not None
    hint = f"Install the version of {library} that it was saved with." if there else f"Install {library} in the image."
    return UnfitError(f"{name} needs the module {module}, which is not here.", hint=hint)


def _check_fitted(model: Any, name: str) -> None:  # noqa: ANN401
    # Others' estimators need not keep scikit-learn's convention of trailing underscores.
    if not type(model).__module__.startswith("sklearn."):
        return
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise WrongBytesError(
            f"{name} holds a {type(model).__name__} that was never fitted.", hint="Fit it before saving it."
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]


class SklearnModel:
    """A fitted estimator with `predict`, as the protocol `Runtime` has it."""

    library = _NAME

    def __init__(self, model: Any) -> None:  # noqa: ANN401  scikit-learn ships no types
        self._model = model
        self.kind = type(model).__name__
        self.inputs = describe(model)
        self.has_proba = hasattr(model, "predict_proba")
        classes = getattr(model, "classes_", None)
        self.classes = None if classes is None else plain(classes)
        self._frame = wants_frame(model) if self.inputs.names else None
        if self._frame is None:
            # Columns are put in order by us; scikit-learn would warn at each request that an array has no names.
            for part in parts(model):
                vars(part).pop("feature_names_in_", None)

    def predict(self, table: Table) -> Sequence[object]:
        """See `Runtime.predict`."""
        return plain(self._call("predict", table))

    def predict_proba(self, table: Table) -> Sequence[object]:
        """See `Runtime.predict_proba`."""
        return plain(self._call("predict_proba", table))

    def _call(self, method: str, table: Table) -> Any:  # noqa: ANN401
        data = self._matrix(table)
        # A plain matrix of numbers is what every estimator takes: then only a ValueError is about the data.
        numbers = isinstance(data, np.ndarray) and data.dtype == np.float64
        refusals = ValueError if numbers else (ValueError, TypeError, AttributeError)
        try:
            with np.errstate(all="ignore"):  # a client's odd numbers are no news for the log
                return getattr(self._model, method)(data)
        except refusals as error:
            raise RequestError(_refusal(error, table, self.inputs)) from error

    def _matrix(self, table: Table) -> Any:  # noqa: ANN401
        """The table as the model wants it: strings, a data frame, or an array, of numbers if it holds nothing else."""
        if self.inputs.text:
            return [row[0] for row in table]
        if self._frame is not None:
            columns = zip(*table, strict=True)
            assert self.inputs.columns
            return self._frame(
                {c.name: _series(list(v), c.kind) for c, v in zip(self.inputs.columns, columns, strict=True)}
            )
        if all(isinstance(cell, (int, float, type(None))) for row in table for cell in row):
            return np.array(table, dtype=np.float64)
        return np.array(table, dtype=object)


def _series(values: list[Any], kind: str) -> Any:  # noqa: ANN401
    """A column of a data frame: whole numbers stay whole as they do when pandas reads a file; null is NaN."""
    if kind != "number":
        return values
    whole = all(type(v) is int and -(2**63) <= v < 2**63 for v in values)
    return np.array(values, dtype=np.int64 if whole else np.float64)


def _refusal(error: Exception, table: Table, inputs: Inputs) -> str:
    message = first_line(error)
    names, unused = inputs.names, {j for j, c in enumerate(inputs.columns or ()) if c.kind == "unused"}
    if _ABOUT_NULLS.search(message):
        for i, row in enumerate(table):
            for j, cell in enumerate(row):
                if cell is None and j not in unused:
                    where = f"column {names[j]!r}" if names else f"column {j}"
                    return f"row {i}, {where} is null, and the model takes no missing values: {message}"
    return f"the model refuses these rows: {message}"


def plain(values: Any) -> list[Any]:  # noqa: ANN401  labels are of any type
    """Arrays, scalars and lists of them as lists of plain values; NaN and infinities, which JSON lacks, are None."""
    if hasattr(values, "toarray"):  # the sparse answer of some multi-label classifiers
        values = values.toarray()
    if isinstance(values, (list, tuple)) and any(isinstance(v, np.ndarray) for v in values):
        return [plain(v) for v in values]  # one array for each output
    array = np.asarray(values)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        array = array.astype(object)  # _item puts None in place of what is not finite
    if array.dtype == object:
        return [_item(v) for v in array.tolist()]
    return array.tolist() if array.ndim else [array.item()]


def _item(value: Any) -> Any:  # noqa: ANN401
    """A member of an array of objects, which may be an array or a scalar of numpy."""
    if isinstance(value, (list, np.ndarray)):
        return plain(value)
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value

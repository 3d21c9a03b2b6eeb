"""scikit-learn runtime: estimators and pipelines, and compatible classes, from joblib or pickle files."""

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
from modelserve.runtimes.signature import ColumnKind, InputSignature, Table
from modelserve.runtimes.sklearn_signature import infer_signature, iter_estimators, select_frame_class

log = logging.getLogger(__name__)
_NULL_MESSAGE = re.compile(r"\bNaN\b|missing values")
_LIBRARY = f"scikit-learn {sklearn.__version__}"


def load_model(data: bytes, name: str, *, allow_version_mismatch: bool) -> "SklearnModel":
    """Unpickle a model and prepare the estimator for serving; `name` is the file name, for messages.

    Raises:
        WrongBytesError: the bytes are not a pickle, or not a model.
        UnfitError: this environment lacks a module, a class or a version.
    """
    model = _unpickle_model(data, name, allow_version_mismatch=allow_version_mismatch)
    if not callable(getattr(model, "predict", None)):
        raise WrongBytesError(
            f"{name} holds a {type(model).__name__}, which has no predict.",
            hint="Save the fitted estimator or pipeline itself.",
        )
    _check_fitted(model, name)
    for estimator in iter_estimators(model):
        # A single request is too small for parallel work: starting threads costs more than they save.
        if getattr(estimator, "n_jobs", None) not in (None, 1):
            estimator.n_jobs = 1
    return SklearnModel(model)


def _unpickle_model(data: bytes, name: str, *, allow_version_mismatch: bool) -> Any:  # noqa: ANN401  a pickle may hold a value of every type
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
        raise _explain_missing_module(name, error.name or "?") from error
    except (AttributeError, ImportError) as error:
        raise UnfitError(
            f"{name} needs something that is not here: {get_first_line(error)}.",
            hint=f"Its classes must be importable, at the versions it was saved with; this is {_LIBRARY}.",
        ) from error
    except Exception as error:
        raise WrongBytesError(
            f"{name} cannot be unpickled: {type(error).__name__}: {get_first_line(error)}.",
            hint=f"Is it a whole joblib or pickle file, saved with versions like these ({_LIBRARY})?",
        ) from error
    for text in dict.fromkeys(str(w.message) for w in caught):
        log.warning("%s: %s", name, " ".join(text.split()))
    return model


def _explain_missing_module(name: str, module: str) -> UnfitError:
    """Tell a library that is not installed from a library of a different version."""
    library = module.partition(".")[0]
    installed = library != module and importlib.util.find_spec(library) is not None
    hint = f"Install {library} in the image."
    if installed:
        hint = f"Install the version of {library} that it was saved with."
    return UnfitError(f"{name} needs the module {module}, which is not here.", hint=hint)


def _check_fitted(model: Any, name: str) -> None:  # noqa: ANN401
    # Third-party estimators may not follow scikit-learn's convention of trailing underscores.
    if not type(model).__module__.startswith("sklearn."):
        return
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise WrongBytesError(
            f"{name} holds a {type(model).__name__} that was never fitted.", hint="Fit it before saving it."
        ) from error


def get_first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without the full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]


class SklearnModel:
    """Runtime of a fitted estimator."""

    library = _LIBRARY

    def __init__(self, model: Any) -> None:  # noqa: ANN401  scikit-learn ships no types
        self._model = model
        self.class_name = type(model).__name__
        self.signature = infer_signature(model)
        self.has_probabilities = hasattr(model, "predict_proba")
        classes = getattr(model, "classes_", None)
        self.classes = None if classes is None else to_plain_values(classes)
        self._frame_class = select_frame_class(model) if self.signature.names else None
        if self._frame_class is None:
            # The codec orders the columns; scikit-learn would warn on every request about an array without names.
            for estimator in iter_estimators(model):
                vars(estimator).pop("feature_names_in_", None)

    def predict(self, table: Table) -> Sequence[object]:
        """Implement `Runtime.predict` for an estimator."""
        return to_plain_values(self._call_estimator("predict", table))

    def predict_probabilities(self, table: Table) -> Sequence[object]:
        """Implement `Runtime.predict_probabilities` with the estimator's `predict_proba`."""
        return to_plain_values(self._call_estimator("predict_proba", table))

    def _call_estimator(self, method: str, table: Table) -> Any:  # noqa: ANN401
        data = self._to_input(table)
        # Every estimator accepts a plain matrix of numbers: then only a ValueError concerns the data.
        numbers = isinstance(data, np.ndarray) and data.dtype == np.float64
        refusals = ValueError if numbers else (ValueError, TypeError, AttributeError)
        try:
            with np.errstate(all="ignore"):  # extreme numbers of a client do not belong in the log
                return getattr(self._model, method)(data)
        except refusals as error:
            raise RequestError(_explain_refusal(error, table, self.signature)) from error

    def _to_input(self, table: Table) -> Any:  # noqa: ANN401
        """Convert the table to strings, to a data frame, or to an array: float64 if every cell is a number or null."""
        if self.signature.text:
            return [row[0] for row in table]
        if self._frame_class is not None:
            cells = zip(*table, strict=True)
            assert self.signature.columns
            return self._frame_class(
                {c.name: _to_series(list(v), c.kind) for c, v in zip(self.signature.columns, cells, strict=True)}
            )
        if all(isinstance(cell, (int, float, type(None))) for row in table for cell in row):
            return np.array(table, dtype=np.float64)
        return np.array(table, dtype=object)


def _to_series(values: list[Any], kind: ColumnKind) -> Any:  # noqa: ANN401
    """Build a data frame column: whole numbers stay integers, as in pandas' file readers; null becomes NaN."""
    if kind != "number":
        return values
    whole = all(type(v) is int and -(2**63) <= v < 2**63 for v in values)
    return np.array(values, dtype=np.int64 if whole else np.float64)


def _explain_refusal(error: Exception, table: Table, signature: InputSignature) -> str:
    message = get_first_line(error)
    names, unused = signature.names, {j for j, c in enumerate(signature.columns or ()) if c.kind == "unused"}
    if _NULL_MESSAGE.search(message):
        for i, row in enumerate(table):
            for j, cell in enumerate(row):
                if cell is None and j not in unused:
                    where = f"column {names[j]!r}" if names else f"column {j}"
                    return f"row {i}, {where} is null, and the model takes no missing values: {message}"
    return f"the model refuses these rows: {message}"


def to_plain_values(values: Any) -> list[Any]:  # noqa: ANN401  labels may have every type
    """Convert arrays, scalars and lists of arrays to plain lists; NaN and infinity, unknown to JSON, become None."""
    if hasattr(values, "toarray"):  # multi-label classifiers may return a sparse matrix
        values = values.toarray()
    if isinstance(values, (list, tuple)) and any(isinstance(v, np.ndarray) for v in values):
        return [to_plain_values(v) for v in values]  # one array per output
    array = np.asarray(values)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        array = array.astype(object)  # _to_plain_value replaces non-finite floats by None
    if array.dtype == object:
        return [_to_plain_value(v) for v in array.tolist()]
    return array.tolist() if array.ndim else [array.item()]


def _to_plain_value(value: Any) -> Any:  # noqa: ANN401
    """Convert a member of an object array: a nested array, a numpy scalar or a plain value."""
    if isinstance(value, (list, np.ndarray)):
        return to_plain_values(value)
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value

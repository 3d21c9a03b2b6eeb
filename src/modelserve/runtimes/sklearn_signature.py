"""Input signature of a scikit-learn estimator, inferred from fitted attributes.

Column names and number of columns are attributes. Whether a column accepts strings has no attribute: the answer follows
from the first transformer that reads the column. If the transformer's input type is unknown (a FunctionTransformer, a
custom class), the check is left to the model.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from modelserve.errors import UnfitError
from modelserve.runtimes.signature import Column, ColumnKind, InputSignature

_NUMERIC_LIBRARIES = ("sklearn.", "xgboost.", "lightgbm.")  # estimators accept numbers only, unless tagged


def infer_signature(model: Any) -> InputSignature:  # noqa: ANN401
    """Infer the rows accepted by a fitted model."""
    first, following = _find_first_estimator(model)
    if _has_input_tag(first, "string"):
        return InputSignature(columns=None, text=True)
    names = _get_attribute(model, first, "feature_names_in_")
    count = len(names) if names is not None else _get_attribute(model, first, "n_features_in_")
    if count is None:
        return InputSignature(columns=None, default_kind=_describe_column(first, 0).kind)
    names = [str(n) for n in names] if names is not None else []
    if isinstance(first, ColumnTransformer):
        columns = _describe_routed_columns(first, following, names, count)
    else:
        columns = [_describe_column(first, i) for i in range(count)]
    if names:
        columns = [replace(c, name=n) for n, c in zip(names, columns, strict=True)]
    return InputSignature(tuple(columns))


def _get_attribute(model: Any, first: Any, name: str) -> Any:  # noqa: ANN401
    """Return an attribute of the model, or of the first estimator if the pipeline begins with `passthrough`."""
    value = getattr(model, name, None)
    return value if value is not None else getattr(first, name, None)


def _find_first_estimator(model: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return the first estimator that checks the rows, in pipelines and searches, and the estimator after it."""
    following = None
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, Pipeline):
            steps = [step for _, step in model.steps if not _passes_through(step)]
            model, following = (*steps, following, None)[:2]
        else:
            return model, following


def _passes_through(step: Any) -> bool:  # noqa: ANN401
    """Return whether a step accepts strings and numbers alike: `passthrough`, or an imputer for both types."""
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return True
    if isinstance(step, FunctionTransformer):
        return step.func is None
    return isinstance(step, SimpleImputer) and step.strategy in ("most_frequent", "constant")


def _has_input_tag(estimator: Any, name: str) -> bool:  # noqa: ANN401
    """Return an input tag of the estimator; False for a class without tags."""
    if not isinstance(estimator, BaseEstimator):
        return False
    return bool(getattr(get_tags(estimator).input_tags, name, False))


def _describe_column(estimator: Any, index: int) -> Column:  # noqa: ANN401
    """Describe the column at `index` of the estimator's input."""
    categories = getattr(estimator, "categories_", None)
    if categories is None or index >= len(categories) or not len(categories[index]):
        return Column(kind="any" if _accepts_strings(estimator) else "number")
    example = np.asarray(categories[index])[:1].tolist()[0]
    kind: ColumnKind = "number" if np.asarray(categories[index]).dtype.kind in "iuf" else "any"
    return Column(kind=kind, example=example if isinstance(example, str | int) or example in categories[index] else 0)


def _accepts_strings(estimator: Any) -> bool:  # noqa: ANN401
    """Return whether the estimator, or a nested estimator, may accept values besides numbers."""
    return any(
        _has_input_tag(part, "categorical")
        or _has_input_tag(part, "string")
        or isinstance(part, FunctionTransformer)
        or not type(part).__module__.startswith(_NUMERIC_LIBRARIES)
        for part in (*iter_estimators(estimator), estimator)
    )


def _describe_routed_columns(
    router: ColumnTransformer,
    following: Any,  # noqa: ANN401
    names: list[str],
    count: int,
) -> list[Column]:
    """Describe the columns of a ColumnTransformer: numbers, if a transformer that reads the column requires numbers."""
    columns: list[Column | None] = [None] * count
    for _, transformer, selected in router.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        first = following if _passes_through(transformer) else _find_first_estimator(transformer)[0]
        for position, index in enumerate(_resolve_selection(selected, names, count)):
            column, known = _describe_column(first, position), columns[index]
            columns[index] = column if known is None or column.kind == "number" else known
    return [column or Column(kind="unused", example=None) for column in columns]


def _resolve_selection(selected: Any, names: list[str], count: int) -> list[int]:  # noqa: ANN401
    """Resolve the column selection of a fitted ColumnTransformer to column indexes."""
    if isinstance(selected, slice):
        start, stop = selected.start, selected.stop
        if isinstance(stop, str):  # a slice by name includes the end
            stop = names.index(stop) + 1
        return list(range(count))[slice(names.index(start) if isinstance(start, str) else start, stop, selected.step)]
    listed = np.atleast_1d(np.asarray(selected))
    if listed.dtype.kind == "b":
        return [int(i) for i in np.flatnonzero(listed)]
    return [range(count)[int(s)] if listed.dtype.kind in "iu" else names.index(str(s)) for s in listed]


def iter_estimators(model: Any) -> Iterator[Any]:  # noqa: ANN401
    """Iterate over the model and the nested estimators, fitted estimators included, each once."""
    seen: set[int] = set()
    pending = [model]
    while pending:
        item = pending.pop()
        if isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, Mapping):
            pending.extend(item.values())
        elif hasattr(item, "get_params") and hasattr(item, "__dict__") and id(item) not in seen:
            seen.add(id(item))
            pending.extend(vars(item).values())
            yield item


def select_frame_class(model: Any) -> Callable[[dict[str, Any]], Any] | None:  # noqa: ANN401
    """Return the data frame class for a model that may select columns by name; None if an array is enough.

    Raises:
        UnfitError: the model selects columns by name, and pandas is not installed.
    """
    estimators = list(iter_estimators(model))
    routed = any(isinstance(e, ColumnTransformer) for e in estimators)
    if not routed and all(
        type(e).__module__.startswith("sklearn.") and not isinstance(e, FunctionTransformer) for e in estimators
    ):
        return None
    try:
        import pandas as pd  # noqa: PLC0415  a second of imports, unneeded by most models
    except ModuleNotFoundError as error:
        if routed:
            raise UnfitError(
                "The model picks its columns by name, which takes pandas.", hint="Install it in the image."
            ) from error
        return None
    frame: Callable[[dict[str, Any]], Any] = pd.DataFrame
    return frame

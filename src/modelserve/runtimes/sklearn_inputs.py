"""What scikit-learn's estimators say, and do not say, about the rows they take.

Names and number of columns are attributes. Whether a column takes strings is written nowhere: it follows from the first
transformer that touches the column. Where that is unknown (a FunctionTransformer, somebody's own class) the model is
left to judge.
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
from modelserve.runtimes.base import Column, Inputs, Kind

_STRICT = ("sklearn.", "xgboost.", "lightgbm.")  # whose estimators take numbers unless their tags say otherwise


def describe(model: Any) -> Inputs:  # noqa: ANN401
    """Which rows the model takes."""
    first, following = _entrance(model)
    if _tag(first, "string"):
        return Inputs(columns=None, text=True)
    names = _either(model, first, "feature_names_in_")
    count = len(names) if names is not None else _either(model, first, "n_features_in_")
    if count is None:
        return Inputs(columns=None, rest=_leaf(first, 0).kind)
    names = [str(n) for n in names] if names is not None else []
    if isinstance(first, ColumnTransformer):
        columns = _routed(first, following, names, count)
    else:
        columns = [_leaf(first, i) for i in range(count)]
    if names:
        columns = [replace(c, name=n) for n, c in zip(names, columns, strict=True)]
    return Inputs(tuple(columns))


def _either(model: Any, first: Any, name: str) -> Any:  # noqa: ANN401
    """An attribute of the model; of its entrance, if the model has none because it begins with `passthrough`."""
    value = getattr(model, name, None)
    return value if value is not None else getattr(first, name, None)


def _entrance(model: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """The estimator that judges the rows first, in pipelines and searches; the next gets what it passes on."""
    following = None
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, Pipeline):
            steps = [step for _, step in model.steps if not _lets_pass(step)]
            model, following = (*steps, following, None)[:2]
        else:
            return model, following


def _lets_pass(step: Any) -> bool:  # noqa: ANN401
    """Whether a step takes strings and numbers alike: passed through, or an imputer that fills either."""
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return True
    if isinstance(step, FunctionTransformer):
        return step.func is None
    return isinstance(step, SimpleImputer) and step.strategy in ("most_frequent", "constant")


def _tag(estimator: Any, name: str) -> bool:  # noqa: ANN401
    """A tag of its input; False for what has no tags."""
    if not isinstance(estimator, BaseEstimator):
        return False
    return bool(getattr(get_tags(estimator).input_tags, name, False))


def _leaf(estimator: Any, index: int) -> Column:  # noqa: ANN401
    """What the column at `index` of an estimator's own input takes."""
    categories = getattr(estimator, "categories_", None)
    if categories is None or index >= len(categories) or not len(categories[index]):
        return Column(kind="any" if _takes_strings(estimator) else "number")
    example = np.asarray(categories[index])[:1].tolist()[0]
    kind: Kind = "number" if np.asarray(categories[index]).dtype.kind in "iuf" else "any"
    return Column(kind=kind, example=example if isinstance(example, str | int) or example in categories[index] else 0)


def _takes_strings(estimator: Any) -> bool:  # noqa: ANN401
    """Whether an estimator, or one inside it, may take something else than numbers."""
    return any(
        _tag(part, "categorical")
        or _tag(part, "string")
        or isinstance(part, FunctionTransformer)
        or not type(part).__module__.startswith(_STRICT)
        for part in (*parts(estimator), estimator)
    )


def _routed(router: ColumnTransformer, following: Any, names: list[str], count: int) -> list[Column]:  # noqa: ANN401
    """What each column of a ColumnTransformer takes: numbers, if one of the transformers that get it wants them."""
    found: list[Column | None] = [None] * count
    for _, transformer, selected in router.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        first = following if _lets_pass(transformer) else _entrance(transformer)[0]
        for position, index in enumerate(_positions(selected, names, count)):
            column, known = _leaf(first, position), found[index]
            found[index] = column if known is None or column.kind == "number" else known
    return [column or Column(kind="unused", example=None) for column in found]


def _positions(selected: Any, names: list[str], count: int) -> list[int]:  # noqa: ANN401
    """The indexes that a fitted ColumnTransformer's selection of columns stands for."""
    if isinstance(selected, slice):
        start, stop = selected.start, selected.stop
        if isinstance(stop, str):  # by name, the end is included
            stop = names.index(stop) + 1
        return list(range(count))[slice(names.index(start) if isinstance(start, str) else start, stop, selected.step)]
    listed = np.atleast_1d(np.asarray(selected))
    if listed.dtype.kind == "b":
        return [int(i) for i in np.flatnonzero(listed)]
    return [range(count)[int(s)] if listed.dtype.kind in "iu" else names.index(str(s)) for s in listed]


def parts(model: Any) -> Iterator[Any]:  # noqa: ANN401
    """The model and every estimator inside it, fitted ones included, each once."""
    seen: set[int] = set()
    left = [model]
    while left:
        item = left.pop()
        if isinstance(item, list | tuple):
            left.extend(item)
        elif isinstance(item, Mapping):
            left.extend(item.values())
        elif hasattr(item, "get_params") and hasattr(item, "__dict__") and id(item) not in seen:
            seen.add(id(item))
            left.extend(vars(item).values())
            yield item


def wants_frame(model: Any) -> Callable[[dict[str, Any]], Any] | None:  # noqa: ANN401
    """What makes a data frame, if a model with named columns may look at the names; None if an array will do.

    Raises:
        UnfitError: it does, and pandas is not installed.
    """
    inside = list(parts(model))
    routed = any(isinstance(p, ColumnTransformer) for p in inside)
    if not routed and all(
        type(p).__module__.startswith("sklearn.") and not isinstance(p, FunctionTransformer) for p in inside
    ):
        return None
    try:
        import pandas as pd  # noqa: PLC0415  a second of imports, and most models do without
    except ModuleNotFoundError as error:
        if routed:
            raise UnfitError(
                "The model picks its columns by name, which takes pandas.", hint="Install it in the image."
            ) from error
        return None
    frame: Callable[[dict[str, Any]], Any] = pd.DataFrame
    return frame

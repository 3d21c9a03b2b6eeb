"""Bodies of requests and answers: strict JSON in, strict JSON out.

Stricter than Python's own parser, which takes NaN, Infinity and objects that say a key twice.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from modelserve.errors import RequestError
from modelserve.model import Model
from modelserve.table import tabulate

HINT = 'send JSON like {"features": [[5.1, 3.5, 1.4, 0.2]]}'


@dataclass(frozen=True)
class Answer:
    """What a model said: a prediction for each row, and its probabilities if they were asked for."""

    predictions: Sequence[object]
    probabilities: Sequence[object] | None = None


def answer(model: Model, body: bytes, *, proba: bool, max_rows: int) -> Answer:
    """Read a request's body, and predict.

    Raises:
        RequestError: the body is not what the protocol or the model takes.
    """
    runtime = model.runtime
    if proba and not runtime.has_proba:
        raise RequestError(f"the model gives no probabilities: {runtime.kind} has no predict_proba")
    table = tabulate(rows(body), runtime.inputs, max_rows)
    predictions = runtime.predict(table)
    if len(predictions) != len(table):  # nobody could tell which is whose
        raise RuntimeError(f"{runtime.kind} gave {len(predictions)} predictions for {len(table)} rows")
    return Answer(predictions, runtime.predict_proba(table) if proba else None)


def rows(body: bytes) -> object:
    """What a body gives as `features` or `instances`, of which it must hold one."""
    document = decode(body)
    if not isinstance(document, dict):
        raise RequestError(f'the body must be an object with "features" or "instances": {HINT}')
    given = [key for key in ("features", "instances") if key in document]
    if len(given) > 1:
        raise RequestError('the body has both "features" and "instances": send one of them')
    if not given:
        raise RequestError(f'the body has neither "features" nor "instances": {HINT}')
    return document[given[0]]


def decode(body: bytes) -> Any:  # noqa: ANN401  any JSON value
    """A JSON document in UTF-8.

    Raises:
        RequestError: it is none, or says what JSON has no word for.
    """
    if not body.strip():
        raise RequestError(f"the body is empty: {HINT}")
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is wrong") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise RequestError(f"the body is not JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise RequestError("the body is nested too deeply") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise RequestError("the body holds a number beyond what a float64 holds") from error


def encode(value: object) -> bytes:
    """A value as JSON, ASCII only; what JSON has no type for (a date, a decimal) is given as text."""
    return json.dumps(value, allow_nan=False, default=str, separators=(",", ":")).encode()


def _constant(word: str) -> NoReturn:
    raise RequestError(f"the body is not JSON: {word} is no JSON number; null says that a value is missing")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RequestError(f"an object has the key {twice[:80]!r} twice")
    return result

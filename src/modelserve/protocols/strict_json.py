"""Strict JSON decoder and encoder.

Stricter than Python's parser, which accepts NaN, Infinity and objects with duplicate keys.
"""

import json
from collections import Counter
from typing import Any, NoReturn

from modelserve.errors import RequestError

HINT = 'send JSON like {"features": [[5.1, 3.5, 1.4, 0.2]]}'


def decode_json(body: bytes) -> Any:  # noqa: ANN401  every JSON type
    """Decode a JSON document in UTF-8, with or without a byte order mark.

    Raises:
        RequestError: the body is empty, not UTF-8, not JSON, or nested too deeply.
    """
    if not body.strip():
        raise RequestError(f"the body is empty: {HINT}")
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_build_object)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is wrong") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise RequestError(f"the body is not JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise RequestError("the body is nested too deeply") from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise RequestError("the body holds a number beyond what a float64 holds") from error


def encode_json(value: object) -> bytes:
    """Encode a value as ASCII JSON; types unknown to JSON (dates, decimals) become strings."""
    return json.dumps(value, allow_nan=False, default=str, separators=(",", ":")).encode()


def _refuse_constant(word: str) -> NoReturn:
    raise RequestError(f"the body is not JSON: {word} is no JSON number; null says that a value is missing")


def _build_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        duplicate = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RequestError(f"an object has the key {duplicate[:80]!r} twice")
    return result

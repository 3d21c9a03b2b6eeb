import datetime as dt
import json

import pytest

from modelserve.errors import RequestError
from modelserve.protocols.rows import extract_rows
from modelserve.protocols.strict_json import encode_json


@pytest.mark.parametrize(
    "body", [b'{"features": [1]}', b'{"instances": [1], "other": 2}', b'\xef\xbb\xbf{"features":[1]}']
)
def test_rows_are_under_either_name(body: bytes) -> None:
    """Other keys, and the mark that some editors put first, do no harm."""
    assert extract_rows(body) == [1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"[[1]]", "the body must be an object"),
        (b"{}", 'neither "features" nor "instances"'),
        (b'{"features": [1], "instances": [1]}', 'both "features" and "instances"'),
        (b'{"features": [1], "features": [2]}', "an object has the key 'features' twice"),
        (b'{"features": [{"a": 1, "a": 2}]}', "an object has the key 'a' twice"),
        (b'{"features": [NaN]}', "NaN is no JSON number"),
        (b'{"features": [-Infinity]}', "-Infinity is no JSON number"),
        (b'{"features": [1', "not JSON: Expecting ',' delimiter at line 1, column 16"),
        (b"x", "not JSON: Expecting value at line 1, column 1"),
        (b'{"features": "\xff"}', "not UTF-8: byte 14"),
        (b'{"features": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"features": [' + b"1" * 5000 + b"]}", "beyond what a float64 holds"),
    ],
)
def test_a_body_that_is_none_is_refused_with_its_reason(body: bytes, message: str) -> None:
    """Each way of being wrong has its words."""
    with pytest.raises(RequestError) as refused:
        extract_rows(body)

    assert message in refused.value.message
    assert refused.value.status == 400


def test_answers_are_ascii_json_whatever_they_hold() -> None:
    """Half a surrogate pair and a date are written, and read back."""
    value = {"a": ["\ud800", "é", dt.date(2026, 1, 2)]}

    written = encode_json(value)

    assert written.isascii()
    assert json.loads(written) == {"a": ["\ud800", "é", "2026-01-02"]}

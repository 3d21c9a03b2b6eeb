import datetime as dt
import json

from modelserve.protocols.strict_json import encode_json


def test_encode_json_writes_ascii_for_every_value() -> None:
    """Half a surrogate pair and a date are encoded as ASCII JSON."""
    value = {"a": ["\ud800", "é", dt.date(2026, 1, 2)]}

    written = encode_json(value)

    assert written.isascii()
    assert json.loads(written) == {"a": ["\ud800", "é", "2026-01-02"]}

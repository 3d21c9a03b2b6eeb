import pytest

from modelserve.errors import RequestError
from modelserve.protocols.rows import extract_rows


@pytest.mark.parametrize(
    "body", [b'{"features": [1]}', b'{"instances": [1], "other": 2}', b'\xef\xbb\xbf{"features":[1]}']
)
def test_rows_are_read_from_features_or_instances(body: bytes) -> None:
    """Both keys are accepted; further keys and a byte order mark are ignored."""
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
def test_a_malformed_body_is_refused_with_the_reason(body: bytes, message: str) -> None:
    """Each kind of malformed body is a RequestError 400 with a specific message."""
    with pytest.raises(RequestError) as refused:
        extract_rows(body)

    assert message in refused.value.message
    assert refused.value.status == 400

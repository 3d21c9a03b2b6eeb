import json

import pytest

from modelserve.errors import RequestError
from modelserve.protocols import Codec, rows, v1
from modelserve.runtimes.base import InferenceRequest, InferenceResponse
from modelserve.runtimes.signature import Column, InputSignature

SIGNATURE = InputSignature((Column("age"), Column("country", "any")))


@pytest.mark.parametrize("codec", [rows, v1])
def test_a_codec_decodes_a_body_to_a_table(codec: Codec) -> None:
    """A body of named rows becomes a table in column order, without an engine."""
    body = b'{"instances": [{"country": "FR", "age": 3}]}'

    assert codec.decode_request(body, SIGNATURE, max_rows=1) == InferenceRequest([[3, "FR"]])
    assert codec.decode_request(body, SIGNATURE, max_rows=1, with_probabilities=True).with_probabilities


@pytest.mark.parametrize("codec", [rows, v1])
def test_a_codec_refuses_rows_beyond_the_limit(codec: Codec) -> None:
    """More rows than `max_rows` are a RequestError 413."""
    with pytest.raises(RequestError) as refused:
        codec.decode_request(b'{"features": [[1, "a"], [2, "b"]]}', SIGNATURE, max_rows=1)

    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("codec", "response", "document"),
    [
        (rows, InferenceResponse(["a"]), {"prediction": ["a"]}),
        (rows, InferenceResponse(["a"], None, ["a", "b"]), {"prediction": ["a"]}),
        (
            rows,
            InferenceResponse(["a"], [[1.0, 0.0]], ["a", "b"]),
            {"prediction": ["a"], "probabilities": [[1.0, 0.0]], "classes": ["a", "b"]},
        ),
        (v1, InferenceResponse(["a"], [[1.0, 0.0]], ["a", "b"]), {"predictions": ["a"]}),
    ],
)
def test_a_codec_encodes_a_response(codec: Codec, response: InferenceResponse, document: object) -> None:
    """Each protocol has fixed keys; probabilities and classes appear only if computed."""
    assert json.loads(codec.encode_response(response)) == document

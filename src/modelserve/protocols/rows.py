"""Codec of `POST /predict`: rows under `features` or `instances`, predictions under `prediction`."""

from modelserve.errors import RequestError
from modelserve.protocols.strict_json import HINT, decode_json, encode_json
from modelserve.protocols.table import build_table
from modelserve.runtimes.base import InferenceRequest, InferenceResponse
from modelserve.runtimes.signature import InputSignature


def decode_request(
    body: bytes, signature: InputSignature, *, max_rows: int, with_probabilities: bool = False
) -> InferenceRequest:
    """Decode the rows of a request body; implements `Codec.decode_request`."""
    return InferenceRequest(build_table(extract_rows(body), signature, max_rows), with_probabilities)


def encode_response(response: InferenceResponse) -> bytes:
    """Encode predictions, and probabilities with the class labels if requested."""
    document: dict[str, object] = {"prediction": response.predictions}
    if response.probabilities is not None:
        document |= {"probabilities": response.probabilities, "classes": response.classes}
    return encode_json(document)


def extract_rows(body: bytes) -> object:
    """Return the value under `features` or `instances`; exactly one key must be present.

    Raises:
        RequestError: the body is not strict JSON, not an object, or has no rows or two sets of rows.
    """
    document = decode_json(body)
    if not isinstance(document, dict):
        raise RequestError(f'the body must be an object with "features" or "instances": {HINT}')
    keys = [key for key in ("features", "instances") if key in document]
    if len(keys) > 1:
        raise RequestError('the body has both "features" and "instances": send one of them')
    if not keys:
        raise RequestError(f'the body has neither "features" nor "instances": {HINT}')
    return document[keys[0]]

"""Codec of `POST /v1/models/{name}:predict`, the v1 protocol of TensorFlow Serving and KServe.

Request bodies are the bodies of /predict; responses hold `predictions`.
"""

from modelserve.protocols.rows import decode_request
from modelserve.protocols.strict_json import encode_json
from modelserve.runtimes.base import InferenceResponse

__all__ = ["decode_request", "encode_response"]


def encode_response(response: InferenceResponse) -> bytes:
    """Encode the predictions; v1 has no probabilities."""
    return encode_json({"predictions": response.predictions})

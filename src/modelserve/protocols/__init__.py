"""Protocol codecs: request body → InferenceRequest, InferenceResponse → response body.

One module per protocol; a codec knows the input signature of the model, and neither the engine nor HTTP routes.
"""

from typing import Protocol

from modelserve.runtimes.base import InferenceRequest, InferenceResponse
from modelserve.runtimes.signature import InputSignature


class Codec(Protocol):
    """Codec of one protocol; implemented by the modules `rows` and `v1`."""

    def decode_request(
        self, body: bytes, signature: InputSignature, *, max_rows: int, with_probabilities: bool = False
    ) -> InferenceRequest:
        """Decode a request body, and check the rows against the signature.

        Raises:
            RequestError: the protocol or the signature does not accept the body.
        """

    def encode_response(self, response: InferenceResponse) -> bytes:
        """Encode a response as the body of the protocol."""

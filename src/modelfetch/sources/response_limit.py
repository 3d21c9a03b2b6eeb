"""Size limit of responses about objects: the SDKs read each response whole, and decompress the body in memory."""

from collections.abc import Iterator
from typing import Any

from modelfetch.errors import RefusedError

# Bytes, decompressed. A page of 1,000 entries with escaped keys of 1,024 bytes has about 7 MB.
MAX_RESPONSE_BYTES = 64 * 1024**2


class BoundedResponse:
    """Wrapper of a urllib3 response that limits the streamed bytes; other attributes are the response's own."""

    def __init__(self, response: Any, host: str) -> None:  # noqa: ANN401  a class of the SDK's library
        """Wrap a response; `host` names the server in messages."""
        self._response = response
        self._host = host

    def stream(self, *args: object, **options: object) -> Iterator[bytes]:
        """Stream the body; see urllib3's `HTTPResponse.stream`, by which both SDKs read responses.

        Raises:
            RefusedError: the body has more than MAX_RESPONSE_BYTES bytes, decompressed.
        """
        size = 0
        for piece in self._response.stream(*args, **options):
            size += len(piece)
            if size > MAX_RESPONSE_BYTES:
                self._response.close()
                raise RefusedError(
                    f"{self._host} answers without end: more than {MAX_RESPONSE_BYTES} bytes about objects.",
                    hint="Check the endpoint.",
                )
            yield piece

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._response, name)

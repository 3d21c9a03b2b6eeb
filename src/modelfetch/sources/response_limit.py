"""Keeps what stores say of their objects from filling the memory: SDKs read each reply whole, and inflate it."""

from collections.abc import Iterator
from typing import Any

from modelfetch.errors import RefusedError

MAX_RESPONSE_BYTES = (
    64 * 1024**2
)  # bytes; a page of 1,000 entries with keys of 1,024 bytes, each escaped, has some 7 MB


class BoundedResponse:
    """A reply of urllib3's that streams so many bytes and no more; the rest of it is as it is."""

    def __init__(self, response: Any, host: str) -> None:  # noqa: ANN401  whatever the SDK's library has made of it
        """Take the reply, and its server's name for messages."""
        self._response = response
        self._host = host

    def stream(self, *args: object, **options: object) -> Iterator[bytes]:
        """See urllib3's `HTTPResponse.stream`: both SDKs read replies by it.

        Raises:
            RefusedError: there are more than MAX_REPLY bytes, unpacked.
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

"""Admission control: a bound on the prediction requests in progress, without a queue."""

from collections.abc import Iterator
from contextlib import contextmanager

from modelserve.errors import RequestError


class AdmissionControl:
    """Counter of admitted requests; used by the event loop only."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._admitted = 0

    @contextmanager
    def admit_request(self) -> Iterator[None]:
        """Hold a place among the requests in progress.

        Raises:
            RequestError: every place is taken, 503.
        """
        if self._admitted >= self._max_requests:
            raise RequestError("too many requests at once: try again", status=503, headers={"Retry-After": "1"})
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

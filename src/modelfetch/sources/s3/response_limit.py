"""Size limit of the responses that botocore reads; botocore has no setting for the limit."""

from typing import TYPE_CHECKING, Any

import urllib3
from botocore.exceptions import HTTPClientError

from modelfetch.net.network_errors import host_of
from modelfetch.sources.response_limit import BoundedResponse

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def bound_responses(client: "S3Client") -> None:
    """Limit the size of a client's responses, streamed objects excepted, to protect the memory."""
    endpoint = client._endpoint  # type: ignore[attr-defined]  # noqa: SLF001  the stubs have no private attributes
    endpoint.http_session = _BoundedSession(endpoint.http_session, host_of(client.meta.endpoint_url))


class _BoundedSession:
    """Wrapper of botocore's HTTP session that limits the size of responses."""

    def __init__(self, session: Any, host: str) -> None:  # noqa: ANN401  botocore ships no types
        self._session = session
        self._host = host

    def send(self, request: Any) -> Any:  # noqa: ANN401
        """Send a request; read the response unless the request streams.

        Raises:
            HTTPClientError: the response broke off; the same type as the session's own errors.
            RefusedError: the response exceeds the size limit.
        """
        # With `stream_output` unset, the session itself reads the whole response, without a limit.
        stream_output, request.stream_output = request.stream_output, True
        response = self._session.send(request)
        response.raw = BoundedResponse(response.raw, self._host)
        try:
            _ = stream_output or response.content
        except urllib3.exceptions.HTTPError as error:
            raise HTTPClientError(error=error) from error
        return response

    def close(self) -> None:
        self._session.close()

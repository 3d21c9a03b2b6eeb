"""TCP server for HTTP clients that answers by a script: the bytes as written, valid HTTP or not."""

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

CLOSE = b"close the connection"  # in place of a response: compared by identity


def answer_requests(connection: socket.socket, responses: Sequence[bytes], requests: list[bytes]) -> None:
    """Answer each request on a connection with the next response, and append each request to `requests`.

    After the last response the connection is closed once the client has closed it or sent more; at once after an empty
    response or `CLOSE`.
    """
    connection.settimeout(60)  # seconds: a test that fails may leave a connection open
    with connection, suppress(OSError):
        for response in responses:
            if response is CLOSE:
                return
            request = b""
            while b"\r\n\r\n" not in request:
                data = connection.recv(65536)
                if not data:
                    return
                request += data
            requests.append(request)
            connection.sendall(response)
        if responses and responses[-1]:
            connection.recv(1)


class RawServer:
    """Server on loopback with a script of responses for each connection, in the order of the connections.

    Attributes:
        requests: requests received until now, a list for each connection.
    """

    def __init__(self) -> None:
        self.requests: list[list[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread: threading.Thread | None = None

    def start(self, *scripts: Sequence[bytes]) -> int:
        """Serve the connections in turn, each by a script of responses; return the port."""
        self._thread = threading.Thread(target=self._serve_connections, args=[scripts])
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def _serve_connections(self, scripts: Sequence[Sequence[bytes]]) -> None:
        for responses in scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.requests.append([])
            answer_requests(connection, responses, self.requests[-1])

    def close(self) -> None:
        """Accept no more connections, and wait for the last one to end."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread is not None:
            self._thread.join(60)

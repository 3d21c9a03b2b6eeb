"""HTTP reverse proxy that injects the faults of networks, proxies and stores on demand.

The proxy stands in front of any HTTP server and streams, never holding an object. The client's Host header is passed on
unchanged: S3 signatures cover the header. Every request is recorded, for tests that count requests and bytes.
"""

import ssl
import sys
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from testkit.fault_handler import FaultHandler
from testkit.fault_rules import FaultRule, Request


class FaultProxy:
    """The proxy, listening from construction until `close`.

    Attributes:
        url: address of the proxy.
        requests: all requests, in order.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        """Stand in front of `upstream`, a URL with host and port; speak TLS to clients if a context is given."""
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Request] = []
        self.errors: list[BaseException | None] = []
        self.closing = threading.Event()
        self._rules: list[FaultRule] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self, tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def add_rule(self, **fields: Any) -> FaultRule:
        """Add a rule by its attributes; the first matching rule takes a request."""
        rule = FaultRule(**fields)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget all rules and recorded requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def matching_requests(self, method: str | None = None, path: str = "", query: str = "") -> list[Request]:
        """Return the recorded requests that match."""
        return [request for request in list(self.requests) if request.matches_pattern(method, path, query)]

    def sent_bytes(self, path: str = "") -> int:
        """Sum the body bytes sent in response to GETs of a path."""
        return sum(request.sent for request in self.matching_requests("GET", path))

    def wait_for(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: the condition did not hold in time.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"condition not met within {seconds} s; requests: {self.requests}")
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the proxy; raise the first error of the proxy itself, if any."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for error in filter(None, self.errors):
            raise error

    def record_request(self, request: Request) -> FaultRule:
        """Record a request and return its rule."""
        with self._lock:
            self.requests.append(request)
            request.rule = next((rule for rule in self._rules if rule.claim_request(request)), None)
        return request.rule or FaultRule()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: FaultProxy, tls: ssl.SSLContext | None) -> None:
        super().__init__(address, FaultHandler)
        self.proxy = proxy
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # the inherited method sends a FIN first, which would prevent a reset

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) and not self.proxy.closing.is_set():  # an OSError: the client has gone
            self.proxy.errors.append(error)

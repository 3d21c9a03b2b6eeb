"""Middleware of every HTTP request: access log, metrics, `Connection: close` while draining, status 500 for bugs."""

import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelserve.engine.inference import InferenceEngine
from modelserve.protocols.strict_json import encode_json

log = logging.getLogger("modelserve.access")
_UNLOGGED_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnects before the response
_INTERNAL_ERROR = encode_json({"error": "internal error: the server's log has the cause"})


class RequestMiddleware:
    """ASGI middleware; `engine` holds the metrics, and knows whether the server drains."""

    def __init__(self, app: ASGIApp, engine: InferenceEngine) -> None:
        self.app = app
        self.engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.engine.draining:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            await self.app(scope, receive, send_observed)
        except ClientDisconnect:
            status = _CLIENT_CLOSED_REQUEST
        except Exception:
            log.exception("internal error", extra={"method": scope["method"], "path": scope["path"][:200]})
            if status:  # too late for an error response
                raise
            await _send_internal_error(send_observed)
        finally:
            self._record_request(scope, status, time.perf_counter() - started)

    def _record_request(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        path = scope["path"]
        if path in _UNLOGGED_PATHS:
            return
        route = getattr(scope.get("route"), "path", "none")
        self.engine.metrics.observe_request(scope["method"], route, status, seconds)
        facts = {"method": scope["method"], "path": path[:200], "status": status, "seconds": round(seconds, 6)}
        log.info("request", extra=facts)


async def _send_internal_error(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_INTERNAL_ERROR)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": _INTERNAL_ERROR})

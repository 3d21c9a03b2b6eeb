"""What happens round every HTTP request: access log, metrics, `Connection: close` while stopping, the last resort."""

import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelserve.protocol import encode
from modelserve.service import Service

log = logging.getLogger("modelserve.access")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})
_CLIENT_GONE = 499  # nginx's name for a client that left before its answer
_INTERNAL = encode({"error": "internal error: the server's log has the cause"})


class Around:
    """ASGI middleware; `service` tells whether the server is stopping."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.service.draining:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception:
            log.exception("internal error", extra={"method": scope["method"], "path": scope["path"][:200]})
            if status:  # too late to say so
                raise
            await _internal_error(watched)
        finally:
            self._account(scope, status, time.perf_counter() - started)

    def _account(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        path = scope["path"]
        if path in _QUIET:
            return
        route = getattr(scope.get("route"), "path", "none")
        self.service.metrics.http(scope["method"], route, status, seconds)
        facts = {"method": scope["method"], "path": path[:200], "status": status, "seconds": round(seconds, 6)}
        log.info("request", extra=facts)


async def _internal_error(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_INTERNAL)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": _INTERNAL})

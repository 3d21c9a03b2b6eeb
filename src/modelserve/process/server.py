"""uvicorn server with a graceful shutdown: no request is cut.

Kubernetes sends SIGTERM and removes the pod from Services at the same time, so requests still arrive for a while. The
server drains: requests are answered with `Connection: close` until the grace period ends; then the listener closes, and
open requests may finish.
"""

import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI

from modelserve.engine.inference import InferenceEngine
from modelserve.errors import ConfigError

log = logging.getLogger(__name__)


class ServerTimes(NamedTuple):
    """Durations of connections and of the shutdown, in seconds.

    Attributes:
        keep_alive: lifetime of an idle connection.
        drain: grace period after SIGTERM; requests are still answered, but readiness is refused.
        stop_timeout: time for open requests to finish after the grace period.
    """

    keep_alive: float
    drain: float
    stop_timeout: float


def open_listener(host: str, port: int) -> socket.socket:
    """Open a listening socket; `::` accepts IPv4 as well.

    Raises:
        ConfigError: the address is in use, or not an address of this host.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=dual)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]  # Python repeats the address
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {reason}.",
            hint="Choose another with --host and --port, or MODELSERVE_HOST and MODELSERVE_PORT.",
        ) from error


class Server(uvicorn.Server):
    """Server of one app, until a signal arrives or the model turns out to be unservable."""

    def __init__(self, app: FastAPI, engine: InferenceEngine, times: ServerTimes) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http="h11",  # the parser of the app's image, also where httptools is installed with the fetcher
                ws="none",
                lifespan="on",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_to_whole_seconds(times.keep_alive),
                timeout_graceful_shutdown=_to_whole_seconds(times.stop_timeout),
            )
        )
        self._engine = engine
        self._grace = times.drain
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Drain on the first signal, end the grace period on the second, end at once on a further Ctrl-C."""
        if self.should_exit:
            self.force_exit = self.force_exit or sig == signal.SIGINT
        elif self._engine.draining or sig == signal.SIGINT or self._engine.repository.model is None:
            self.should_exit = True  # no Service routes requests here, or the grace period has begun before
        self._engine.draining = True
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._grace
            grace = 0 if self.should_exit else self._grace
            log.info("stopping", extra={"signal": signal.Signals(sig).name, "grace": grace})

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install the handlers, then unblock the signals that the image's entry point keeps pending."""
        with super().capture_signals():
            if hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            yield

    async def on_tick(self, counter: int) -> bool:
        """Check, ten times a second, for the end of the grace period or a failed load."""
        grace_over = self._stop_at is not None and time.monotonic() >= self._stop_at
        if grace_over or self._engine.repository.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)


def _to_whole_seconds(seconds: float) -> int:
    """Round seconds for uvicorn, at least 1."""
    return max(1, round(seconds))


def warn_about_loopback(host: str, *, in_cluster: bool) -> None:
    """Warn about a loopback address in a pod: nobody can reach the app, and Kubernetes does not report the reason."""
    if in_cluster and host in ("127.0.0.1", "localhost", "::1"):
        log.warning("listening on %s only: probes and Services cannot reach it; set MODELSERVE_HOST=0.0.0.0", host)

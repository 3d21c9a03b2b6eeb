"""uvicorn, with an end that cuts no request.

Kubernetes sends SIGTERM and takes the pod out of its Services at the same time, so requests still come for a while:
they are answered, with `Connection: close`, until the grace period is over; then the listener closes, and what is open
may end.
"""

import logging
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from modelserve.errors import ConfigError
from modelserve.service import Service
from modelserve.settings import Settings

log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `::` takes IPv4 as well.

    Raises:
        ConfigError: the address is in use or not ours.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=dual)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]  # Python adds the address once more
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {reason}.",
            hint="Choose another with --host and --port, or MODELSERVE_HOST and MODELSERVE_PORT.",
        ) from error


class Server(uvicorn.Server):
    """Serves an app until a signal ends it, or until its model turns out to be unservable."""

    def __init__(self, app: FastAPI, service: Service) -> None:
        settings = service.settings
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
                timeout_keep_alive=_whole(settings.keep_alive),
                timeout_graceful_shutdown=_whole(settings.stop_timeout),
            )
        )
        self._service = service
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """The first signal starts the end, a second one ends the grace period, a further Ctrl-C waits for nothing."""
        if self.should_exit:
            self.force_exit = self.force_exit or sig == signal.SIGINT
        elif self._service.draining or sig == signal.SIGINT or self._service.model is None:
            self.should_exit = True  # nobody waits for a Service to forget us
        self._service.draining = True
        if self._stop_at is None:
            grace = self._service.settings.drain
            self._stop_at = time.monotonic() + grace
            log.info("stopping", extra={"signal": signal.Signals(sig).name, "grace": 0 if self.should_exit else grace})

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to stop."""
        over = self._stop_at is not None and time.monotonic() >= self._stop_at
        if over or self._service.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)


def _whole(seconds: float) -> int:
    """Seconds as uvicorn counts them."""
    return max(1, round(seconds))


def warn_of_loopback(settings: Settings, *, in_cluster: bool) -> None:
    """In a pod, an app that listens on 127.0.0.1 only is reached by nobody, and nothing else would say so."""
    if in_cluster and settings.host in ("127.0.0.1", "localhost", "::1"):
        log.warning(
            "listening on %s only: probes and Services cannot reach it; set MODELSERVE_HOST=0.0.0.0", settings.host
        )

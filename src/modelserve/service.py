"""The state of the process: loading, ready, draining or failed; and the threads that compute."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from modelserve import model as models
from modelserve.errors import RequestError, StartError
from modelserve.metrics import Metrics
from modelserve.model import Model
from modelserve.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")


class Service:
    """One model and the way to it. Flags are set by the loader's thread or a signal, and read by the event loop.

    Attributes:
        model: None until it is loaded.
        failure: why it never will be.
        draining: whether SIGTERM or SIGINT has come.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.model: Model | None = None
        self.failure: StartError | None = None
        self.draining = False
        self._in_hand = 0
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="predict")

    @property
    def trouble(self) -> str:
        """Why the service is not ready; empty if it is."""
        if self.draining:
            return "the server is stopping"
        if self.failure is not None:
            return self.failure.message
        return "" if self.model is not None else "the model is being loaded"

    def ready_model(self) -> Model:
        """The model, also while the server stops.

        Raises:
            RequestError: there is none yet.
        """
        if self.model is None:
            raise RequestError(self.trouble, status=503, headers={"Retry-After": "1"})
        return self.model

    def start_loading(self) -> None:
        """Load the model in a thread, which does not keep the process from ending."""
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def _load(self) -> None:
        try:
            model = models.load(self.settings)
        except StartError as error:
            self.failure = error
        except BaseException as error:  # a pickle may raise anything, SystemExit included
            log.exception("the model could not be loaded")
            self.failure = StartError(f"The model could not be loaded: {type(error).__name__}: {error}.")
        else:
            self.metrics.loaded(model)
            self.model = model
            facts = {"model": model.name, "digest": model.digest, "source": model.source, "seconds": model.seconds}
            log.info("ready", extra=facts | {"file": str(model.file), "runtime": model.runtime.library})

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place among the requests in hand.

        Raises:
            RequestError: there is none left, 503.
        """
        if self._in_hand >= self.settings.max_requests:
            raise RequestError("too many requests at once: try again", status=503, headers={"Retry-After": "1"})
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1

    async def compute(self, work: Callable[[], T]) -> T:
        """Run `work` in one of the threads, when one is free."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Start no more work."""
        self._pool.shutdown(wait=False, cancel_futures=True)

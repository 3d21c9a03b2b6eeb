"""Inference: readiness of the process, the inference threads, and one prediction run."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from modelserve.engine.admission import AdmissionControl
from modelserve.engine.repository import LoadedModel, ModelRepository, ModelSource
from modelserve.errors import RequestError
from modelserve.metrics import Metrics
from modelserve.runtimes.base import InferenceRequest, InferenceResponse, Runtime

T = TypeVar("T")


class EngineLimits(NamedTuple):
    """Concurrency limits of the engine.

    Attributes:
        max_requests: admitted prediction requests; further requests are refused with 503.
        threads: predictions computed in parallel.
    """

    max_requests: int
    threads: int


class InferenceEngine:
    """Model repository, admission control and inference threads behind every protocol.

    Attributes:
        draining: whether SIGTERM or SIGINT was received; set by the signal handler, read by the event loop.
    """

    def __init__(self, source: ModelSource, limits: EngineLimits) -> None:
        self.metrics = Metrics()
        self.repository = ModelRepository(source, self.metrics)
        self.admission = AdmissionControl(limits.max_requests)
        self.draining = False
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="predict")

    @property
    def unready_reason(self) -> str:
        """Return the reason for refusing readiness; empty if the engine is ready."""
        if self.draining:
            return "the server is stopping"
        if (failure := self.repository.failure) is not None:
            return failure.message
        return "" if self.repository.model is not None else "the model is being loaded"

    def get_model(self) -> LoadedModel:
        """Return the loaded model, also while the server drains.

        Raises:
            RequestError: no model is loaded yet, 503.
        """
        if (model := self.repository.model) is None:
            raise RequestError(self.unready_reason, status=503, headers={"Retry-After": "1"})
        return model

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in the next free inference thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close_threads(self) -> None:
        """Start no further work; running work ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def check_probabilities(runtime: Runtime) -> None:
    """Refuse a request for probabilities if the model cannot compute probabilities.

    Raises:
        RequestError: the model has no `predict_proba`.
    """
    if not runtime.has_probabilities:
        raise RequestError(f"the model gives no probabilities: {runtime.class_name} has no predict_proba")


def run_inference(runtime: Runtime, request: InferenceRequest) -> InferenceResponse:
    """Predict the rows of a request.

    Raises:
        RequestError: the model refuses the rows.
    """
    table = request.table
    predictions = runtime.predict(table)
    if len(predictions) != len(table):  # predictions could not be assigned to rows
        raise RuntimeError(f"{runtime.class_name} gave {len(predictions)} predictions for {len(table)} rows")
    probabilities = runtime.predict_probabilities(table) if request.with_probabilities else None
    return InferenceResponse(predictions, probabilities, runtime.classes)

"""Prometheus metrics: of the app, of the model, and of the pull that brought it (read from the receipt).

No label holds anything that a client chose: routes are templates, unknown methods are `other`.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from modelserve.model import Model

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which says nothing
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.inference_seconds = Histogram(
            "modelserve_inference_duration_seconds",
            "Reading rows, predicting and writing the answer, without the wait for a thread",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.inferences = Counter(
            "modelserve_inferences",
            "Prediction requests by outcome: ok, refused, overloaded, error",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("ok", "refused", "overloaded", "error"):
            self.inferences.labels(outcome)
        self.in_progress = Gauge("modelserve_inferences_in_progress", "Prediction requests in hand", registry=registry)
        self.http_seconds = Histogram(
            "modelserve_http_request_duration_seconds",
            "HTTP requests, probes and scrapes left out",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.ready = Gauge("modelserve_model_ready", "1 while predictions are answered and wanted", registry=registry)

    def loaded(self, model: Model) -> None:
        """Describe a loaded model and the pull that brought it."""
        registry = self._registry
        Gauge(
            "modelserve_model_load_duration_seconds", "Reading, checking and loading the model", registry=registry
        ).set(model.seconds)
        Info("modelserve_model", "The model that is served", registry=registry).info(
            {"name": model.name, "version": model.version, "digest": model.digest, "source": model.source}
        )
        if (receipt := model.receipt) is None:
            return
        for name, text, value in (
            ("duration_seconds", "What the last pull of the model took", receipt.seconds),
            ("bytes", "Size of the model as published", receipt.bytes),
            ("timestamp_seconds", "When the last pull of the model ended", receipt.finished.timestamp()),
        ):
            Gauge(f"modelfetch_pull_{name}", text, registry=registry).set(value)

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request; `route` is the template of its path."""
        method = method if method in _METHODS else "other"
        self.http_seconds.labels(method, route, str(status)).observe(seconds)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that the Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

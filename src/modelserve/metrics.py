"""Prometheus metrics of the app, of the loaded model, and of the pull recorded in the receipt.

Label values never come from a client: routes are templates, unknown methods are `other`.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from modelserve.receipt import Receipt

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


class ModelInfo(NamedTuple):
    """Exported facts of the loaded model.

    Attributes:
        load_seconds: duration of reading, checking and loading.
        receipt: None for a model without a receipt; the metrics of the pull are then left out.
    """

    name: str
    version: str
    digest: str
    source: str
    load_seconds: float
    receipt: Receipt | None


class _ModelCollector(Collector):
    """Collector of the current model's facts; a later model replaces the facts, and registers nothing."""

    info: ModelInfo | None = None

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families of the current model; before the first load, yield nothing."""
        return _collect_model(self.info) if self.info else ()


def _collect_model(info: ModelInfo) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "modelserve_model_load_duration_seconds", "Reading, checking and loading the model", info.load_seconds
    )
    labels = {"name": info.name, "version": info.version, "digest": info.digest, "source": info.source}
    yield InfoMetricFamily("modelserve_model", "The model that is served", labels)
    if (receipt := info.receipt) is None:
        return
    for name, text, value in (
        ("duration_seconds", "What the last pull of the model took", receipt.seconds),
        ("bytes", "Size of the model as published", float(receipt.bytes)),
        ("timestamp_seconds", "When the last pull of the model ended", receipt.finished.timestamp()),
    ):
        yield GaugeMetricFamily(f"modelfetch_pull_{name}", text, value)


class Metrics:
    """Metrics of one app, in a registry private to the app."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter, without information
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._model = _ModelCollector()
        registry.register(self._model)
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

    def set_model(self, info: ModelInfo) -> None:
        """Export the facts of a newly loaded model in place of the previous model's."""
        self._model.info = info

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request; `route` is the path template."""
        method = method if method in _METHODS else "other"
        self.http_seconds.labels(method, route, str(status)).observe(seconds)

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Render the metrics in the format of the Accept header; return the text and the content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

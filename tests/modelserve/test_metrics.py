from datetime import UTC, datetime
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from modelserve.metrics import Metrics, ModelInfo
from modelserve.receipt import Receipt


def parse_samples(text: str) -> dict[tuple[str, ...], float]:
    """Parse samples by name and label values."""
    return {
        (s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples
    }


def test_model_and_pull_are_exported(iris_client: httpx.Client, iris: Path) -> None:
    """/metrics has the facts of the model, and of the pull recorded in the receipt."""
    answer = iris_client.get("/metrics")
    said = parse_samples(answer.text)

    digest = iris_client.get("/model").json()["digest"]
    assert answer.headers["content-type"].startswith("text/plain")
    assert said["modelserve_model_ready",] == 1
    assert said["modelserve_model_info", digest, "iris", "s3://models/iris/model.joblib", "3sL4kqtJlcpXroDTDmJ"] == 1
    assert said["modelfetch_pull_duration_seconds",] == 0.41
    assert said["modelfetch_pull_bytes",] == iris.stat().st_size
    assert said["modelfetch_pull_timestamp_seconds",] == 1795251601
    assert said["modelserve_model_load_duration_seconds",] > 0


def test_no_pull_is_exported_without_a_receipt(churn_client: httpx.Client) -> None:
    """Without a receipt /metrics has no modelfetch_pull series."""
    assert "modelfetch_pull" not in churn_client.get("/metrics").text


def test_predictions_are_counted_by_outcome(iris_client: httpx.Client) -> None:
    """Accepted and refused predictions are counted apart, and timed."""
    before = parse_samples(iris_client.get("/metrics").text)
    iris_client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]})
    iris_client.post("/predict", json={"features": [5.1]})
    after = parse_samples(iris_client.get("/metrics").text)

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert grown("modelserve_inferences_total", "ok") == 1
    assert grown("modelserve_inferences_total", "refused") == 1
    assert grown("modelserve_inference_duration_seconds_count") == 2
    assert grown("modelserve_http_request_duration_seconds_count", "POST", "/predict", "200") == 1
    assert grown("modelserve_http_request_duration_seconds_count", "POST", "/predict", "400") == 1


def test_no_label_comes_from_a_client(iris_client: httpx.Client) -> None:
    """Invented paths and methods create no new series; probes are not recorded."""
    iris_client.request("BREW", "/made-up/1")
    iris_client.post("/v1/models/made-up-2:predict")
    iris_client.get("/livez")
    text = iris_client.get("/metrics").text

    assert "made-up" not in text
    assert "BREW" not in text
    assert 'route="/livez"' not in text
    assert 'method="other",route="none",status="404"' in text
    assert 'route="/v1/models/{name}:predict",status="404"' in text


def test_openmetrics_is_rendered_on_request() -> None:
    """An OpenMetrics Accept header, the first choice of Prometheus, selects OpenMetrics."""
    metrics = Metrics()
    metrics.set_model(ModelInfo("iris", "1", "sha256:0", "s3://models/iris", 0.1, receipt=None))

    content, content_type = metrics.render_metrics("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert content.endswith(b"# EOF\n")


def test_a_later_model_replaces_the_exported_facts() -> None:
    """A second load in one process exports the new facts only, and registers no collector twice."""
    pull = Receipt(
        path=Path("r"), source="s3://a", version="1", digest="sha256:1", files={}, bytes=3, seconds=0.5,
        finished=datetime.fromtimestamp(7, UTC), tool="modelfetch/1",
    )  # fmt: skip
    metrics = Metrics()
    before = parse_samples(metrics.render_metrics("")[0].decode())
    metrics.set_model(ModelInfo("iris", "1", "sha256:1", "s3://a", 0.1, receipt=pull))
    first = parse_samples(metrics.render_metrics("")[0].decode())
    metrics.set_model(ModelInfo("iris", "2", "sha256:2", "", 0.2, receipt=None))
    second = parse_samples(metrics.render_metrics("")[0].decode())

    assert not any(name.startswith(("modelserve_model_info", "modelfetch_pull")) for name, *_ in before)
    assert first["modelserve_model_info", "sha256:1", "iris", "s3://a", "1"] == 1
    assert (first["modelfetch_pull_bytes",], first["modelfetch_pull_timestamp_seconds",]) == (3, 7)
    assert [key for key in second if key[0] == "modelserve_model_info"] == [
        ("modelserve_model_info", "sha256:2", "iris", "", "2")
    ]
    assert second["modelserve_model_load_duration_seconds",] == 0.2
    assert not any(name.startswith("modelfetch_pull") for name, *_ in second)

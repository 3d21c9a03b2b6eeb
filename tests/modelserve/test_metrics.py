from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from modelserve.metrics import Metrics, ModelInfo


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    return {
        (s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples
    }


def test_the_model_and_its_pull_are_exported(iris_client: httpx.Client, iris: Path) -> None:
    """What the init container cannot be asked any more is read from its receipt."""
    answer = iris_client.get("/metrics")
    said = samples(answer.text)

    digest = iris_client.get("/model").json()["digest"]
    assert answer.headers["content-type"].startswith("text/plain")
    assert said["modelserve_model_ready",] == 1
    assert said["modelserve_model_info", digest, "iris", "s3://models/iris/model.joblib", "3sL4kqtJlcpXroDTDmJ"] == 1
    assert said["modelfetch_pull_duration_seconds",] == 0.41
    assert said["modelfetch_pull_bytes",] == iris.stat().st_size
    assert said["modelfetch_pull_timestamp_seconds",] == 1795251601
    assert said["modelserve_model_load_duration_seconds",] > 0


def test_without_a_receipt_no_pull_is_exported(churn_client: httpx.Client) -> None:
    """A pull that nobody saw has no numbers."""
    assert "modelfetch_pull" not in churn_client.get("/metrics").text


def test_predictions_are_counted_by_outcome(iris_client: httpx.Client) -> None:
    """Answers and refusals are told apart, and timed."""
    before = samples(iris_client.get("/metrics").text)
    iris_client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]})
    iris_client.post("/predict", json={"features": [5.1]})
    after = samples(iris_client.get("/metrics").text)

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert grown("modelserve_inferences_total", "ok") == 1
    assert grown("modelserve_inferences_total", "refused") == 1
    assert grown("modelserve_inference_duration_seconds_count") == 2
    assert grown("modelserve_http_request_duration_seconds_count", "POST", "/predict", "200") == 1
    assert grown("modelserve_http_request_duration_seconds_count", "POST", "/predict", "400") == 1


def test_no_label_is_the_clients(iris_client: httpx.Client) -> None:
    """Paths and methods that a client makes up make no new series."""
    iris_client.request("BREW", "/made-up/1")
    iris_client.post("/v1/models/made-up-2:predict")
    iris_client.get("/livez")
    text = iris_client.get("/metrics").text

    assert "made-up" not in text
    assert "BREW" not in text
    assert 'route="/livez"' not in text
    assert 'method="other",route="none",status="404"' in text
    assert 'route="/v1/models/{name}:predict",status="404"' in text


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    """Prometheus asks for it first."""
    metrics = Metrics()
    metrics.set_model(ModelInfo("iris", "1", "sha256:0", "s3://models/iris", 0.1, receipt=None))

    content, content_type = metrics.render_metrics("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert content.endswith(b"# EOF\n")

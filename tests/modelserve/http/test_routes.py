import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import joblib
import pytest
from fastapi.openapi.models import OpenAPI
from odd_models import Blocking, Failing

ROW = [5.1, 3.5, 1.4, 0.2]
PERSON = {"age": 42, "country": "FR", "active": 1}
Serve = Callable[..., httpx.Client]
Wait = Callable[[Callable[[], Any]], Any]


def save_model(model: object, folder: Path) -> Path:
    """Save a model as `odd/model.joblib` in a folder."""
    file = folder / "odd" / "model.joblib"
    file.parent.mkdir()
    joblib.dump(model, file)
    return file


@pytest.mark.parametrize("rows", [[ROW], ROW])
@pytest.mark.parametrize("key", ["features", "instances"])
def test_predict_accepts_bare_rows_and_both_keys(iris_client: httpx.Client, key: str, rows: Any) -> None:
    """A bare row or a list of rows, under `features` or `instances`, is answered."""
    answer = iris_client.post("/predict", json={key: rows})

    assert (answer.status_code, answer.json()) == (200, {"prediction": ["setosa"]})


def test_predict_keeps_the_order_of_rows(iris_client: httpx.Client) -> None:
    """The third prediction belongs to the third row."""
    answer = iris_client.post("/predict", json={"features": [ROW, [6.3, 3.3, 6.0, 2.5], ROW]})

    assert answer.json() == {"prediction": ["setosa", "virginica", "setosa"]}


def test_predict_returns_probabilities_with_proba_true(iris_client: httpx.Client) -> None:
    """With `proba=true` the response has probabilities and class labels."""
    answer = iris_client.post("/predict?proba=true", json={"features": [ROW]}).json()

    assert answer["classes"] == ["setosa", "versicolor", "virginica"]
    assert answer["prediction"] == ["setosa"]
    assert answer["probabilities"] == [[1.0, 0.0, 0.0]]


def test_probabilities_without_predict_proba_are_refused(house_client: httpx.Client) -> None:
    """A request for probabilities of a regression is 400 with the reason."""
    answer = house_client.post("/predict?proba=1", json={"features": [[1, 2]]})

    assert answer.status_code == 400
    assert answer.json() == {"error": "the model gives no probabilities: LinearRegression has no predict_proba"}


def test_several_outputs_are_lists_per_row(house_client: httpx.Client) -> None:
    """A model with several outputs returns a list for each row."""
    answer = house_client.post("/predict", json={"features": {"area": 30.0, "rooms": 1}})

    assert [pytest.approx([1.0, 2.0])] == answer.json()["prediction"]


@pytest.mark.parametrize(
    "rows",
    [PERSON, [PERSON], [PERSON | {"id": 7}], [PERSON | {"age": None}], [[7, 42, "FR", 1]], [None, 42, "FR", 1]],
)
def test_named_columns_are_accepted_by_name_or_in_order(churn_client: httpx.Client, rows: Any) -> None:
    """Rows by name or in order are answered; unused columns may be absent, missing numbers are null."""
    answer = churn_client.post("/predict", json={"instances": rows})

    assert (answer.status_code, len(answer.json()["prediction"])) == (200, 1)


def test_v1_returns_predictions(iris_client: httpx.Client) -> None:
    """The v1 protocol returns the key `predictions`."""
    answer = iris_client.post("/v1/models/iris:predict", json={"instances": [ROW]})

    assert answer.json() == {"predictions": ["setosa"]}


def test_v1_with_an_unknown_model_is_404(iris_client: httpx.Client) -> None:
    """A different model name is 404; the message has the served name."""
    answer = iris_client.post("/v1/models/churn:predict", json={"instances": [ROW]})

    assert (answer.status_code, answer.json()) == (404, {"error": "there is no model 'churn' here, only 'iris'"})


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_the_content_type_is_ignored(iris_client: httpx.Client, content_type: str | None) -> None:
    """Bodies without a Content-Type, or with a wrong Content-Type, are answered."""
    headers = {"content-type": content_type} if content_type else {}

    answer = iris_client.post("/predict", content=json.dumps({"features": [ROW]}), headers=headers)

    assert answer.status_code == 200


def test_predictions_have_the_model_digest_header(iris_client: httpx.Client) -> None:
    """A prediction has the digest of the loaded model in a header."""
    answer = iris_client.post("/predict", json={"features": [ROW]})

    assert iris_client.get("/model").json()["digest"] == answer.headers["x-model-digest"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("POST", "/predict/", b"{}", 404),
        ("GET", "/predict", None, 405),
        ("POST", "/livez", None, 405),
        ("POST", "/predict", b"", 400),
        ("POST", "/predict", b"{", 400),
        ("POST", "/predict", b'{"features": [[1, 2]]}', 400),
        ("POST", "/predict", b'{"features": [[1, 2, 3, "4"]]}', 400),
        ("POST", "/predict", b'{"features": [[1, 2, 3, 1e999]]}', 400),
        ("POST", "/predict", b'{"features": [[1, 2, 3, 1e300]]}', 400),
        ("POST", "/predict", b'{"features": [[1, 2, 3, NaN]]}', 400),
        ("POST", "/predict", b"[" * 1_000_000, 400),
        ("POST", "/predict?proba=perhaps", b"{}", 400),
        ("POST", "/v1/models/a%2Fb:predict", b"{}", 404),
    ],
)
def test_every_error_is_json_with_a_reason(
    iris_client: httpx.Client, method: str, path: str, body: bytes | None, status: int
) -> None:
    """Each error has the expected 4xx status and the body `{"error": reason}`."""
    answer = iris_client.request(method, path, content=body)

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]


def test_a_wrong_method_is_405_with_allow(iris_client: httpx.Client) -> None:
    """Status 405 has an Allow header (RFC 9110, 15.5.6)."""
    assert iris_client.get("/predict").headers["allow"] == "POST"


def test_a_null_refused_by_the_model_is_400(house_client: httpx.Client) -> None:
    """A null refused by the model is 400 with row and column."""
    answer = house_client.post("/predict", json={"features": [{"rooms": 1, "area": None}]})

    assert answer.status_code == 400
    assert answer.json()["error"].startswith("row 0, column 'area' is null, and the model takes no missing values")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_413(serve: Serve, iris: Path, chunked: bool) -> None:
    """With or without a Content-Length a large body is 413, and the next request is answered."""
    client = serve(iris, max_body=1000)
    body = b" " * 2000

    answer = client.post("/predict", content=iter([body]) if chunked else body)

    assert (
        answer.status_code,
        answer.json(),
    ) == (413, {"error": "the body is larger than 1000 bytes: send fewer rows at once"})
    assert client.post("/predict", json={"features": ROW}).status_code == 200


def test_a_body_of_exactly_the_limit_is_accepted(serve: Serve, iris: Path) -> None:
    """A body as large as the limit is accepted."""
    body = json.dumps({"features": ROW}).encode()
    client = serve(iris, max_body=len(body))

    assert client.post("/predict", content=body).status_code == 200


def test_a_stalled_body_is_408(serve: Serve, iris: Path, wait: Wait) -> None:
    """A body that stalls past the deadline is 408, and frees the place of the request."""
    client = serve(iris, body_timeout=0.05)
    stop = threading.Event()

    def body() -> Any:
        yield b"{"
        stop.wait(60)
        yield b"}"

    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(client.post("/predict", content=body())))
    thread.start()
    wait(
        lambda: 'modelserve_inferences_total{outcome="refused"} 1.0' in httpx.get(client.base_url.join("/metrics")).text
    )
    stop.set()
    thread.join()

    assert answers[0].status_code == 408
    assert list(answers[0].json()) == ["error"]


def test_too_many_rows_are_413(serve: Serve, iris: Path) -> None:
    """More rows than the limit are 413 with the limit."""
    answer = serve(iris, max_rows=2).post("/predict", json={"features": [ROW] * 3})

    assert (
        answer.status_code,
        answer.json()["error"],
    ) == (413, "3 rows, and the limit is 2: send them in several requests")


def test_overload_is_503_with_retry_after(serve: Serve, tmp_path: Path, wait: Wait) -> None:
    """Beyond the admitted requests the answer is 503; probes still answer, and later requests succeed."""
    client = serve(save_model(Blocking(tmp_path), tmp_path), threads=1, max_requests=1)
    first: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: first.append(client.post("/predict", json={"features": [[1]]})))
    thread.start()
    wait((tmp_path / "asked").exists)

    refused = client.post("/predict", json={"features": [[1]]})
    ready = client.get("/readyz")
    (tmp_path / "release").touch()
    thread.join()

    assert (refused.status_code, refused.headers["retry-after"], list(refused.json())) == (503, "1", ["error"])
    assert (ready.status_code, first[0].status_code) == (200, 200)
    assert client.post("/predict", json={"features": [[1]]}).status_code == 200
    assert 'modelserve_inferences_total{outcome="overloaded"} 1.0' in client.get("/metrics").text


def test_an_exception_of_the_model_is_500_without_details(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is 500 without details; the log has the traceback."""
    client = serve(save_model(Failing(KeyError("secret")), tmp_path))

    answer = client.post("/predict", json={"features": [[1]]})

    assert (answer.status_code, answer.json()) == (500, {"error": "internal error: the server's log has the cause"})
    assert "KeyError: 'secret'" in caplog.text
    assert client.get("/livez").status_code == 200


def test_probes_answer_get_and_head(iris_client: httpx.Client) -> None:
    """Both probes answer GET and HEAD, the method of load balancers."""
    for path, body in (("/livez", {"live": True}), ("/readyz", {"ready": True})):
        assert (200, body) == (iris_client.get(path).status_code, iris_client.get(path).json())
        assert (iris_client.head(path).status_code, iris_client.head(path).content) == (200, b"")


def test_model_route_returns_facts_and_provenance(iris_client: httpx.Client) -> None:
    """/model returns provenance from the receipt, and facts of the model."""
    said = iris_client.get("/model").json()

    assert said["name"] == "iris"
    assert said["source"] == "s3://models/iris/model.joblib"
    assert said["version"] == "3sL4kqtJlcpXroDTDmJ"
    assert said["digest"] == "sha256:" + said["file"]["sha256"]
    assert (said["verified"], said["fetched"], said["fetched_by"]) == (
        True,
        "2026-11-21T09:00:01+00:00",
        "modelfetch/0.1.0",
    )
    assert (said["kind"], said["features"], said["columns"]) == ("RandomForestClassifier", 4, None)
    assert said["classes"] == ["setosa", "versicolor", "virginica"]
    assert said["probabilities"] is True


def test_model_route_without_a_receipt_is_unverified(churn_client: httpx.Client) -> None:
    """Without a receipt provenance is null; columns are listed with accepted cells."""
    said = churn_client.get("/model").json()

    assert (said["verified"], said["source"], said["fetched"]) == (False, None, None)
    assert said["columns"] == [
        {"name": "id", "takes": "unused"},
        {"name": "age", "takes": "number"},
        {"name": "country", "takes": "any"},
        {"name": "active", "takes": "number"},
    ]


def test_openapi_describes_bodies_and_errors(iris_client: httpx.Client) -> None:
    """The document is valid, has request bodies and errors of every route, and no 422."""
    document = iris_client.get("/openapi.json").json()

    OpenAPI.model_validate(document)
    for path in ("/predict", "/v1/models/{name}:predict"):
        operation = document["paths"][path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == {"features", "instances"}
        assert {"200", "4XX", "503"} == set(operation["responses"])
    assert set(document["paths"]) == {
        "/predict",
        "/v1/models/{name}:predict",
        "/livez",
        "/readyz",
        "/metrics",
        "/model",
        "/",
    }


def test_docs_page_is_served(iris_client: httpx.Client) -> None:
    """The interactive API page is served at /docs."""
    assert iris_client.get("/docs").status_code == 200


def make_json(dice: random.Random, depth: int = 0) -> Any:
    """Make a random JSON value, often similar to a valid request."""
    scalar = [None, True, "", "FR", "\ud800", 0, -1, 2.5, 1e300, -1e308, 10**30, 10**400, "a" * 100, 5]
    kind = dice.random()
    if depth > 3 or kind < 0.55:
        return dice.choice(scalar)
    if kind < 0.8:
        return [make_json(dice, depth + 1) for _ in range(dice.choice([0, 1, 2, 3, 4, 4, 4, 5]))]
    names = ["age", "country", "active", "id", "rooms", "area", "features", "", "\x00"]
    return {dice.choice(names): make_json(dice, depth + 1) for _ in range(dice.randrange(5))}


def make_rows(dice: random.Random, width: int) -> list[list[Any]]:
    """Make rows of the correct width, often with correct types."""
    cells = [None, 1, 2.5, "FR", True, "DE", 0, 10**18, 1e200, -3]
    return [[dice.choice(cells) for _ in range(width)] for _ in range(dice.randrange(1, 4))]


@pytest.mark.server
@pytest.mark.parametrize(("client", "width"), [("iris_client", 4), ("churn_client", 4), ("house_client", 2)])
def test_random_bodies_never_cause_a_5xx(request: pytest.FixtureRequest, client: str, width: int) -> None:
    """Random JSON is answered, or refused with 400 and a reason."""
    http: httpx.Client = request.getfixturevalue(client)
    dice = random.Random(20261121)
    outcomes = set()
    for number in range(200):
        key = dice.choice(["features", "instances"])
        document = (
            make_json(dice) if number % 4 == 0 else {key: make_json(dice) if number % 2 else make_rows(dice, width)}
        )
        body = json.dumps(document)
        if number % 10 == 0:
            body = body[: dice.randrange(len(body) + 1)]

        answer = http.post(dice.choice(["/predict", "/predict?proba=true"]), content=body)

        assert answer.status_code in {200, 400}, (body, answer.text)
        assert next(iter(answer.json())) in {"prediction", "error"}, body
        outcomes.add(answer.status_code)
    assert outcomes == {200, 400}

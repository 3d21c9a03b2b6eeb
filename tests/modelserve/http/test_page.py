import re
import shlex
from html import unescape
from pathlib import Path

import httpx
import pytest

from modelserve.engine.inference import EngineLimits, InferenceEngine
from modelserve.engine.repository import ModelSource
from modelserve.http import page


@pytest.mark.server
@pytest.mark.parametrize("client", ["iris_client", "churn_client", "house_client"])
def test_the_example_request_returns_a_prediction(request: pytest.FixtureRequest, client: str) -> None:
    """The example command, parsed as a shell does, returns a prediction."""
    http: httpx.Client = request.getfixturevalue(client)
    found = re.search("<pre>(.*)</pre>", http.get("/").text)
    assert found

    curl, url, flag, body = shlex.split(unescape(found[1]))
    answer = http.post(f"http://{url}", content=body)

    assert (curl, flag) == ("curl", "-d")
    assert list(answer.json()) == ["prediction"]


def test_the_page_shows_the_served_model(iris_client: httpx.Client) -> None:
    """The page shows name, status, source, version and digest, links the other pages, and loads nothing."""
    answer = iris_client.get("/")
    text = answer.text

    digest = iris_client.get("/model").json()["digest"]
    for expected in ("<title>iris</title>", "ready", "s3://models/iris/model.joblib", "3sL4kqtJlcpXroDTDmJ", digest):
        assert expected in text
    assert {"docs", "model", "metrics"} == set(re.findall('href="(.*?)"', text))
    assert "src=" not in text
    assert answer.headers["content-security-policy"] == page.CONTENT_SECURITY_POLICY


def test_the_page_shows_the_reason_while_loading(tmp_path: Path) -> None:
    """Before the load ends the page shows the reason; the model name is escaped."""
    engine = InferenceEngine(ModelSource(tmp_path, "<b>"), EngineLimits(max_requests=1, threads=1))

    text = page.render_page(engine, host="localhost", port=8000)

    assert "the model is being loaded" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


@pytest.mark.parametrize("host", ['x"><script>', "a b", "[", ""])
def test_an_invalid_host_header_is_not_shown(iris_client: httpx.Client, host: str) -> None:
    """A Host header that is not a valid host never appears in the page."""
    answer = iris_client.get("/", headers={"host": host})

    assert answer.status_code in {200, 400}
    assert "<script" not in answer.text

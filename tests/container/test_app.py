"""The app image on the volume filled by the init image."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from testkit import servers

if TYPE_CHECKING:
    from testkit.stores import Store

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800), pytest.mark.slow]
ENV = {"LOCAL_MODEL_PATH": "/mnt/models/iris/model.joblib"}


def request_json(url: str, body: Any = None) -> Any:
    """Request a URL and return the JSON response."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as reply:
        return json.load(reply)


@contextmanager
def run_app(podman: Any, image: str, volume: Path) -> Iterator[tuple[str, str]]:
    """Run the app with a read-only volume, as in the Deployment; yield address and container id once ready."""
    port = servers.free_port()
    env = {"MODEL_PATH": ENV["LOCAL_MODEL_PATH"], "MODELSERVE_PORT": str(port), "MODELSERVE_HOST": "127.0.0.1"}
    container = podman.run(image, volume=volume, env=env, mode="ro", flags=("--detach",)).stdout.strip()
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                request_json(f"http://127.0.0.1:{port}/readyz")
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
            else:
                break
        else:
            pytest.fail(podman("logs", container).stderr)
        yield f"http://127.0.0.1:{port}", container
    finally:
        podman("rm", "--force", "--time=0", container)


def test_pulled_model_gives_the_same_predictions_as_the_trained_model(
    store: "Store", images: Any, podman: Any, volume: Path, tmp_path: Path
) -> None:
    """The app image serves the init image's volume, and exits with 0 on SIGTERM as process 1."""
    data, target = load_iris(return_X_y=True)
    forest = RandomForestClassifier(10, random_state=0).fit(data, target)
    joblib.dump(forest, tmp_path / "model.joblib")
    store.put("iris/v1/model.joblib", (tmp_path / "model.joblib").read_bytes())
    pulled = podman.run(images.init, volume=volume, env={**store.env, **store.model_env("iris/v1/model.joblib"), **ENV})
    assert pulled.returncode == 0, pulled.stderr

    rows = data[::25].tolist()
    with run_app(podman, images.app, volume) as (url, container):
        answer = request_json(f"{url}/predict", {"features": rows})
        provenance = json.dumps(request_json(f"{url}/model"))
        podman("kill", "--signal=TERM", container)
        code = podman("wait", container).stdout.strip()

    assert answer["prediction"] == forest.predict(rows).tolist()
    assert store.uri("iris/v1/model.joblib") in provenance
    assert code == "0"  # exit on SIGTERM as process 1


def test_app_exits_when_the_model_contradicts_the_receipt(
    store: "Store", images: Any, podman: Any, volume: Path
) -> None:
    """A file changed after the pull ends the app, with the reason in the log."""
    store.put("iris/v1/model.joblib", b"what was pulled")
    pulled = podman.run(images.init, volume=volume, env={**store.env, **store.model_env("iris/v1/model.joblib"), **ENV})
    assert pulled.returncode == 0, pulled.stderr
    (volume / "iris/model.joblib").write_bytes(b"something else!")

    run = podman.run(
        images.app, volume=volume, env={"MODEL_PATH": ENV["LOCAL_MODEL_PATH"], "MODELSERVE_PORT": "0"}, mode="ro"
    )

    assert run.returncode not in (0, 137)
    assert "sha256" in run.stdout + run.stderr

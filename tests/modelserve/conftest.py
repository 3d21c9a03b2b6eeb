"""Fixtures of modelserve's tests: models, receipts and servers."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import joblib
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from modelserve.process.command import create_engine, create_server
from modelserve.process.server import open_listener
from modelserve.process.settings import read_settings

ODD = Path(__file__).parent / "odd"
sys.path.append(str(ODD))  # pickles refer to the module by name
FINISHED = "2026-11-21T09:00:01Z"


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's settings from the environment."""
    for name in list(os.environ):
        if name.startswith(("MODEL_", "MODELSERVE_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def receipt_for() -> Callable[..., Path]:
    """Write a receipt of modelfetch, for a file or for a directory with files."""

    def write(target: Path, *files: Path, **changes: Any) -> Path:
        base = target if files else target.parent
        entries = [
            {
                "path": f.relative_to(base).as_posix(),
                "size": f.stat().st_size,
                "sha256": hashlib.sha256(f.read_bytes()).hexdigest(),
            }
            for f in files or (target,)
        ]
        lines = "".join(f"{e['sha256']}  {e['path']}\n" for e in sorted(entries, key=lambda e: str(e["path"])))
        digest = hashlib.sha256(lines.encode()).hexdigest() if files else entries[0]["sha256"]
        receipt = {
            "schema": 1,
            "tool": "modelfetch/0.1.0",
            "source": f"s3://models/{base.name}/{target.name}",
            "version": "3sL4kqtJlcpXroDTDmJ",
            "digest": f"sha256:{digest}",
            "files": entries,
            "checks": ["size", "crc64nvme"],
            "bytes": sum(int(str(e["size"])) for e in entries),
            "resumed_bytes": 0,
            "seconds": 0.41,
            "retries": 0,
            "started": "2026-11-21T09:00:00Z",
            "finished": FINISHED,
        }
        path = target / ".modelfetch-receipt" if files else target.with_name(target.name + ".modelfetch-receipt")
        path.write_text(json.dumps(receipt | changes), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory, receipt_for: Callable[..., Path]) -> Path:
    """Random forest with string labels, fitted on an array; with a receipt."""
    file = tmp_path_factory.mktemp("models") / "iris" / "model.joblib"
    file.parent.mkdir()
    data = load_iris()
    forest = RandomForestClassifier(10, random_state=0, n_jobs=-1).fit(data.data, data.target_names[data.target])
    joblib.dump(forest, file)
    receipt_for(file)
    return file


@pytest.fixture(scope="session")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipeline fitted on a data frame with numbers, missing numbers, strings and an unused column."""
    frame = pd.DataFrame(
        {
            "id": range(12),
            "age": [20.0, None, 40.0, 50.0, 35.0, 28.0] * 2,
            "country": ["FR", "DE", "ES", "FR", "DE", "ES"] * 2,
            "active": [0, 1, 1, 0, 0, 1] * 2,
        }
    )
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
        (OneHotEncoder(), ["country"]),
        ("passthrough", ["active"]),
    )
    file = tmp_path_factory.mktemp("models") / "churn" / "churn.pkl"
    file.parent.mkdir()
    joblib.dump(make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1, 1, 0, 0, 1] * 2), file)
    return file


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Regression with two outputs, fitted on a data frame of numbers; refuses missing values."""
    frame = pd.DataFrame({"rooms": [1.0, 2.0, 3.0], "area": [30.0, 50.0, 90.0]})
    file = tmp_path_factory.mktemp("models") / "house" / "model.pickle"
    file.parent.mkdir()
    joblib.dump(LinearRegression().fit(frame, [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]), file)
    return file


@pytest.fixture(scope="session")
def wait() -> Callable[[Callable[[], Any]], Any]:
    """Poll until a condition is truthy, and return the value."""

    def poll(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.02)
        raise AssertionError(f"never held: {condition}")

    return poll


Serve = Callable[..., httpx.Client]


def _serve_in_threads(stack: ExitStack, wait: Callable[..., Any]) -> Serve:
    def start(model: Path, *, ready: bool = True, **changes: Any) -> httpx.Client:
        settings = read_settings(MODEL_PATH=model, port=0, **changes)
        engine = create_engine(settings)
        listener = open_listener("127.0.0.1", 0)
        server = create_server(settings, engine)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        stack.callback(thread.join)
        stack.callback(setattr, server, "should_exit", True)
        client = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False, timeout=60)
        )
        repository = engine.repository
        wait(lambda: repository.model or repository.failure if ready else server.started)
        return client

    return start


@pytest.fixture
def serve(wait: Callable[..., Any]) -> Iterator[Serve]:
    """Serve a model with a real uvicorn in a thread; return a client."""
    with ExitStack() as stack:
        yield _serve_in_threads(stack, wait)


@pytest.fixture(scope="session")
def serve_long(wait: Callable[..., Any]) -> Iterator[Serve]:
    """Serve a model for the whole test session."""
    with ExitStack() as stack:
        yield _serve_in_threads(stack, wait)


@pytest.fixture(scope="session")
def iris_client(serve_long: Serve, iris: Path) -> httpx.Client:
    """Client of a server with the iris forest."""
    return serve_long(iris)


@pytest.fixture(scope="session")
def churn_client(serve_long: Serve, churn: Path) -> httpx.Client:
    """Client of a server with the churn pipeline."""
    return serve_long(churn)


@pytest.fixture(scope="session")
def house_client(serve_long: Serve, house: Path) -> httpx.Client:
    """Client of a server with the house regression."""
    return serve_long(house)


@dataclass
class App:
    """Running `modelserve` process with the log file."""

    process: subprocess.Popen[str]
    log: Path
    client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=60))

    def lines(self) -> list[dict[str, Any]]:
        """Return the complete log lines; an incomplete last line is left out."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines(keepends=True) if line[-1] == "\n"]

    def line(self, message: str) -> dict[str, Any] | None:
        """Return the first log line with this message, or None."""
        return next((line for line in self.lines() if line["message"] == message), None)

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        listening = self.line("listening")
        assert listening
        return f"http://127.0.0.1:{listening['port']}{path}"

    def get(self, path: str) -> httpx.Response:
        """Send one GET request for a path."""
        return self.client.get(self.url(path))

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def launch(tmp_path: Path, wait: Callable[..., Any]) -> Iterator[Callable[..., App]]:
    """Start `modelserve` as a process, and wait until the process listens or ends."""
    apps: list[App] = []

    def start(model: Path, *flags: str, **environment: str) -> App:
        log = tmp_path / f"log-{len(apps)}"
        env = os.environ | {"MODEL_PATH": str(model), "PYTHONPATH": str(ODD), "MODELSERVE_DRAIN": "0"} | environment
        with log.open("w") as stderr:
            command = [sys.executable, "-m", "modelserve", "--port", "0", *flags]
            app = App(subprocess.Popen(command, env=env, stderr=stderr, text=True), log)
        apps.append(app)
        wait(lambda: app.line("listening") or app.process.poll() is not None)
        return app

    yield start
    for app in apps:
        app.client.close()
        if app.process.poll() is None:
            app.process.kill()
        app.process.wait()

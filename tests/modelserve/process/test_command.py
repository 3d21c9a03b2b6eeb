"""Process tests: command line, start, failures and shutdown."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import joblib
import pytest
from odd_models import Blocking, Exiting

from modelserve import __version__
from modelserve.process.settings import Settings, get_variable

ROW = {"features": [5.1, 3.5, 1.4, 0.2]}
Launch = Callable[..., Any]
Wait = Callable[[Callable[[], Any]], Any]


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script to the end."""
    script = Path(sys.executable).with_name("modelserve")
    return subprocess.run(
        [script, *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def post_rows(app: Any, body: Any) -> httpx.Response:
    """Send one prediction request to the app."""
    answer: httpx.Response = app.client.post(app.url("/predict"), json=body)
    return answer


@pytest.mark.process
def test_help_lists_every_setting() -> None:
    """`--help` lists every variable with the description."""
    shown = run_script("--help").stdout

    for name, field in Settings.model_fields.items():
        assert get_variable(name) in shown
        assert str(field.description) in shown
    assert "--port" in shown
    assert "--host" in shown


@pytest.mark.process
def test_version_prints_the_distribution_version() -> None:
    """`--version` prints the version shared by the app and the fetcher."""
    assert run_script("--version").stdout == f"modelserve {__version__}\n"


def test_a_model_is_loaded_and_served_until_sigterm(launch: Launch, wait: Wait, iris: Path) -> None:
    """The full life cycle ends with exit 0: listening, ready, prediction, log lines, SIGTERM."""
    app = launch(iris.parent, MODELSERVE_PORT="tcp://10.0.0.1:80", MODELSERVE_PRT="1")
    assert app.get("/livez").json() == {"live": True}
    wait(lambda: app.get("/readyz").status_code == 200)

    assert post_rows(app, ROW).json() == {"prediction": ["setosa"]}
    assert app.stop() == 0

    messages = [line["message"] for line in app.lines()]
    assert messages[0] == "MODELSERVE_PRT is not a setting and does nothing; did you mean MODELSERVE_PORT?"
    assert messages[1:] == ["listening", "ready", "request", "stopping"]
    ready = app.line("ready")
    assert (ready["model"], ready["source"]) == ("iris", "s3://models/iris/model.joblib")
    assert ready["digest"].startswith("sha256:")
    request = app.line("request")
    assert (request["method"], request["path"], request["status"]) == ("POST", "/predict", 200)


def test_readiness_is_refused_while_the_model_loads(launch: Launch, wait: Wait, tmp_path: Path) -> None:
    """During the load: alive, not ready with the reason, predictions 503 with Retry-After; SIGTERM ends at once."""
    os.mkfifo(tmp_path / "gate")
    app = launch(save_blocking_model(tmp_path), MODELSERVE_DRAIN="1h")

    answers = {path: app.get(path) for path in ("/livez", "/readyz", "/model", "/")}
    refused = post_rows(app, ROW)

    assert {k: v.status_code for k, v in answers.items()} == {"/livez": 200, "/readyz": 503, "/model": 503, "/": 200}
    assert answers["/readyz"].json() == {"ready": False, "error": "the model is being loaded"}
    assert "the model is being loaded" in answers["/"].text
    assert (
        refused.status_code,
        refused.headers["retry-after"],
        refused.json(),
    ) == (503, "1", {"error": "the model is being loaded"})
    assert "modelserve_model_ready 0.0" in app.get("/metrics").text
    assert app.stop() == 0


def save_blocking_model(folder: Path) -> Path:
    """Create a model that blocks in unpickling until a writer opens the pipe `gate`."""
    file = folder / "model.pkl"
    # open(<gate>) blocks the loader
    file.write_bytes(b"\x80\x04cio\nopen\n(V" + str(folder / "gate").encode() + b"\ntR.")
    return file


def test_a_damaged_model_ends_the_process_with_code_and_reason(
    launch: Launch, iris: Path, receipt_for: Callable[..., Path], tmp_path: Path
) -> None:
    """A model that contradicts the receipt is exit 65, with one log line, repeated in the termination log."""
    copy = tmp_path / "copy" / "model.joblib"
    copy.parent.mkdir()
    shutil.copy(iris, copy)
    receipt_for(copy)
    os.truncate(copy, 5000)
    log = tmp_path / "termination-log"
    log.touch()

    app = launch(copy, MODELSERVE_TERMINATION_LOG=str(log))

    assert app.process.wait(60) == 65
    last = app.lines()[-1]
    assert (last["level"], last["code"], last["reason"]) == ("error", 65, "wrong_bytes")
    assert "has 5000 bytes, and its receipt" in last["message"]
    assert json.loads(log.read_text()) == {k: v for k, v in last.items() if k != "time"}


def test_a_pickle_that_calls_exit_is_a_failed_load(launch: Launch, tmp_path: Path) -> None:
    """SystemExit in a pickle is exit 70 with a message, neither a silent end nor an endless load."""
    (tmp_path / "odd").mkdir()
    joblib.dump(Exiting(), tmp_path / "odd" / "model.pkl")

    app = launch(tmp_path / "odd")

    assert app.process.wait(60) == 70
    assert "The model could not be loaded: SystemExit" in app.lines()[-1]["message"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("environment", "code", "message"),
    [
        ({}, 78, "MODEL_PATH is not set."),
        ({"MODEL_PATH": "nowhere"}, 66, "There is no model at "),
        ({"MODEL_PATH": "m", "MODELSERVE_PORT": "http"}, 78, "MODELSERVE_PORT='http': "),
        ({"MODEL_PATH": "m", "MODELSERVE_MAX_BODY": "9" * 400}, 78, "MODELSERVE_MAX_BODY='999"),
        ({"MODEL_PATH": "m", "MODELSERVE_HOST": "203.0.113.1"}, 78, "Cannot listen on 203.0.113.1 port "),
    ],
)
def test_a_wrong_setting_ends_with_a_code_and_without_a_traceback(
    environment: dict[str, str], code: int, message: str
) -> None:
    """A wrong setting or path ends the process with a code; the last line has message and hint."""
    ended = (
        run_script("--port", "0", **environment) if "MODELSERVE_PORT" not in environment else run_script(**environment)
    )

    last = json.loads(ended.stderr.splitlines()[-1])
    assert (code, code) == (ended.returncode, last["code"])
    assert last["message"].startswith(message)
    assert last["hint"]
    assert "Traceback" not in ended.stderr


@pytest.mark.server
def test_a_port_in_use_is_exit_78() -> None:
    """A port in use is exit 78; the message names address and port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_script("--port", str(port), MODEL_PATH="m")

    last = json.loads(ended.stderr.splitlines()[-1])
    assert ended.returncode == 78
    assert last["message"] == f"Cannot listen on 127.0.0.1 port {port}: Address already in use."


@pytest.mark.process
@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        ({}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "MODELSERVE_HOST": "127.0.0.2"}, False),
    ],
)
def test_a_loopback_address_in_a_cluster_is_warned_about(environment: dict[str, str], warned: bool) -> None:
    """In a cluster, a loopback address causes a warning; elsewhere none."""
    ended = run_script("--port", "0", MODEL_PATH="nowhere", **environment)

    assert warned is ("set MODELSERVE_HOST=0.0.0.0" in ended.stderr)


def test_sigterm_drains_before_the_listener_closes(launch: Launch, wait: Wait, tmp_path: Path) -> None:
    """After SIGTERM: not ready, new requests answered with Connection: close, open requests finished, exit 0."""
    file = tmp_path / "odd" / "model.joblib"
    file.parent.mkdir()
    joblib.dump(Blocking(tmp_path), file)
    app = launch(file, MODELSERVE_DRAIN="1h", MODELSERVE_THREADS="2")
    wait(lambda: app.get("/readyz").status_code == 200)
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(post_rows(app, {"features": [[1]]})))
    thread.start()
    wait((tmp_path / "asked").exists)

    app.process.send_signal(signal.SIGTERM)
    wait(lambda: app.line("stopping"))
    unready, live, refused = app.get("/readyz"), app.get("/livez"), post_rows(app, {"features": [[1, 2]]})
    app.process.send_signal(signal.SIGTERM)  # the grace period is over
    wait(lambda: not is_reachable(app))
    (tmp_path / "release").touch()
    thread.join()

    assert (unready.status_code, unready.json()) == (503, {"ready": False, "error": "the server is stopping"})
    assert (live.status_code, refused.status_code) == (200, 400)
    assert {"close"} == {answer.headers["connection"] for answer in (unready, live, refused, *answers)}
    assert (answers[0].status_code, answers[0].json()) == (200, {"prediction": [0.0]})
    assert app.process.wait(60) == 0


def is_reachable(app: Any) -> bool:
    """Return whether the app accepts new connections."""
    try:
        app.get("/livez")
    except httpx.TransportError:
        return False
    return True


def test_the_process_ends_after_the_grace_period(launch: Launch, wait: Wait, iris: Path) -> None:
    """After SIGTERM and the grace period the process ends with exit 0."""
    app = launch(iris, MODELSERVE_DRAIN="200ms")
    wait(lambda: app.get("/readyz").status_code == 200)

    assert app.stop() == 0


def test_sigint_skips_the_grace_period(launch: Launch, wait: Wait, iris: Path) -> None:
    """SIGINT ends an idle server at once, with exit 0."""
    app = launch(iris, MODELSERVE_DRAIN="1h")
    wait(lambda: app.get("/readyz").status_code == 200)

    app.process.send_signal(signal.SIGINT)

    assert app.process.wait(60) == 0

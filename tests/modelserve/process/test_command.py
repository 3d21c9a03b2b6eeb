"""The process: its command line, its start, its failures and its end."""

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


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script to its end."""
    script = Path(sys.executable).with_name("modelserve")
    return subprocess.run(
        [script, *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def post(app: Any, body: Any) -> httpx.Response:
    """One prediction."""
    answer: httpx.Response = app.client.post(app.url("/predict"), json=body)
    return answer


def test_help_names_every_setting() -> None:
    """Each variable stands in --help with its description."""
    shown = run("--help").stdout

    for name, field in Settings.model_fields.items():
        assert get_variable(name) in shown
        assert str(field.description) in shown
    assert "--port" in shown
    assert "--host" in shown


def test_version_is_the_distributions() -> None:
    """The app and the fetcher are released together."""
    assert run("--version").stdout == f"modelserve {__version__}\n"


def test_a_model_is_loaded_served_and_left_in_peace(launch: Launch, wait: Wait, iris: Path) -> None:
    """The whole life: listening, ready, predictions, log lines, SIGTERM, exit 0."""
    app = launch(iris.parent, MODELSERVE_PORT="tcp://10.0.0.1:80", MODELSERVE_PRT="1")
    assert app.get("/livez").json() == {"live": True}
    wait(lambda: app.get("/readyz").status_code == 200)

    assert post(app, ROW).json() == {"prediction": ["setosa"]}
    assert app.stop() == 0

    messages = [line["message"] for line in app.lines()]
    assert messages[0] == "MODELSERVE_PRT is not a setting and does nothing; did you mean MODELSERVE_PORT?"
    assert messages[1:] == ["listening", "ready", "request", "stopping"]
    ready = app.line("ready")
    assert (ready["model"], ready["source"]) == ("iris", "s3://models/iris/model.joblib")
    assert ready["digest"].startswith("sha256:")
    request = app.line("request")
    assert (request["method"], request["path"], request["status"]) == ("POST", "/predict", 200)


def test_while_the_model_loads_the_reason_is_told(launch: Launch, wait: Wait, tmp_path: Path) -> None:
    """Alive, not ready, with the reason; predictions are 503 and told to come back; SIGTERM ends it at once."""
    os.mkfifo(tmp_path / "gate")
    app = launch(blocked(tmp_path), MODELSERVE_DRAIN="1h")

    answers = {path: app.get(path) for path in ("/livez", "/readyz", "/model", "/")}
    refused = post(app, ROW)

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


def blocked(folder: Path) -> Path:
    """A model that is not unpickled before somebody writes to the pipe `gate`."""
    file = folder / "model.pkl"
    # open(<gate>): the loader waits there
    file.write_bytes(b"\x80\x04cio\nopen\n(V" + str(folder / "gate").encode() + b"\ntR.")
    return file


def test_a_model_that_cannot_be_served_ends_the_process_with_the_reason(
    launch: Launch, iris: Path, receipt_for: Callable[..., Path], tmp_path: Path
) -> None:
    """One line in the log, the same where Kubernetes shows it, and an exit code that says what kind it was."""
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


def test_a_pickle_that_exits_is_a_failure(launch: Launch, tmp_path: Path) -> None:
    """It neither ends the process in silence nor leaves it loading for ever."""
    (tmp_path / "odd").mkdir()
    joblib.dump(Exiting(), tmp_path / "odd" / "model.pkl")

    app = launch(tmp_path / "odd")

    assert app.process.wait(60) == 70
    assert "The model could not be loaded: SystemExit" in app.lines()[-1]["message"]


@pytest.mark.parametrize(
    ("environment", "code", "message"),
    [
        ({}, 78, "MODEL_PATH is not set."),
        ({"MODEL_PATH": "nowhere"}, 66, "There is no model at "),
        ({"MODEL_PATH": "m", "MODELSERVE_PORT": "http"}, 78, "MODELSERVE_PORT='http': "),
        ({"MODEL_PATH": "m", "MODELSERVE_HOST": "203.0.113.1"}, 78, "Cannot listen on 203.0.113.1 port "),
    ],
)
def test_a_wrong_start_is_one_line_and_a_code(environment: dict[str, str], code: int, message: str) -> None:
    """No traceback; the last line has the cause and the next step."""
    ended = run("--port", "0", **environment) if "MODELSERVE_PORT" not in environment else run(**environment)

    last = json.loads(ended.stderr.splitlines()[-1])
    assert (code, code) == (ended.returncode, last["code"])
    assert last["message"].startswith(message)
    assert last["hint"]
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_said() -> None:
    """The port and the way out are named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--port", str(port), MODEL_PATH="m")

    last = json.loads(ended.stderr.splitlines()[-1])
    assert ended.returncode == 78
    assert last["message"] == f"Cannot listen on 127.0.0.1 port {port}: Address already in use."


@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        ({}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "MODELSERVE_HOST": "127.0.0.2"}, False),
    ],
)
def test_in_a_cluster_listening_on_loopback_is_warned_of(environment: dict[str, str], warned: bool) -> None:
    """Probes would fail, and nothing else would say why."""
    ended = run("--port", "0", MODEL_PATH="nowhere", **environment)

    assert warned is ("set MODELSERVE_HOST=0.0.0.0" in ended.stderr)


def test_sigterm_cuts_no_request(launch: Launch, wait: Wait, tmp_path: Path) -> None:
    """Not ready at once; new requests are still answered, each with Connection: close; what is open ends in peace."""
    file = tmp_path / "odd" / "model.joblib"
    file.parent.mkdir()
    joblib.dump(Blocking(tmp_path), file)
    app = launch(file, MODELSERVE_DRAIN="1h", MODELSERVE_THREADS="2")
    wait(lambda: app.get("/readyz").status_code == 200)
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(post(app, {"features": [[1]]})))
    thread.start()
    wait((tmp_path / "asked").exists)

    app.process.send_signal(signal.SIGTERM)
    wait(lambda: app.line("stopping"))
    unready, live, refused = app.get("/readyz"), app.get("/livez"), post(app, {"features": [[1, 2]]})
    app.process.send_signal(signal.SIGTERM)  # the grace period is over
    wait(lambda: not reachable(app))
    (tmp_path / "release").touch()
    thread.join()

    assert (unready.status_code, unready.json()) == (503, {"ready": False, "error": "the server is stopping"})
    assert (live.status_code, refused.status_code) == (200, 400)
    assert {"close"} == {answer.headers["connection"] for answer in (unready, live, refused, *answers)}
    assert (answers[0].status_code, answers[0].json()) == (200, {"prediction": [0.0]})
    assert app.process.wait(60) == 0


def reachable(app: Any) -> bool:
    """Whether it takes new connections."""
    try:
        app.get("/livez")
    except httpx.TransportError:
        return False
    return True


def test_the_grace_period_ends_by_itself(launch: Launch, wait: Wait, iris: Path) -> None:
    """A pod that gets SIGTERM ends without being killed."""
    app = launch(iris, MODELSERVE_DRAIN="200ms")
    wait(lambda: app.get("/readyz").status_code == 200)

    assert app.stop() == 0


def test_ctrl_c_does_not_wait_for_a_grace_period(launch: Launch, wait: Wait, iris: Path) -> None:
    """On a laptop nobody waits for a Service."""
    app = launch(iris, MODELSERVE_DRAIN="1h")
    wait(lambda: app.get("/readyz").status_code == 200)

    app.process.send_signal(signal.SIGINT)

    assert app.process.wait(60) == 0

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserve.errors import ConfigError, NotFoundError
from modelserve.process import logs


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    """Logging is the process's: what a test sets up goes again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_off_a_terminal_every_line_is_json(capfd: pytest.CaptureFixture[str]) -> None:
    """Extras become keys, a traceback is one of them, and line breaks stay inside."""
    logs.configure_logging("auto", "info")
    try:
        int("x")
    except ValueError:
        logging.getLogger("a").exception("went\nwrong", extra={"path": "/é\ud800"})

    (line,) = capfd.readouterr().err.splitlines()
    said = json.loads(line)

    assert (said["level"], said["message"], said["path"]) == ("error", "went\nwrong", "/é\ud800")
    assert said["time"].endswith("Z")
    assert said["traceback"].endswith("ValueError: invalid literal for int() with base 10: 'x'")


def test_text_is_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    """Level, message and extras."""
    logs.configure_logging("text", "info")
    logging.getLogger("a").info("ready", extra={"model": "iris"})
    logging.getLogger("a").error("No.", extra={"code": 65, "hint": "Try."})
    logging.getLogger("a").debug("not this")

    assert capfd.readouterr().err == "info: ready model=iris\nerror: No. Try. code=65\n"


def test_a_failure_goes_to_the_termination_log_if_it_exists(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Kubernetes shows what is in that file; outside a pod none is made."""
    logs.configure_logging("json", "info")
    file = tmp_path / "termination-log"

    logs.report_failure(NotFoundError("nothing there", hint="look"), file, Path("m"))
    assert not file.exists()
    file.touch()
    logs.report_failure(NotFoundError("nothing there", hint="look"), file, Path("m"))

    expected = {
        "level": "error",
        "message": "nothing there",
        "code": 66,
        "reason": "not_found",
        "hint": "look",
        "model_path": "m",
    }
    assert expected == json.loads(file.read_text())
    logged = json.loads(capfd.readouterr().err.splitlines()[0])
    assert expected == {k: v for k, v in logged.items() if k != "time"}


def test_a_termination_log_fits_what_kubernetes_keeps(tmp_path: Path) -> None:
    """A long message is cut, the JSON stays whole."""
    file = tmp_path / "termination-log"
    file.touch()

    logs.report_failure(ConfigError("ü" * 10_000, hint="h" * 10_000), file, Path("p" * 10_000))

    assert file.stat().st_size <= 4096
    assert json.loads(file.read_text())["code"] == 78

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserve.errors import ConfigError, NotFoundError
from modelserve.process import logs


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """Restore the process-wide logging configuration after each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_auto_format_writes_json_outside_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """Outside a terminal a record is one JSON line: extras and traceback are keys, line breaks stay inside."""
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


def test_text_format_writes_level_message_hint_and_extras(capfd: pytest.CaptureFixture[str]) -> None:
    """Text format writes level, message, hint and extras; records below the level are dropped."""
    logs.configure_logging("text", "info")
    logging.getLogger("a").info("ready", extra={"model": "iris"})
    logging.getLogger("a").error("No.", extra={"code": 65, "hint": "Try."})
    logging.getLogger("a").debug("not this")

    assert capfd.readouterr().err == "info: ready model=iris\nerror: No. Try. code=65\n"


def test_a_failure_is_written_to_an_existing_termination_log_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failure is logged, and repeated in an existing termination log; a missing file is not created."""
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


def test_a_long_failure_is_cut_to_the_kubelet_limit(tmp_path: Path) -> None:
    """Long messages are cut to 4096 bytes of valid JSON."""
    file = tmp_path / "termination-log"
    file.touch()

    logs.report_failure(ConfigError("ü" * 10_000, hint="h" * 10_000), file, Path("p" * 10_000))

    assert file.stat().st_size <= 4096
    assert json.loads(file.read_text())["code"] == 78

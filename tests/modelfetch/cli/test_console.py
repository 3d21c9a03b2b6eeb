"""Console: events on stderr as JSON lines or text, at a level; nothing on stdout."""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelfetch.cli.console import Console
from modelfetch.cli.failure_report import report_error, write_termination_message
from modelfetch.cli.redaction import Redactor
from modelfetch.errors import NotFoundError, UnsafeNameError

Captured = pytest.CaptureFixture[str]


def read_lines(capsys: Captured) -> list[dict[str, Any]]:
    """Return the JSON lines on stderr; stdout must be empty."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_log_is_json_lines(capsys: Captured) -> None:
    """Each line has time, level, message and facts; non-ASCII text stays readable."""
    console = Console()
    console.log_info("Füße\nzwei", path=Path("/m"), digest="x")
    console.log_warning("Careful.")

    first, second = read_lines(capsys)

    assert first.items() >= {"level": "info", "message": "Füße\nzwei", "path": "/m", "digest": "x"}.items()
    assert second["level"] == "warning"
    assert first["time"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "levels"),
    [
        ("debug", ["info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_and_above_are_logged(capsys: Captured, level: str, levels: list[str]) -> None:
    """A failure is logged at every level, a transfer at level info."""
    console = Console(log_level=level)
    console.log_info("a")
    console.log_warning("b")
    console.start_phase("m", 10)
    console.add_bytes(10)
    console.report_failure(report_error(NotFoundError("c"), ""))

    reported = [line["level"] for line in read_lines(capsys)]

    assert list(dict.fromkeys(reported)) == levels
    assert len(reported) == len(levels) + (2 if "info" in levels else 0)


def progress_lines(capsys: Captured) -> list[dict[str, Any]]:
    """Return the progress lines on stderr."""
    return [line for line in read_lines(capsys) if line["message"] == "progress"]


def test_progress_is_logged_every_ten_percent(capsys: Captured) -> None:
    """Each tenth gives one line; the last line says 100 %."""
    console = Console()
    console.start_phase("m", 1000)
    for _ in range(1000):
        console.add_bytes(1)

    reported = progress_lines(capsys)

    assert [line["percent"] for line in reported] == list(range(10, 101, 10))
    assert reported[-1].items() >= {"bytes": 1000, "total_bytes": 1000}.items()
    assert reported[-1]["bytes_per_second"] > 0


def test_second_transfer_starts_at_zero(capsys: Captured) -> None:
    """The counter starts at zero for each pair of a run."""
    console = Console()
    for _ in range(2):
        console.start_phase("m", 10)
        console.add_bytes(10)
        console.end_phase()

    assert [line["bytes"] for line in progress_lines(capsys)] == [10, 10]


def test_refetched_bytes_count_once(capsys: Captured) -> None:
    """A negative count takes bytes back: progress never exceeds 100 %."""
    console = Console()
    console.start_phase("m", 10)
    for count in (5, -5, 5, 5):
        console.add_bytes(count)

    assert max(line["percent"] for line in progress_lines(capsys)) == 100


def test_unknown_size_is_logged_without_percent_every_ten_seconds(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress of a model of unknown size is logged by time."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console = Console()
    console.start_phase("m", None)
    for _ in range(25):
        now += 1
        console.add_bytes(5)

    reported = progress_lines(capsys)

    assert [line["bytes"] for line in reported] == [50, 100]
    assert "percent" not in reported[0]
    assert reported[0]["bytes_per_second"] == 5


def test_progress_off_logs_only_the_start(capsys: Captured) -> None:
    """The start of a transfer is logged in any case."""
    console = Console(progress="off")
    console.start_phase("Fetching m", 10)
    console.add_bytes(10)

    assert [line["message"] for line in read_lines(capsys)] == ["Fetching m."]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_closed_console_drops_events_but_not_the_failure(capsys: Captured, log_format: str) -> None:
    """Running threads write nothing after the failure report, the last line for a machine."""
    console = Console(log_format)
    console.start_phase("m", 10)
    console.close()
    console.report_failure(report_error(NotFoundError("the end"), ""))

    console.add_bytes(10)
    console.log_info("late")
    console.log_warning("later")

    assert "the end" in capsys.readouterr().err.splitlines()[-1]


def test_text_shows_plain_lines_and_hint(capsys: Captured) -> None:
    """Text shows messages without facts, markup unchanged, and the failure with its hint."""
    console = Console(log_format="text")
    console.log_info("Published [bold]x[/bold].", digest="hidden")
    console.log_warning("Careful.")
    console.start_phase("m", 10)
    console.add_bytes(10)
    console.end_phase()
    console.report_failure(report_error(NotFoundError("No model.", hint="Look elsewhere."), ""))

    out, err = capsys.readouterr()

    assert out == ""
    assert err.splitlines() == [
        "Published [bold]x[/bold].",
        "warning: Careful.",
        "10 bytes (100 %)",
        "error: No model. Look elsewhere.",
    ]


@pytest.mark.parametrize(
    ("log_format", "progress", "term", "bar"),
    [
        ("auto", "auto", "xterm", True),
        ("text", "auto", "xterm", True),
        ("auto", "bar", "xterm", True),
        ("json", "auto", "xterm", False),
        ("auto", "lines", "xterm", False),
        ("auto", "off", "xterm", False),
        ("auto", "auto", "dumb", False),
    ],
)
def test_terminal_shows_a_bar_unless_unsuited_or_disabled(
    monkeypatch: pytest.MonkeyPatch, log_format: str, progress: str, term: str, bar: Any
) -> None:
    """The bar, or else a line, shows the bytes."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", term)

    console = Console(log_format, progress=progress)
    console.start_phase("gs://b/[o]", 1000)
    console.add_bytes(1000)
    console.end_phase()

    assert ("━" in screen.getvalue()) == bar
    assert ("1000 bytes (100 %)" in screen.getvalue()) == (log_format != "json" and not bar and progress != "off")


def test_console_logs_on_after_a_failure(capsys: Captured) -> None:
    """A failure report alone does not close the console: a later command may use it."""
    console = Console()
    console.report_failure(report_error(NotFoundError("first"), ""))
    console.log_info("second")

    assert [line["message"] for line in read_lines(capsys)] == ["first", "second"]


INVISIBLE = "\u202egpj.\u202c \u200b\ufeff \x7f\x9b2J\x85 \u2028 \u2066\u00ad \U000e0041"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_invisible_characters_are_escaped(capsys: Captured, tmp_path: Path, log_format: str) -> None:
    """A name cannot hide or reorder its end, nor command the terminal; JSON readers get the original name."""
    report = report_error(UnsafeNameError(f"The key {INVISIBLE} is bad.", hint=INVISIBLE), INVISIBLE)
    Console(log_format).log_warning(INVISIBLE, key=INVISIBLE)
    Console(log_format).report_failure(report)
    write_termination_message(tmp_path / "log", report, Redactor())

    err, written = capsys.readouterr().err, (tmp_path / "log").read_text()

    assert [char for char in err + written if not (char.isprintable() or char in "\n\N{REPLACEMENT CHARACTER}")] == []
    assert "\\u202egpj.\\u202c" in err
    assert json.loads(written) == report
    if log_format == "json":
        assert json.loads(err.splitlines()[0])["key"] == INVISIBLE

"""What a person and a log are told; nothing of it on stdout."""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelfetch.cli import console
from modelfetch.cli.console import Console
from modelfetch.errors import MismatchError, ModelfetchError, NotFoundError, UnsafeNameError

Captured = pytest.CaptureFixture[str]


def lines(capsys: Captured) -> list[dict[str, Any]]:
    """What was logged; stdout must be empty."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_a_log_is_json_lines(capsys: Captured) -> None:
    """With time, level, message and facts; other alphabets stay readable."""
    talk = Console()
    talk.note("Füße\nzwei", path=Path("/m"), digest="x")
    talk.warn("Careful.")

    first, second = lines(capsys)

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
def test_the_level_is_the_least_that_is_told(capsys: Captured, level: str, levels: list[str]) -> None:
    """A failure is told whatever the level, a transfer as information."""
    talk = Console(log_level=level)
    talk.note("a")
    talk.warn("b")
    talk.begin("m", 10)
    talk.advance(10)
    talk.failed(console.failure(NotFoundError("c"), ""))

    told = [line["level"] for line in lines(capsys)]

    assert list(dict.fromkeys(told)) == levels
    assert len(told) == len(levels) + (2 if "info" in levels else 0)


def progress(capsys: Captured) -> list[dict[str, Any]]:
    """The lines on progress."""
    return [line for line in lines(capsys) if line["message"] == "progress"]


def test_progress_is_told_every_tenth(capsys: Captured) -> None:
    """Not more often, and the last at 100 %."""
    talk = Console()
    talk.begin("m", 1000)
    for _ in range(1000):
        talk.advance(1)

    told = progress(capsys)

    assert [line["percent"] for line in told] == list(range(10, 101, 10))
    assert told[-1].items() >= {"bytes": 1000, "total_bytes": 1000}.items()
    assert told[-1]["bytes_per_second"] > 0


def test_a_second_model_is_counted_anew(capsys: Captured) -> None:
    """Of a run with several pairs."""
    talk = Console()
    for _ in range(2):
        talk.begin("m", 10)
        talk.advance(10)
        talk.end()

    assert [line["bytes"] for line in progress(capsys)] == [10, 10]


def test_bytes_to_be_fetched_again_are_taken_back(capsys: Captured) -> None:
    """Never more than 100 %."""
    talk = Console()
    talk.begin("m", 10)
    for count in (5, -5, 5, 5):
        talk.advance(count)

    assert max(line["percent"] for line in progress(capsys)) == 100


def test_a_model_of_unknown_size_has_no_percent(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of every 10 s."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    talk = Console()
    talk.begin("m", None)
    for _ in range(25):
        now += 1
        talk.advance(5)

    told = progress(capsys)

    assert [line["bytes"] for line in told] == [50, 100]
    assert "percent" not in told[0]
    assert told[0]["bytes_per_second"] == 5


def test_progress_can_be_switched_off(capsys: Captured) -> None:
    """The beginning is still told."""
    talk = Console(progress="off")
    talk.begin("Fetching m", 10)
    talk.advance(10)

    assert [line["message"] for line in lines(capsys)] == ["Fetching m."]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_failure_is_the_last_word(capsys: Captured, log_format: str) -> None:
    """Whatever the threads that still run have to say; a machine reads the last line."""
    talk = Console(log_format)
    talk.begin("m", 10)
    talk.failed(console.failure(NotFoundError("the end"), ""))

    talk.advance(10)
    talk.note("late")
    talk.warn("later")

    assert "the end" in capsys.readouterr().err.splitlines()[-1]


def test_text_is_for_people(capsys: Captured) -> None:
    """Plain lines, the failure with its hint, markup as it is."""
    talk = Console(log_format="text")
    talk.note("Published [bold]x[/bold].", digest="hidden")
    talk.warn("Careful.")
    talk.begin("m", 10)
    talk.advance(10)
    talk.end()
    talk.failed(console.failure(NotFoundError("No model.", hint="Look elsewhere."), ""))

    out, err = capsys.readouterr()

    assert out == ""
    assert err.splitlines() == [
        "Published [bold]x[/bold].",
        "warning: Careful.",
        "10 bytes (100 %)",
        "error: No model. Look elsewhere.",
    ]


def test_a_failure_is_one_flat_object() -> None:
    """One line each, whatever an SDK said."""
    told = console.failure(MismatchError("Two\n lines", hint="a\tb"), "s3://b/k")

    assert told == {
        "level": "error",
        "code": 65,
        "reason": "mismatch",
        "message": "Two lines",
        "hint": "a b",
        "source": "s3://b/k",
    }


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("Short.", hint="Hint."),
        NotFoundError("x" * 10_000),
        NotFoundError("日本語" * 3000, hint="ü" * 5000),
        NotFoundError('"\\' * 4000, hint="\x01" * 2000),
        NotFoundError("m", hint="😀" * 2000),
    ],
)
def test_a_termination_message_is_valid_json_of_4_kib_at_most(tmp_path: Path, error: ModelfetchError) -> None:
    """Whatever has to be cut, in whatever alphabet."""
    console.write_termination_message(tmp_path / "log", console.failure(error, "s3://b/" + "k" * 3000))

    text = (tmp_path / "log").read_bytes()
    told = json.loads(text)
    assert len(text) <= 4096
    assert b"\n" not in text
    assert (told["code"], told["reason"]) == (66, "not_found")
    assert told["message"][0] == error.message[0]
    assert len(text) > 2048 or told["message"] == "Short."


UNSEEN = "\u202egpj.\u202c \u200b\ufeff \x7f\x9b2J\x85 \u2028 \u2066\u00ad \U000e0041"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_would_not_show_is_shown(capsys: Captured, tmp_path: Path, log_format: str) -> None:
    """A key can hide its end, turn it round, or speak to the terminal; a machine reads it all the same."""
    failure = console.failure(UnsafeNameError(f"The key {UNSEEN} is bad.", hint=UNSEEN), UNSEEN)
    Console(log_format).warn(UNSEEN, key=UNSEEN)
    Console(log_format).failed(failure)
    console.write_termination_message(tmp_path / "log", failure)

    said, left = capsys.readouterr().err, (tmp_path / "log").read_text()

    assert [char for char in said + left if not (char.isprintable() or char in "\n\N{REPLACEMENT CHARACTER}")] == []
    assert "\\u202egpj.\\u202c" in said
    assert json.loads(left) == failure
    if log_format == "json":
        assert json.loads(said.splitlines()[0])["key"] == UNSEEN


def test_a_name_that_is_no_text_does_not_lose_the_message(tmp_path: Path) -> None:
    """A file's name may hold any byte."""
    console.write_termination_message(tmp_path / "log", console.failure(NotFoundError("/m\udcff"), ""))

    assert json.loads((tmp_path / "log").read_bytes())["message"] == "/m\udcff"


SIGNED = "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKIA%2Fx&X-Amz-Signature=s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        SIGNED,
        f"Max retries exceeded with url: {SIGNED} (caused by x)",
        f'"{SIGNED}"',
        "https://storage.googleapis.com/b/o?X-Goog-Signature=s3cr3t&X-Goog-Date=1",
        "https://h/m?AWSAccessKeyId=x&Signature=s3cr3t",
        "https://h/m?sig=s3cr3t",
        "https://h/m?token=s3cr3t",
        "https://h/m?access_token=s3cr3t",
        "Authorization: Bearer s3cr3t",
        "authorization: basic s3cr3t",
        "{'Authorization': 'Bearer s3cr3t'}",
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_secrets_never_get_out(capsys: Captured, tmp_path: Path, text: str, quote: str) -> None:
    """By no way, and what is left is still JSON."""
    talk = Console()
    message = f"{quote}{text}{quote} failed"
    failure = console.failure(NotFoundError(message, hint=message), message)
    talk.note(message, fact=message)
    talk.failed(failure)
    console.write_termination_message(tmp_path / "log", failure)

    told = [*lines(capsys), json.loads((tmp_path / "log").read_text())]

    assert "s3cr3t" not in json.dumps(told)
    assert all(line["message"].endswith(" failed") for line in told)
    assert "***" in told[0]["message"]


def test_a_traceback_holds_no_secrets(capsys: Captured) -> None:
    """On stderr."""
    console.trace(ValueError(SIGNED))

    out, err = capsys.readouterr()
    assert out == ""
    assert "ValueError" in err
    assert "s3cr3t" not in err


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
def test_a_terminal_has_a_bar_unless_it_cannot_or_must_not(
    monkeypatch: pytest.MonkeyPatch, log_format: str, progress: str, term: str, bar: Any
) -> None:
    """The bar shows the bytes."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", term)

    talk = Console(log_format, progress=progress)
    talk.begin("gs://b/[o]", 1000)
    talk.advance(1000)
    talk.end()

    assert ("━" in screen.getvalue()) == bar
    assert ("1000 bytes (100 %)" in screen.getvalue()) == (log_format != "json" and not bar and progress != "off")

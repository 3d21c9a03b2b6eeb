"""Failure reports: fields, termination message of at most 4 KiB, traceback without secrets."""

import json
from pathlib import Path

import pytest

from modelfetch.cli.failure_report import print_traceback, report_error, write_termination_message
from modelfetch.cli.redaction import Redactor
from modelfetch.errors import MismatchError, ModelfetchError, NotFoundError

SIGNED = "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKIA%2Fx&X-Amz-Signature=s3cr3t"


def test_report_is_one_flat_object() -> None:
    """Message and hint are on one line each, also if an SDK broke the lines."""
    report = report_error(MismatchError("Two\n lines", hint="a\tb"), "s3://b/k")

    assert report == {
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
def test_termination_message_is_json_of_at_most_4_kib(tmp_path: Path, error: ModelfetchError) -> None:
    """Long fields are cut until the line fits, in any script."""
    write_termination_message(tmp_path / "log", report_error(error, "s3://b/" + "k" * 3000), Redactor())

    text = (tmp_path / "log").read_bytes()
    reported = json.loads(text)
    assert len(text) <= 4096
    assert b"\n" not in text
    assert (reported["code"], reported["reason"]) == (66, "not_found")
    assert reported["message"][0] == error.message[0]
    assert len(text) > 2048 or reported["message"] == "Short."


def test_undecodable_file_name_keeps_the_message(tmp_path: Path) -> None:
    """A file name may hold bytes that are no UTF-8."""
    write_termination_message(tmp_path / "log", report_error(NotFoundError("/m\udcff"), ""), Redactor())

    assert json.loads((tmp_path / "log").read_bytes())["message"] == "/m\udcff"


def test_traceback_shows_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback goes to stderr, with secrets redacted."""
    print_traceback(ValueError(SIGNED), Redactor())

    out, err = capsys.readouterr()
    assert out == ""
    assert "ValueError" in err
    assert "s3cr3t" not in err

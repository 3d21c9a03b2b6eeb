"""Output: JSON lines for a log, a progress bar for a person; stdout carries data only."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from modelfetch.cli.settings import Settings
from testkit.cli_runner import CliRunner
from testkit.file_tree import RECEIPT_NAME, random_bytes, sha256_hex, write_files
from testkit.scripted_server import ScriptedServer, ServerResponse
from testkit.stores import S3Bucket

COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:[349][0-7]|10[0-7]|[34]8;[0-9;]+)m")  # bold is no colour
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Create a file of 20 MB."""
    path = tmp_path / "model.bin"
    path.write_bytes(random_bytes(20_000_000))
    return path


def test_every_line_is_json_off_a_terminal(modelfetch: CliRunner, model: Path, tmp_path: Path) -> None:
    """Each line has time, level and message; no escape sequence appears."""
    run = modelfetch.ok("pull", model, tmp_path / "m")

    assert run.log
    assert [line for line in run.log if not {"time", "level", "message"} <= line.keys()] == []
    assert all(datetime.fromisoformat(line["time"]).utcoffset() is not None for line in run.log)
    assert "\x1b" not in run.all_output


def test_progress_is_logged_every_ten_percent(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A large object gives about ten progress lines."""
    s3_bucket.put("m", random_bytes(40_000_000))

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env)

    shares = [line["percent"] for line in run.log if "percent" in line]
    assert shares == sorted(shares)
    assert 5 <= len(shares) <= 11
    assert shares[-1] >= 90


def test_output_json_prints_only_the_receipts(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Stdout has one line per pair, equal to the receipt on disk, also when the model is up to date."""
    write_files(tmp_path, {"a": b"1", "d/b": b"2"})
    pairs = ("pull", tmp_path / "a", tmp_path / "x", tmp_path / "d", tmp_path / "y", "--output", "json")

    first, second = modelfetch.ok(*pairs), modelfetch.ok(*pairs)

    written = [(tmp_path / "x.modelfetch-receipt").read_text(), (tmp_path / "y" / RECEIPT_NAME).read_text()]
    assert first.receipts == [json.loads(text) for text in written]
    assert second.receipts == first.receipts


def test_failed_pair_prints_no_data(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Stdout of a failed run holds the receipts of the pairs before the failure."""
    (tmp_path / "a").write_bytes(b"1")

    run = modelfetch("pull", tmp_path / "a", tmp_path / "x", "/no/such/file", tmp_path / "y", "--output", "json")

    assert run.code == 66
    assert run.receipt["digest"] == f"sha256:{sha256_hex(b'1')}"


@pytest.mark.parametrize("setting", ["flag", "variable"])
def test_log_level_error_logs_only_failures(modelfetch: CliRunner, model: Path, tmp_path: Path, setting: str) -> None:
    """At level error, a successful pull logs nothing; a failed pull logs the failure."""
    flags, env = (["--log-level", "error"], {}) if setting == "flag" else ([], {"MODELFETCH_LOG_LEVEL": "error"})

    works = modelfetch.ok("pull", model, tmp_path / "m", *flags, env=env)
    fails = modelfetch("pull", "/no/such/file", tmp_path / "n", *flags, env=env)

    assert works.all_output == ""
    assert [line["reason"] for line in fails.log] == ["not_found"]


def test_log_format_text_writes_plain_lines(modelfetch: CliRunner, model: Path, tmp_path: Path) -> None:
    """Text in a file has no JSON and no escape sequences."""
    run = modelfetch.ok("pull", model, tmp_path / "m", "--log-format", "text")
    failed = modelfetch("pull", "/no/such/file", tmp_path / "n", env={"MODELFETCH_LOG_FORMAT": "text"})

    assert str(tmp_path / "m") in run.stderr
    assert not run.stderr.startswith("{")
    assert "/no/such/file" in failed.stderr
    assert "\x1b" not in run.stderr + failed.stderr
    assert json.loads(failed.termination)["code"] == 66


def test_terminal_shows_a_progress_bar(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The bar is in colour and names the model; the result follows in words."""
    s3_bucket.put("model.bin", random_bytes(20_000_000))

    run = modelfetch.run_on_terminal("pull", s3_bucket.uri("model.bin"), tmp_path / "m", env=s3_bucket.env)

    assert run.code == 0
    assert COLOUR.search(run.stdout)
    text = ESCAPE.sub("", run.stdout)
    assert "model.bin" in text
    assert "20.0" in text
    assert "━" in text
    assert str(tmp_path / "m") in text
    assert '{"' not in text


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "TERM=dumb"])
def test_colour_is_off_by_no_color_and_dumb_terminals(
    modelfetch: CliRunner, model: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    """Colour is off as documented at https://no-color.org."""
    works = modelfetch.run_on_terminal("pull", model, tmp_path / "m", env=env)
    fails = modelfetch.run_on_terminal("pull", "/no/such/file", tmp_path / "n", env=env)

    assert (works.code, fails.code) == (0, 66)
    assert not COLOUR.search(works.stdout + fails.stdout)
    assert str(tmp_path / "m") in works.stdout


def test_force_color_colours_text_off_a_terminal(modelfetch: CliRunner, tmp_path: Path) -> None:
    """FORCE_COLOR is for log viewers with colours."""
    run = modelfetch("pull", "/no/such/file", tmp_path / "n", "--log-format", "text", env={"FORCE_COLOR": "1"})

    assert COLOUR.search(run.stderr)


def test_failure_on_a_terminal_is_plain_text(modelfetch: CliRunner, tmp_path: Path) -> None:
    """A terminal shows error and hint, without JSON and traceback."""
    run = modelfetch.run_on_terminal("pull", "/no/such/file", tmp_path / "n")

    text = ESCAPE.sub("", run.stdout)
    assert run.code == 66
    assert "/no/such/file" in text
    assert "Traceback" not in text
    assert '{"' not in text
    assert json.loads(run.termination)["reason"] == "not_found"


def test_log_format_and_progress_beat_terminal_detection(modelfetch: CliRunner, model: Path, tmp_path: Path) -> None:
    """A terminal shows JSON lines, and a log no progress, if set."""
    json_lines = modelfetch.run_on_terminal("pull", model, tmp_path / "m", "--log-format", "json")
    silent = modelfetch.ok("pull", model, tmp_path / "n", "--progress", "off")

    assert [json.loads(line)["level"] for line in json_lines.stdout.splitlines()]
    assert [line for line in silent.log if "percent" in line] == []


def test_name_with_markup_shows_unchanged(modelfetch: CliRunner, tmp_path: Path) -> None:
    """`[red]` in a name is no colour; an escape character does not reach the terminal."""
    run = modelfetch.run_on_terminal("pull", "/no/[red]such/\x1b]0;title\x07file", tmp_path / "n", columns=300)

    assert "[red]" in run.stdout
    assert "\x1b]0;" not in run.stdout


def test_help_shows_the_variable_of_every_setting(modelfetch: CliRunner) -> None:
    """Variables show in full at 80 columns, in the help of `pull` or `push`."""
    text = "".join(modelfetch.ok(command, "--help", env={"COLUMNS": "80"}).stdout for command in ("pull", "push"))

    fields = set(Settings.model_fields) - {"bearer_token", "private_key_password"}
    assert [name for name in fields if f"MODELFETCH_{name.upper()}" not in text] == []


HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\x08\x0b"


@pytest.mark.parametrize(
    "command", [["inspect"], ["inspect", "-o", "json"], ["pull", "--debug"], ["pull", "-o", "json"]]
)
def test_no_escape_sequence_of_a_server_reaches_the_output(
    modelfetch: CliRunner, scripted_server: ScriptedServer, tmp_path: Path, command: list[str]
) -> None:
    """Control characters in an ETag, a status line and a name are shown as escapes, on a terminal and in a log."""
    headers = (("ETag", f'"{HOSTILE}"'), ("Content-Length", "5"))
    scripted_server.respond_with(
        lambda request: ServerResponse(200, headers, b"" if request.method == "HEAD" else b"model")
    )
    args = [*command, f"{scripted_server.url}/m", *([tmp_path / "m"] if command[0] == "pull" else [])]

    run = modelfetch(*args)
    shown = modelfetch.run_on_terminal(*args, env={"TERM": "dumb", "NO_COLOR": "1"})

    for text in (run.stdout, run.stderr, shown.stdout):
        assert not set(HOSTILE) & set(text) - set("]0;title[2J31m")

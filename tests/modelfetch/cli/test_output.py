"""The two faces of output: JSON lines for a log, a progress bar for a person; data on stdout and nothing else."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from modelfetch.cli.settings import Settings
from testkit.cli_runner import CliRunner
from testkit.file_tree import RECEIPT_NAME, random_bytes, sha256_hex, write_files
from testkit.stores import S3Bucket

COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:[349][0-7]|10[0-7]|[34]8;[0-9;]+)m")  # bold is none
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of 20 MB."""
    path = tmp_path / "model.bin"
    path.write_bytes(random_bytes(20_000_000))
    return path


def test_off_a_terminal_every_line_is_json(modelfetch: CliRunner, model: Path, tmp_path: Path) -> None:
    """With time, level and message; stdout has nothing that was not asked for."""
    run = modelfetch.ok("pull", model, tmp_path / "m")

    assert run.log
    assert [line for line in run.log if not {"time", "level", "message"} <= line.keys()] == []
    assert all(datetime.fromisoformat(line["time"]).utcoffset() is not None for line in run.log)
    assert "\x1b" not in run.all_output


def test_progress_is_logged_at_every_tenth(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Some ten lines for a large object, never a flood."""
    s3_bucket.put("m", random_bytes(40_000_000))

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env)

    shares = [line["percent"] for line in run.log if "percent" in line]
    assert shares == sorted(shares)
    assert 5 <= len(shares) <= 11
    assert shares[-1] >= 90


def test_output_json_is_the_receipt_and_nothing_else(modelfetch: CliRunner, tmp_path: Path) -> None:
    """One line for each pair; what is on stdout is what was written beside the model; also when nothing was to do."""
    write_files(tmp_path, {"a": b"1", "d/b": b"2"})
    pairs = ("pull", tmp_path / "a", tmp_path / "x", tmp_path / "d", tmp_path / "y", "--output", "json")

    first, second = modelfetch.ok(*pairs), modelfetch.ok(*pairs)

    written = [(tmp_path / "x.modelfetch.json").read_text(), (tmp_path / "y" / RECEIPT_NAME).read_text()]
    assert first.receipts == [json.loads(text) for text in written]
    assert second.receipts == first.receipts


def test_a_failure_prints_no_data(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Stdout of a run that failed is what was done before."""
    (tmp_path / "a").write_bytes(b"1")

    run = modelfetch("pull", tmp_path / "a", tmp_path / "x", "/no/such/file", tmp_path / "y", "--output", "json")

    assert run.code == 66
    assert run.receipt["digest"] == f"sha256:{sha256_hex(b'1')}"


@pytest.mark.parametrize("setting", ["flag", "variable"])
def test_the_log_can_be_quieter(modelfetch: CliRunner, model: Path, tmp_path: Path, setting: str) -> None:
    """At level error a pull that works says nothing; one that fails says why."""
    flags, env = (["--log-level", "error"], {}) if setting == "flag" else ([], {"MODELFETCH_LOG_LEVEL": "error"})

    works = modelfetch.ok("pull", model, tmp_path / "m", *flags, env=env)
    fails = modelfetch("pull", "/no/such/file", tmp_path / "n", *flags, env=env)

    assert works.all_output == ""
    assert [line["reason"] for line in fails.log] == ["not_found"]


def test_the_log_can_be_text(modelfetch: CliRunner, model: Path, tmp_path: Path) -> None:
    """For a person who reads a file: no JSON, no escapes."""
    run = modelfetch.ok("pull", model, tmp_path / "m", "--log-format", "text")
    failed = modelfetch("pull", "/no/such/file", tmp_path / "n", env={"MODELFETCH_LOG_FORMAT": "text"})

    assert str(tmp_path / "m") in run.stderr
    assert not run.stderr.startswith("{")
    assert "/no/such/file" in failed.stderr
    assert "\x1b" not in run.stderr + failed.stderr
    assert json.loads(failed.termination)["code"] == 66


def test_a_terminal_shows_a_bar(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """With the model's name, in colour, and the result in words."""
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
def test_colour_can_be_switched_off(modelfetch: CliRunner, model: Path, tmp_path: Path, env: dict[str, str]) -> None:
    """As everywhere: https://no-color.org."""
    works = modelfetch.run_on_terminal("pull", model, tmp_path / "m", env=env)
    fails = modelfetch.run_on_terminal("pull", "/no/such/file", tmp_path / "n", env=env)

    assert (works.code, fails.code) == (0, 66)
    assert not COLOUR.search(works.stdout + fails.stdout)
    assert str(tmp_path / "m") in works.stdout


def test_colour_can_be_forced(modelfetch: CliRunner, tmp_path: Path) -> None:
    """FORCE_COLOR is NO_COLOR's friend: for a log viewer that shows colours."""
    run = modelfetch("pull", "/no/such/file", tmp_path / "n", "--log-format", "text", env={"FORCE_COLOR": "1"})

    assert COLOUR.search(run.stderr)


def test_a_failure_on_a_terminal_is_one_plain_sentence(modelfetch: CliRunner, tmp_path: Path) -> None:
    """What happened and what to do; no JSON, no traceback."""
    run = modelfetch.run_on_terminal("pull", "/no/such/file", tmp_path / "n")

    text = ESCAPE.sub("", run.stdout)
    assert run.code == 66
    assert "/no/such/file" in text
    assert "Traceback" not in text
    assert '{"' not in text
    assert json.loads(run.termination)["reason"] == "not_found"


def test_a_terminal_may_have_json_and_a_log_no_progress(modelfetch: CliRunner, model: Path, tmp_path: Path) -> None:
    """Both settings beat what was found out."""
    json_lines = modelfetch.run_on_terminal("pull", model, tmp_path / "m", "--log-format", "json")
    silent = modelfetch.ok("pull", model, tmp_path / "n", "--progress", "off")

    assert [json.loads(line)["level"] for line in json_lines.stdout.splitlines()]
    assert [line for line in silent.log if "percent" in line] == []


def test_a_name_with_markup_is_shown_as_it_is(modelfetch: CliRunner, tmp_path: Path) -> None:
    """`[red]` is a name, not a colour; an escape character does nothing to the terminal."""
    run = modelfetch.run_on_terminal("pull", "/no/[red]such/\x1b]0;title\x07file", tmp_path / "n", columns=300)

    assert "[red]" in run.stdout
    assert "\x1b]0;" not in run.stdout


def test_help_shows_the_variable_of_every_setting(modelfetch: CliRunner) -> None:
    """Whole, at any width; those of `push` alone are in its own."""
    said = "".join(modelfetch.ok(command, "--help", env={"COLUMNS": "80"}).stdout for command in ("pull", "push"))

    fields = set(Settings.model_fields) - {"bearer_token", "private_key_password"}
    assert [name for name in fields if f"MODELFETCH_{name.upper()}" not in said] == []

"""Standard streams: a command does its work, whatever has become of stdout, stderr and the termination log."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testkit import strace
from testkit.archives import pack_files
from testkit.cli_runner import CliRunner
from testkit.file_tree import random_bytes
from testkit.stores import S3Bucket

CONTENT = random_bytes(100_000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Create a file of 100 kB."""
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    return path


@contextmanager
def full_pipe() -> Iterator[int]:
    """Yield the writing end of a pipe that is full and never read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def closed_pipe() -> Iterator[int]:
    """Yield the writing end of a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@contextmanager
def full_device() -> Iterator[int]:
    """Yield a descriptor on which every write fails for lack of room."""
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        yield fd
    finally:
        os.close(fd)


BAD_OUTPUTS = pytest.mark.parametrize("bad_output", [full_pipe, closed_pipe, full_device])


class Command:
    """Starts modelfetch with streams of the test's choice, which the runner's `Run` cannot have."""

    def __init__(self, runner: CliRunner) -> None:
        self._runner = runner

    def __call__(self, *args: object, **streams: Any) -> int:
        """Run the command to its end; return the exit code."""
        with self.start(*args, **streams) as process:
            try:
                return process.wait(60)
            finally:
                process.kill()

    def start(self, *args: object, closed: int | None = None, **streams: Any) -> "subprocess.Popen[bytes]":
        """Start the command, with the descriptor `closed` closed."""
        argv = self._runner._build_command(args)
        if closed is not None:
            argv = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *argv]
        self._runner.termination_log.unlink(missing_ok=True)
        return subprocess.Popen(
            argv, env=self._runner.env, cwd=self._runner.home, **{"stdin": subprocess.DEVNULL, **streams}
        )

    @property
    def termination(self) -> dict[str, Any]:
        """Return the termination message."""
        message: dict[str, Any] = json.loads(self._runner.termination_log.read_text())
        return message


@pytest.fixture
def command(modelfetch: CliRunner) -> Command:
    """Return a starter of commands with the runner's environment."""
    return Command(modelfetch)


@BAD_OUTPUTS
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_pull_publishes_the_model_when_stderr_cannot_be_written(
    command: Command, model: Path, tmp_path: Path, bad_output: Callable[[], Any], log_format: str
) -> None:
    """The exit code is 0 and the model whole, with stderr full, stuck or without a reader."""
    with bad_output() as stderr:
        code = command("pull", model, tmp_path / "m", "--log-format", log_format, stderr=stderr)

    assert code == 0
    assert (tmp_path / "m").read_bytes() == CONTENT


@BAD_OUTPUTS
def test_failure_has_its_code_and_termination_message_when_stderr_cannot_be_written(
    command: Command, tmp_path: Path, bad_output: Callable[[], Any]
) -> None:
    """A missing source is 66 in the exit code and in the pod's status."""
    with bad_output() as stderr:
        code = command("pull", tmp_path / "missing", tmp_path / "m", "--debug", stderr=stderr)

    assert code == 66
    assert command.termination["code"] == 66


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_pull_publishes_the_model_when_a_stream_is_closed(
    command: Command, model: Path, tmp_path: Path, closed: int
) -> None:
    """No file of the pull takes the number of a closed stream, into which a library may write."""
    assert command("pull", model, tmp_path / "m", "--output", "json", closed=closed) == 0
    assert (tmp_path / "m").read_bytes() == CONTENT


@pytest.mark.process
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors_are_occupied(closed: str, tmp_path: Path) -> None:
    """A file that is opened later gets none of the numbers 0 to 2."""
    opened = tmp_path / "number"
    code = (
        "import os, sys; from modelfetch.cli.standard_streams import install_streams; install_streams();"
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); os.write(fd, str(fd).encode())"
    )

    subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code, opened], check=True)

    assert int(opened.read_text()) > 2


@pytest.mark.parametrize("args", [["inspect"], ["config"], ["--version"], ["--help"]])
def test_command_is_73_when_its_document_cannot_be_written(command: Command, model: Path, args: list[str]) -> None:
    """A document that was asked for and is lost is a failure with a reason, no bug."""
    with full_device() as stdout:
        code = command(*args, *([model] if args == ["inspect"] else []), stdout=stdout, stderr=subprocess.DEVNULL)

    assert code == 73
    assert "No space left" in command.termination["message"]


@pytest.mark.parametrize("bad_output", [closed_pipe, full_device])
def test_pull_is_0_and_warns_when_the_receipt_on_stdout_is_lost(
    command: Command, model: Path, tmp_path: Path, bad_output: Callable[[], Any]
) -> None:
    """The model is published, and so are the models of later pairs; stderr tells that the document is lost."""
    pairs = [model, tmp_path / "a", model, tmp_path / "b"]
    with bad_output() as stdout, (tmp_path / "log").open("wb") as log:
        code = command("pull", *pairs, "--output", "json", stdout=stdout, stderr=log)

    warnings = [
        line for line in map(json.loads, (tmp_path / "log").read_text().splitlines()) if line["level"] == "warning"
    ]
    assert code == 0
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [CONTENT, CONTENT]
    assert ["output is lost" in line["message"] for line in warnings] == [True, True]


def test_verify_gives_its_verdict_when_stdout_is_lost(
    command: Command, modelfetch: CliRunner, model: Path, tmp_path: Path
) -> None:
    """The exit code is the verdict; the lost line changes nothing about the files."""
    modelfetch.ok("pull", model, tmp_path / "m")
    with full_device() as stdout:
        assert command("verify", tmp_path / "m", stdout=stdout, stderr=subprocess.DEVNULL) == 0


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """Return a listener that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


@pytest.mark.server
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_pull_whose_stderr_is_a_full_pipe(
    command: Command, silent_server: socket.socket, tmp_path: Path, signum: signal.Signals
) -> None:
    """The signal's exit code and termination message arrive although no log line does."""
    address = f"http://127.0.0.1:{silent_server.getsockname()[1]}/m"
    with full_pipe() as stderr, command.start("pull", address, tmp_path / "m", stderr=stderr) as process:
        connection, _ = silent_server.accept()
        with connection:
            process.send_signal(signum)
            code = process.wait(30)

    assert code == 128 + signum
    assert command.termination["reason"] == "interrupted"


@pytest.mark.server
def test_deadline_ends_a_pull_whose_stderr_is_a_full_pipe(
    command: Command, silent_server: socket.socket, tmp_path: Path
) -> None:
    """A server that never answers is left at the deadline, with 75 in the pod's status."""
    address = f"http://127.0.0.1:{silent_server.getsockname()[1]}/m"
    with full_pipe() as stderr:
        code = command("pull", address, tmp_path / "m", "--timeout", "2", stderr=stderr)

    assert code == 75
    assert command.termination["reason"] == "deadline"


def test_termination_log_without_a_reader_does_not_block_the_failure(modelfetch: CliRunner, tmp_path: Path) -> None:
    """A FIFO that nobody reads costs the termination message, and a warning says so."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    run = modelfetch("pull", tmp_path / "missing", tmp_path / "m", "--termination-log", fifo, timeout=30)

    assert run.code == 66
    assert any(str(fifo) in line["message"] for line in run.log if line["level"] == "warning")


ASCII_LOCALES = pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    ],
    ids=["ascii streams", "ascii file names"],
)


@ASCII_LOCALES
@pytest.mark.parametrize("output", ["text", "json"])
def test_names_that_the_locale_cannot_print_do_not_change_the_code(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, locale: dict[str, str], output: str
) -> None:
    """Characters that the encoding lacks are printed as JSON escapes; a document stays valid JSON."""
    s3_bucket.put("modèle/poids-重み.bin", CONTENT)
    env, source = {**s3_bucket.env, **locale}, s3_bucket.uri("modèle/")

    run = modelfetch("pull", source, tmp_path / "目的地", "--output", output, env=env)
    inspected = modelfetch("inspect", source, "--output", output, env=env)
    verified = modelfetch("verify", tmp_path / "目的地", "--output", output, env=env)

    assert (run.code, inspected.code, verified.code) == (0, 0, 0), run.stderr
    assert (tmp_path / "目的地" / "poids-重み.bin").read_bytes() == CONTENT
    if output == "json":
        assert run.receipt["files"][0]["path"] == "poids-重み.bin"


@pytest.mark.parametrize("spare", [0, 1, 2])
@pytest.mark.parametrize("name", ["m", "m.tar.gz"])
def test_pull_needs_no_more_threads_than_the_system_grants(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, name: str, spare: int
) -> None:
    """Where the system grants few further threads or none, the present threads do the work."""
    s3_bucket.put(name, CONTENT if name == "m" else pack_files({"m": CONTENT}, "gzip"))
    refuse_threads(modelfetch, spare)

    run = modelfetch("pull", s3_bucket.uri(name), f"{tmp_path}/d/", env=s3_bucket.env)

    assert run.code == 0, run.stderr
    assert (tmp_path / "d" / "m").read_bytes() == CONTENT


def test_push_needs_no_more_threads_than_the_system_grants(
    modelfetch: CliRunner, s3_bucket: S3Bucket, model: Path
) -> None:
    """A small file is uploaded by the main thread alone."""
    refuse_threads(modelfetch, 0)

    run = modelfetch("push", model, s3_bucket.uri("m"), env=s3_bucket.env)

    assert run.code == 0, run.stderr
    assert s3_bucket.get("m") == CONTENT


def refuse_threads(modelfetch: CliRunner, spare: int) -> None:
    """Let the kernel refuse every thread after the first `spare`, as at a limit of processes."""
    if reason := strace.unavailable_reason():
        pytest.skip(reason)
    refusal = f"inject=clone,clone3:error=EAGAIN:when={spare + 1}+"
    modelfetch.prefix = ["strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=clone,clone3", "-e", refusal]

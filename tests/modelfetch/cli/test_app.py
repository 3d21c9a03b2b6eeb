"""Several commands in one process: state of the first does not reach the second."""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelfetch.cli import app as cli

# An interrupted command leaves its connections to the garbage collector, which warns of each.
pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@contextmanager
def signalling_server(signum: signal.Signals | None) -> Iterator[str]:
    """Yield the address of a silent server with a signal to this process per connection."""
    connections = []

    def accept_connections() -> None:
        while True:
            try:
                connections.append(listener.accept()[0])
            except OSError:
                return
            if signum is not None:
                os.kill(os.getpid(), signum)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept_connections)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/model"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in connections:
        connection.close()


@pytest.mark.process
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_second_command_stops_at_a_signal_after_a_failed_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], signum: signal.Signals
) -> None:
    """A failed first command neither silences the signals nor the log of the second."""
    first = cli.run(["pull", "/no/such/file", str(tmp_path / "a")])
    capsys.readouterr()

    with signalling_server(signum) as address:
        second = cli.run(["pull", address, str(tmp_path / "b")])

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first, second) == (66, 128 + signum)
    assert "without encryption" in lines[0]["message"]
    assert lines[-1]["reason"] == "interrupted"


@pytest.mark.process
def test_third_command_stops_at_a_signal_after_a_signal(tmp_path: Path) -> None:
    """A signal to a command does not affect the two commands after."""
    codes = []
    for name, signum in (("a", signal.SIGTERM), ("b", None), ("c", signal.SIGINT)):
        with signalling_server(signum) as address:
            source = address if signum else "/no/such/file"
            codes.append(cli.run(["pull", source, str(tmp_path / name)]))

    assert codes == [143, 66, 130]


def test_command_restores_handlers_hook_and_timer(tmp_path: Path) -> None:
    """Handlers, hook and timer are the same before and after a command with a deadline."""
    before = [signal.getsignal(number) for number in NUMBERS], sys.unraisablehook
    had_timer = signal.getitimer(signal.ITIMER_REAL)[0] > 0  # of pytest-timeout

    code = cli.run(["pull", "/no/such/file", str(tmp_path / "a"), "--timeout", "1h"])

    assert code == 66
    assert ([signal.getsignal(number) for number in NUMBERS], sys.unraisablehook) == before
    seconds = signal.getitimer(signal.ITIMER_REAL)[0]
    assert seconds < 3000
    assert (seconds > 0) == had_timer


@pytest.mark.process
def test_deadline_of_one_command_ends_with_the_command(tmp_path: Path) -> None:
    """A command beyond its deadline exits 75; the next command has no deadline."""
    with signalling_server(None) as address:
        late = cli.run(["pull", address, str(tmp_path / "a"), "--timeout", "100ms"])
    with signalling_server(signal.SIGTERM) as address:
        stopped = cli.run(["pull", address, str(tmp_path / "b")])

    assert (late, stopped) == (75, 143)


def test_command_in_another_thread_runs_without_handlers(tmp_path: Path) -> None:
    """Python installs handlers in the main thread only; a command elsewhere reports its failure all the same."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.run(["pull", "/no/such", str(tmp_path / "a")])))
    thread.start()
    thread.join()

    assert codes == [66]


def test_ready_callback_runs_once_before_the_first_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The end of the start is announced when the source is open, before the transfer begins."""
    (tmp_path / "model").write_bytes(b"weights")
    events: list[str] = []

    code = cli.run(
        ["pull", str(tmp_path / "model"), str(tmp_path / "copy")],
        on_ready=lambda: events.append(capsys.readouterr().err),
    )

    assert code == 0
    assert events == [""]
    assert "Fetching" in capsys.readouterr().err

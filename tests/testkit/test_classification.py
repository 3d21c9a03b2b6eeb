import socket
import subprocess

import pytest

from testkit.classification import GUARD, Guard


def test_guard_refuses_a_process_to_a_test_without_a_mark() -> None:
    """The message names the mark that is missing; this test has none."""
    with pytest.raises(pytest.fail.Exception, match="without the mark `process`"):
        subprocess.run(["true"], check=False)

    assert len(GUARD.refusals) == 1
    GUARD.refusals.clear()  # otherwise this test would fail in the end


def test_guard_refuses_a_listening_socket_to_a_test_without_a_mark() -> None:
    """The refusal comes at `bind`."""
    with socket.socket() as listener, pytest.raises(pytest.fail.Exception, match="without the mark `server`"):
        listener.bind(("127.0.0.1", 0))

    GUARD.refusals.clear()


@pytest.mark.process
def test_guard_allows_a_process_to_a_marked_test() -> None:
    """The decorator on the test is enough."""
    assert subprocess.run(["true"], check=False).returncode == 0
    assert GUARD.refusals == []


def test_fixture_that_listens_marks_the_test(scripted_server: object) -> None:
    """The test itself needs no decorator."""
    assert GUARD.marks is not None
    assert "server" in GUARD.marks


def test_guard_notes_what_a_test_swallows() -> None:
    """A refusal in code that catches everything is noted, and fails the test at its end."""
    guard = Guard()
    guard.marks = frozenset()
    with pytest.raises(pytest.fail.Exception):
        guard("os.fork", ())

    assert guard.refusals[0].startswith("os.fork ()")


def test_guard_allows_everything_between_tests() -> None:
    """Session fixtures may end their servers."""
    Guard()("os.fork", ())

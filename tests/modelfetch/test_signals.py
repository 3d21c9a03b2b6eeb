"""Signals end a pull at once, but not between two renames of one model."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelfetch import signals
from modelfetch.errors import Interrupted
from modelfetch.progress import SilentProgress
from modelfetch.pull.options import PullOptions
from modelfetch.pull.pull import pull
from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.verify import verify


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Ours during a test, pytest's own afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before, hook = {number: signal.getsignal(number) for number in numbers}, sys.unraisablehook
    signals.install()
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGALRM])
def test_a_signal_interrupts(signum: signal.Signals) -> None:
    """It is raised where the main thread is, and no `except Exception` stops it."""
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signum)

    assert caught.value.signum == signum
    assert not isinstance(caught.value, Exception)


def test_a_signal_waits_until_the_deferring_block_is_done() -> None:
    """It is not lost either."""
    done = []

    def work() -> None:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with pytest.raises(Interrupted):
        work()
    assert done == [True]


def test_a_signal_goes_before_a_failure_that_might_be_tried_again() -> None:
    """Who was asked to stop stops; and the signal is told once."""

    def work() -> None:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("disk")

    with pytest.raises(Interrupted):
        work()
    with signals.deferred():
        pass


def test_the_first_signal_counts_and_those_that_follow_do_not_disturb_the_leaving() -> None:
    """An impatient Ctrl-C would cut the cleaning short, or end in a traceback."""
    cleaned = []

    def leave() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(True)

    with pytest.raises(Interrupted) as caught:
        leave()
    assert caught.value.signum == signal.SIGINT
    assert cleaned == [True]


def test_a_signal_at_start_up_waits_until_somebody_can_tell_of_it() -> None:
    """Which may be half a second: what is needed to tell must be loaded first."""
    signals.install(held=True)
    os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        signals.release()
    assert caught.value.signum == signal.SIGTERM


def test_no_signal_disturbs_the_end() -> None:
    """What is to be said is said."""
    signals.ignore()
    os.kill(os.getpid(), signal.SIGTERM)


class _Deaf:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_nobody_could_hear_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    """What is raised in a destructor goes nowhere; it is not printed either."""
    deadline = time.monotonic() + 30

    def wait() -> None:
        lost = _Deaf()
        del lost
        while time.monotonic() < deadline:
            time.sleep(0.001)

    with pytest.raises(Interrupted) as caught:
        wait()
    assert caught.value.signum == signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_what_else_nobody_could_hear_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """As Python does."""

    class Broken:
        def __del__(self) -> None:
            raise ValueError("a bug")

    Broken()

    assert "a bug" in capfd.readouterr().err


def test_a_signal_while_files_are_moved_leaves_the_model_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun to be published is published: every file, and the receipt."""
    source, dest = tmp_path / "source", tmp_path / "dest"
    for path in (source, dest):
        path.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    (dest / "a stranger's").write_text("stays")  # so that the files are moved one by one
    replace = Path.replace

    def interrupted_replace(path: Path, target: Path) -> Path:
        if target == dest / "b":
            os.kill(os.getpid(), signal.SIGTERM)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted_replace)
    with pytest.raises(Interrupted):
        pull(parse_uri(str(source)), str(dest), SourceOptions(), PullOptions(), SilentProgress())

    assert [entry.path for entry in verify(dest).files] == ["a", "b", "c"]
    assert (dest / "a stranger's").exists()

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
from modelfetch.signals import SignalGuard
from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.verify import verify

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@pytest.fixture
def guard() -> Iterator[SignalGuard]:
    """Install a guard for the test; pytest's own handlers return afterwards."""
    with SignalGuard() as guard:
        yield guard


@pytest.fixture(autouse=True)
def _guarded(guard: SignalGuard) -> None:
    """Run every test in this module under the guard."""


@pytest.mark.parametrize("signum", NUMBERS)
def test_signal_raises_interrupted_in_the_main_thread(signum: signal.Signals) -> None:
    """`Interrupted` names the signal, and no `except Exception` catches it."""
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signum)

    assert caught.value.signum == signum
    assert not isinstance(caught.value, Exception)


def test_signal_waits_for_the_end_of_a_deferring_block() -> None:
    """A signal during the block is raised after the block, not lost."""
    done = []

    def work() -> None:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with pytest.raises(Interrupted):
        work()
    assert done == [True]


def test_signal_takes_precedence_over_a_retryable_error() -> None:
    """After a signal, `Interrupted` replaces the block's own error, and is raised once."""

    def work() -> None:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("disk")

    with pytest.raises(Interrupted):
        work()
    with signals.deferred():
        pass


def test_first_signal_counts_and_later_signals_do_not_disturb_the_clean_up() -> None:
    """A second Ctrl-C neither cuts the clean-up short nor ends in a traceback."""
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


def test_signal_during_start_up_waits_for_release() -> None:
    """A held guard keeps signals during the imports for the report, up to half a second."""
    with SignalGuard(held=True) as held:
        os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted) as caught:
            held.release()
    assert caught.value.signum == signal.SIGTERM


def test_ignored_signals_do_not_disturb_the_end(guard: SignalGuard) -> None:
    """After `ignore`, a signal raises nothing: the failure report is complete."""
    guard.ignore()
    os.kill(os.getpid(), signal.SIGTERM)


def test_new_guard_reacts_to_signals_after_an_interrupted_guard() -> None:
    """Neither an interrupt nor `ignore` of a guard affects the next guard."""
    for _ in range(2):
        with SignalGuard() as guard:
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGTERM)
            guard.ignore()


def test_guard_restores_handlers_and_hook(guard: SignalGuard) -> None:
    """After an inner guard, the outer guard's handlers, hook and deferral are in place again."""
    before = [signal.getsignal(number) for number in NUMBERS], sys.unraisablehook
    with SignalGuard():
        assert [signal.getsignal(number) for number in NUMBERS] != before[0]

    assert ([signal.getsignal(number) for number in NUMBERS], sys.unraisablehook) == before
    with pytest.raises(Interrupted), signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)


def test_deadline_raises_interrupted_and_ends_with_the_guard() -> None:
    """The deadline arrives as SIGALRM; a guard removes an unused timer at its end."""
    outer = signal.getitimer(signal.ITIMER_REAL)[0]
    with SignalGuard() as guard:
        guard.set_deadline(3600)
    assert signal.getitimer(signal.ITIMER_REAL)[0] <= outer

    def exceed_deadline() -> None:
        with SignalGuard() as guard:
            guard.set_deadline(0.01)
            wait_for_signal()

    with pytest.raises(Interrupted) as caught:
        exceed_deadline()
    assert caught.value.signum == signal.SIGALRM


def wait_for_signal() -> None:
    """Sleep until a signal arrives, for at most half a minute."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(0.001)


class SignallingDestructor:
    """Object with a destructor that sends SIGTERM to this process."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_signal_lost_in_a_destructor_is_raised_again(capfd: pytest.CaptureFixture[str]) -> None:
    """Python swallows errors of destructors; `Interrupted` is raised again soon, and not printed."""

    def wait() -> None:
        lost = SignallingDestructor()
        del lost
        wait_for_signal()

    with pytest.raises(Interrupted) as caught:
        wait()
    assert caught.value.signum == signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_other_errors_in_a_destructor_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Errors other than `Interrupted` go to the hook from before the guard."""

    class Broken:
        def __del__(self) -> None:
            raise ValueError("a bug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
        with SignalGuard():
            Broken()

    assert "a bug" in capfd.readouterr().err


def test_signal_while_files_are_moved_leaves_a_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose publishing has begun is published with every file and the receipt."""
    source, dest = tmp_path / "source", tmp_path / "dest"
    for path in (source, dest):
        path.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    (dest / "foreign").write_text("stays")  # a foreign file forces moves entry by entry
    replace = Path.replace

    def interrupted_replace(path: Path, target: Path) -> Path:
        if target == dest / "b":
            os.kill(os.getpid(), signal.SIGTERM)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted_replace)
    with pytest.raises(Interrupted):
        pull(parse_uri(str(source)), str(dest), SourceOptions(), PullOptions(), SilentProgress())

    assert [entry.path for entry in verify(dest).files] == ["a", "b", "c"]
    assert (dest / "foreign").exists()

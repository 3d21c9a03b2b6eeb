"""Retry policies: retried errors, waits and numbers of attempts."""

import threading
import time
from collections.abc import Callable

import pytest

from modelfetch import errors
from modelfetch.errors import ModelfetchError
from modelfetch.net import retry

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelfetchError)]


class Clock:
    """Count of calls, and the seconds waited between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace all waits by notes of their seconds."""
        self.calls = 0
        self.waits: list[float] = []
        monkeypatch.setattr(threading.Event, "wait", lambda _, timeout=None: self.waits.append(timeout or 0.0))
        monkeypatch.setattr(time, "sleep", self.waits.append)

    def failing(self, error: BaseException, times: int = 99) -> Callable[[], str]:
        """Return a call that fails `times` times, then succeeds."""

        def call() -> str:
            self.calls += 1
            if self.calls <= times:
                raise error
            return "done"

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Clock on which no wait takes time."""
    return Clock(monkeypatch)


def test_request_returns_its_result_after_transient_errors(clock: Clock) -> None:
    """Three failures cost three waits of at most four seconds each."""
    assert retry.retry_request(clock.failing(errors.TransientError("x"), 3)) == "done"
    assert len(clock.waits) == 3
    assert all(0 <= wait <= 4 for wait in clock.waits)


@pytest.mark.parametrize("kind", ALL)
def test_request_is_retried_only_after_a_transient_error(clock: Clock, kind: type[ModelfetchError]) -> None:
    """Neither a changed object nor a used-up deadline is retried; the last error is raised unchanged."""
    error = kind("x")
    with pytest.raises(kind) as caught:
        retry.retry_request(clock.failing(error))

    assert caught.value is error
    assert clock.calls == (retry.REQUEST_TRIES if kind in (errors.TransientError, errors.ResourceError) else 1)


@pytest.mark.parametrize("error", [ValueError("bug"), errors.Interrupted(15), KeyboardInterrupt()])
def test_bugs_and_signals_are_never_retried(clock: Clock, error: BaseException) -> None:
    """Neither a request nor a pull is tried again, and nothing is waited for."""
    with pytest.raises(type(error)):
        retry.retry_request(clock.failing(error))
    with pytest.raises(type(error)):
        run_pull(clock.failing(error))

    assert (clock.calls, clock.waits) == (2, [])


@pytest.mark.parametrize(("retry_after", "least", "most"), [(7.0, 7, 7), (3600.0, 30, 30), (0.0, 0, 4), (None, 0, 4)])
def test_retry_after_of_the_server_is_obeyed_up_to_30_seconds(
    clock: Clock, retry_after: float | None, least: float, most: float
) -> None:
    """A pull that waits for minutes looks hung, so longer times are cut."""
    with pytest.raises(errors.TransientError):
        retry.retry_request(clock.failing(errors.TransientError("x", retry_after=retry_after)))

    assert len(clock.waits) == retry.REQUEST_TRIES - 1
    assert all(least <= wait <= most for wait in clock.waits)


def test_stop_event_ends_the_waits() -> None:
    """Threads of a pull that failed elsewhere do not wait for Retry-After."""
    stop = threading.Event()
    stop.set()
    calls = 0

    def call() -> None:
        nonlocal calls
        for attempt in retry.request_attempts(stop):
            with attempt:
                calls += 1
                raise errors.TransientError("x", retry_after=30)

    with pytest.raises(errors.TransientError):
        call()

    assert calls == retry.REQUEST_TRIES


Reports = list[tuple[int, float, ModelfetchError]]


def run_pull(call: Callable[[], str], tries: int = 3, *, grace: bool = False, reports: Reports | None = None) -> str:
    """Run `call` as a whole pull with first waits of 10 s."""
    notes: Reports = [] if reports is None else reports
    return str(
        retry.pull_attempts(
            tries, 10.0, in_grace=lambda: grace, on_retry=lambda n, wait, error: notes.append((n, wait, error))
        )(call)
    )


def test_pull_doubles_its_waits_and_reports_each(clock: Clock) -> None:
    """Attempt, seconds and error are reported: 10, 20 and 40 s by default."""
    reports: Reports = []
    error = errors.TransientError("x")

    assert run_pull(clock.failing(error, 3), 4, reports=reports) == "done"

    assert clock.waits == [10, 20, 40]
    assert reports == [(1, 10, error), (2, 20, error), (3, 40, error)]


@pytest.mark.parametrize("grace", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_pull_is_retried_only_after_a_retryable_error(clock: Clock, kind: type[ModelfetchError], grace: object) -> None:
    """A changed object is retried too, and missing credentials during the grace period."""
    reports: Reports = []
    with pytest.raises(kind):
        run_pull(clock.failing(kind("x")), grace=bool(grace), reports=reports)

    retried = kind in (errors.TransientError, errors.ChangedError, errors.ResourceError) or (
        grace and kind is errors.NoCredentialsError
    )
    assert clock.calls == (3 if retried else 1)
    assert len(reports) == clock.calls - 1


def test_pull_with_one_try_is_not_retried(clock: Clock) -> None:
    """MODELFETCH_RETRIES=1 means one attempt and no wait."""
    with pytest.raises(errors.TransientError):
        run_pull(clock.failing(errors.TransientError("x")), 1)

    assert (clock.calls, clock.waits) == (1, [])

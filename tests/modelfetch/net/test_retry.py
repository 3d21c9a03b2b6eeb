"""What is tried again, how soon and how often."""

import threading
import time
from collections.abc import Callable

import pytest

from modelfetch import errors
from modelfetch.errors import ModelfetchError
from modelfetch.net import retry

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelfetchError)]


class Clock:
    """Counts calls and the seconds waited between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody really waits."""
        self.calls = 0
        self.waits: list[float] = []
        monkeypatch.setattr(threading.Event, "wait", lambda _, timeout=None: self.waits.append(timeout or 0.0))
        monkeypatch.setattr(time, "sleep", self.waits.append)

    def failing(self, error: BaseException, times: int = 99) -> Callable[[], str]:
        """A call that fails so often."""

        def call() -> str:
            self.calls += 1
            if self.calls <= times:
                raise error
            return "done"

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time without waiting."""
    return Clock(monkeypatch)


def test_a_request_that_heals_gives_its_result(clock: Clock) -> None:
    """After short waits."""
    assert retry.retry_request(clock.failing(errors.TransientError("x"), 3)) == "done"
    assert len(clock.waits) == 3
    assert all(0 <= wait <= 4 for wait in clock.waits)


@pytest.mark.parametrize("kind", ALL)
def test_only_transient_requests_are_repeated(clock: Clock, kind: type[ModelfetchError]) -> None:
    """Not for a version that is gone, nor when the time is used up; the error is the last one, unchanged."""
    error = kind("x")
    with pytest.raises(kind) as caught:
        retry.retry_request(clock.failing(error))

    assert caught.value is error
    assert clock.calls == (retry.REQUEST_TRIES if kind is errors.TransientError else 1)


@pytest.mark.parametrize("error", [ValueError("bug"), errors.Interrupted(15), KeyboardInterrupt()])
def test_bugs_and_signals_are_never_repeated(clock: Clock, error: BaseException) -> None:
    """Neither in a request nor in a pull."""
    with pytest.raises(type(error)):
        retry.retry_request(clock.failing(error))
    with pytest.raises(type(error)):
        pull(clock.failing(error))

    assert (clock.calls, clock.waits) == (2, [])


@pytest.mark.parametrize(("asked", "least", "most"), [(7.0, 7, 7), (3600.0, 30, 30), (0.0, 0, 4), (None, 0, 4)])
def test_what_the_server_asks_for_is_waited(clock: Clock, asked: float | None, least: float, most: float) -> None:
    """But not for minutes: that looks hung."""
    with pytest.raises(errors.TransientError):
        retry.retry_request(clock.failing(errors.TransientError("x", retry_after=asked)))

    assert len(clock.waits) == retry.REQUEST_TRIES - 1
    assert all(least <= wait <= most for wait in clock.waits)


def test_a_stop_ends_the_waiting() -> None:
    """A thread of a pull that failed elsewhere waits for nothing."""
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


Told = list[tuple[int, float, ModelfetchError]]


def pull(call: Callable[[], str], tries: int = 3, *, grace: bool = False, told: Told | None = None) -> str:
    """A whole pull."""
    notes: Told = [] if told is None else told
    return str(
        retry.pull_attempts(
            tries, 10.0, in_grace=lambda: grace, on_retry=lambda n, wait, error: notes.append((n, wait, error))
        )(call)
    )


def test_a_pull_waits_twice_as_long_each_time_and_tells(clock: Clock) -> None:
    """10, 20, 40 s by default."""
    told: Told = []
    error = errors.TransientError("x")

    assert pull(clock.failing(error, 3), 4, told=told) == "done"

    assert clock.waits == [10, 20, 40]
    assert told == [(1, 10, error), (2, 20, error), (3, 40, error)]


@pytest.mark.parametrize("grace", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_only_a_pull_that_may_heal_is_repeated(clock: Clock, kind: type[ModelfetchError], grace: object) -> None:
    """A replaced object too; missing credentials while they may still turn up."""
    told: Told = []
    with pytest.raises(kind):
        pull(clock.failing(kind("x")), grace=bool(grace), told=told)

    again = kind in (errors.TransientError, errors.ChangedError) or (grace and kind is errors.NoCredentialsError)
    assert clock.calls == (3 if again else 1)
    assert len(told) == clock.calls - 1


def test_one_try_is_one_try(clock: Clock) -> None:
    """MODELFETCH_RETRIES=1."""
    with pytest.raises(errors.TransientError):
        pull(clock.failing(errors.TransientError("x")), 1)

    assert (clock.calls, clock.waits) == (1, [])

"""Retry policies: which errors of a request or a pull are retried, after how many seconds and how often."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    wait_exponential,
    wait_random_exponential,
)

from modelfetch.errors import ChangedError, ModelfetchError, NoCredentialsError, TransientError

T = TypeVar("T")

REQUEST_TRIES = 6  # with the waits below about 8 s of trouble, before the whole pull counts as one failed try
RETRY_AFTER_CAP = 30.0  # seconds: a server may ask for more, but a pull that waits for minutes looks hung
START_UP_GRACE = 60.0  # seconds: GKE's metadata server "takes a few seconds" in a new pod (google-auth issue 604)


def is_transient(error: BaseException) -> bool:
    """Return whether a new request may succeed; a changed object needs a new pull, which finds the new version."""
    return isinstance(error, TransientError) and error.retryable and not isinstance(error, ChangedError)


def request_attempts(stop: Event | None = None) -> Retrying:
    """Return the attempts at requests: short waits with jitter, never shorter than the server's Retry-After.

    Each iteration is over the attempts at one request; threads may share the object.

    Args:
        stop: ends the waits at once when set.
    """
    jitter = wait_random_exponential(multiplier=0.25, max=4)
    return Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(REQUEST_TRIES),
        wait=lambda state: max(jitter(state), _retry_after(state)),
        sleep=sleep_using_event(stop or Event()),
        reraise=True,
    )


def retry_request(call: Callable[[], T]) -> T:
    """Return the result of `call`, called again after each transient error."""
    for attempt in request_attempts():
        with attempt:
            return call()
    raise AssertionError("tenacity gives a result or raises")


def pull_attempts(
    tries: int,
    first_wait: float,
    *,
    in_grace: Callable[[], bool],
    on_retry: Callable[[int, float, ModelfetchError], None],
) -> Retrying:
    """Return the attempts at a whole pull: exponential back-off from `first_wait` seconds.

    Args:
        tries: number of attempts in all.
        first_wait: seconds before the second attempt; each later wait is twice as long.
        in_grace: whether missing credentials may still appear.
        on_retry: called before each wait with the number of the failed attempt, the seconds to wait and the error.
    """

    def is_retryable(error: BaseException) -> bool:
        if isinstance(error, NoCredentialsError):
            return in_grace()
        return isinstance(error, ModelfetchError) and error.retryable

    def report_wait(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ModelfetchError) and state.next_action:
            on_retry(state.attempt_number, state.next_action.sleep, error)

    return Retrying(
        retry=retry_if_exception(is_retryable),
        stop=stop_after_attempt(tries),
        wait=wait_exponential(multiplier=first_wait),
        before_sleep=report_wait,
        reraise=True,
    )


def _retry_after(state: RetryCallState) -> float:
    """Return the seconds that the server asked to wait, at most `RETRY_AFTER_CAP`."""
    error = state.outcome.exception() if state.outcome else None
    seconds = error.retry_after if isinstance(error, TransientError) else None
    return min(seconds or 0.0, RETRY_AFTER_CAP)

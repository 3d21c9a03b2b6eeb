"""What is worth trying again, how soon and how often. The only home of tenacity."""

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


def _transient(error: BaseException) -> bool:
    """A request for a version that is gone would fail again: only a new pull finds the new one."""
    return isinstance(error, TransientError) and error.retryable and not isinstance(error, ChangedError)


def _asked_for(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    after = error.retry_after if isinstance(error, TransientError) else None
    return min(after or 0.0, RETRY_AFTER_CAP)


def request_attempts(stop: Event | None = None) -> Retrying:
    """Attempts at requests: soon, with jitter, never sooner than the server asked for; `stop` ends the waiting.

    Each iteration is over the attempts at one request; threads may share it.
    """
    soon = wait_random_exponential(multiplier=0.25, max=4)
    return Retrying(
        retry=retry_if_exception(_transient),
        stop=stop_after_attempt(REQUEST_TRIES),
        wait=lambda state: max(soon(state), _asked_for(state)),
        sleep=sleep_using_event(stop or Event()),
        reraise=True,
    )


def retry_request(call: Callable[[], T]) -> T:
    """Call, trying again whatever transient error it raises."""
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
    """Attempts at a whole pull: exponential back-off from `first_wait` seconds.

    Args:
        tries: how many in all.
        first_wait: seconds before the second; each later wait is twice as long.
        in_grace: whether missing credentials may still turn up.
        on_retry: called before each wait with the number of the try that failed, the seconds to wait and the error.
    """

    def worth_it(error: BaseException) -> bool:
        if isinstance(error, NoCredentialsError):
            return in_grace()
        return isinstance(error, ModelfetchError) and error.retryable

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ModelfetchError) and state.next_action:
            on_retry(state.attempt_number, state.next_action.sleep, error)

    return Retrying(
        retry=retry_if_exception(worth_it),
        stop=stop_after_attempt(tries),
        wait=wait_exponential(multiplier=first_wait),
        before_sleep=tell,
        reraise=True,
    )

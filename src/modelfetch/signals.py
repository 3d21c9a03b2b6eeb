"""Signals: SIGINT, SIGTERM and the deadline of `--timeout` end a pull at once, but never between two renames.

The first signal counts; later signals must not cut the clean-up short, as an impatient Ctrl-C would.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import FrameType, TracebackType
from typing import Any, Self

from modelfetch.errors import Interrupted

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)]  # not Windows
_RETRY_SECONDS = 0.01

_current: ContextVar["SignalGuard | None"] = ContextVar("current signal guard", default=None)


class SignalGuard:
    """Signal handlers of one command: each signal raises `Interrupted` in the main thread.

    PID 1 of a container has no default handlers: the init image starts modelfetch with SIGTERM and SIGINT blocked, so
    that an early signal waits for the handlers. The context manager installs the handlers and unblocks the signals;
    on exit it restores the earlier handlers and timer. Outside the main thread, where Python runs no handlers, nothing
    is installed.
    """

    def __init__(self, *, held: bool = False) -> None:
        """Create a guard without handlers.

        Args:
            held: whether signals wait for `release`, because no code can report them yet.
        """
        self._held = held
        self._received_signals: list[int] = []
        self._done = False  # the interrupt was raised, or signals are ignored
        self._handlers: dict[int, Any] = {}  # before this guard, by signal
        self._unraisable_hook: Callable[[sys.UnraisableHookArgs], object] = sys.unraisablehook
        self._timer: tuple[float, float] | None = None  # before this guard's deadline
        self._token: Token[SignalGuard | None] | None = None

    def __enter__(self) -> Self:
        """Install the handlers and the hook for lost exceptions."""
        self._token = _current.set(self)
        if threading.current_thread() is threading.main_thread():
            self._unraisable_hook, sys.unraisablehook = sys.unraisablehook, self._retry_unraisable
            for number in _SIGNALS:
                self._handlers[number] = signal.signal(number, self._receive_signal)
            if hasattr(signal, "pthread_sigmask"):  # an entry point may block signals that come before the handlers
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the handlers, the hook and the timer from before `__enter__`."""
        self.ignore()
        if self._timer is not None:
            signal.setitimer(signal.ITIMER_REAL, *self._timer)
        if self._handlers:
            sys.unraisablehook = self._unraisable_hook
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._token is not None:
            _current.reset(self._token)

    def release(self) -> None:
        """Stop holding signals back.

        Raises:
            Interrupted: a signal was received meanwhile.
        """
        self._held = False
        self._raise_interrupt()

    def ignore(self) -> None:
        """Ignore signals from now on: the command has ended, or reports its failure."""
        self._done = True

    def set_deadline(self, seconds: float) -> None:
        """Raise `Interrupted` with SIGALRM after `seconds`, where the platform has timers."""
        if self._handlers and hasattr(signal, "setitimer"):
            self._start_timer(seconds)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals back during the block.

        Raises:
            Interrupted: at the end, if a signal was received; also instead of another error, which might be retried.
        """
        self._held = True
        try:
            yield
        finally:
            self.release()

    def _receive_signal(self, signum: int, _: FrameType | None) -> None:
        self._received_signals.append(signum)
        if not self._held:
            self._raise_interrupt()

    def _raise_interrupt(self) -> None:
        if self._received_signals and not self._done:
            self._done = True
            raise Interrupted(self._received_signals[0])

    def _retry_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Raise `Interrupted` again after a destructor or callback has swallowed the first."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self._unraisable_hook(unraisable)
            return
        self._done = False
        if hasattr(signal, "setitimer"):
            self._start_timer(_RETRY_SECONDS)

    def _start_timer(self, seconds: float) -> None:
        previous = signal.setitimer(signal.ITIMER_REAL, seconds)
        self._timer = self._timer or previous


@contextmanager
def deferred() -> Iterator[None]:
    """Hold signals back while files are moved: a model whose publishing has begun is published whole.

    Without a `SignalGuard`, signals keep their handlers.

    Raises:
        Interrupted: at the end, if a signal was received; also instead of another error, which might be retried.
    """
    guard = _current.get()
    if guard is None:
        yield
        return
    with guard.deferred():
        yield

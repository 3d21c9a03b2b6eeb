"""SIGINT, SIGTERM and the alarm of `--timeout`: they end a pull at once, but not between two renames of one model."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from modelfetch.errors import Interrupted

_pending: list[int] = []
_deferring = False


def install() -> None:
    """Let each of these signals raise Interrupted in the main thread; PID 1 of a container has no default handlers."""
    for name in ("SIGINT", "SIGTERM", "SIGALRM"):  # Windows has no alarm
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _arrived)


def ignore() -> None:
    """Let none of them disturb the end."""
    for name in ("SIGINT", "SIGTERM", "SIGALRM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold signals back while files are moved: what has begun to be published is published whole.

    Raises:
        Interrupted: at the end, if a signal came meanwhile; whatever else went wrong, nothing is to be tried again.
    """
    global _deferring  # noqa: PLW0603  a process has one set of signal handlers
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        if _pending:
            raise Interrupted(_pending.pop())


def _arrived(signum: int, _: FrameType | None) -> None:
    if _deferring:
        _pending.append(signum)
    else:
        raise Interrupted(signum)

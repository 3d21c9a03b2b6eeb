"""SIGINT, SIGTERM and the alarm of `--timeout`: they end a pull at once, but not between two renames of one model.

The first signal counts. Those that follow must not disturb the leaving: an impatient Ctrl-C would cut cleaning short.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from modelfetch.errors import Interrupted

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)]  # not Windows
_SOON = 0.01  # seconds

_came: list[int] = []
_held = False
_over = False


def install(*, held: bool = False) -> None:
    """Let each of these signals raise Interrupted in the main thread; PID 1 of a container has no default handlers.

    Args:
        held: not before `release` is called, for nobody could tell of it yet.
    """
    global _held, _over
    _came.clear()
    _held, _over = held, False
    sys.unraisablehook = _lost
    for number in _SIGNALS:
        signal.signal(number, _arrived)


def release() -> None:
    """Hold signals back no longer.

    Raises:
        Interrupted: one has come meanwhile.
    """
    global _held  # noqa: PLW0603
    _held = False
    _raise()


def ignore() -> None:
    """Let none of them disturb the end."""
    global _over  # noqa: PLW0603
    _over = True


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold signals back while files are moved: what has begun to be published is published whole.

    Raises:
        Interrupted: at the end, if a signal came meanwhile; whatever else went wrong, nothing is to be tried again.
    """
    global _held  # noqa: PLW0603
    _held = True
    try:
        yield
    finally:
        release()


def _arrived(signum: int, _: FrameType | None) -> None:
    _came.append(signum)
    if not _held:
        _raise()


def _raise() -> None:
    global _over  # noqa: PLW0603
    if _came and not _over:
        _over = True
        raise Interrupted(_came[0])


def _lost(what: "sys.UnraisableHookArgs") -> None:
    """An exception in a destructor or a callback goes nowhere: if it is ours, it is raised again where it is heard."""
    global _over  # noqa: PLW0603
    if not isinstance(what.exc_value, Interrupted):
        sys.__unraisablehook__(what)
        return
    _over = False
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _SOON)

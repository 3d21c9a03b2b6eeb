"""DNS lookups outside the main thread, for the main thread must stay free for signals.

getaddrinfo(3) resumes after a signal, and Python's handlers run in the main thread only: a lookup there delays the end
of a command until the resolver has given up.
"""

import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread, current_thread, main_thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def install_lookup() -> None:
    """Replace `socket.getaddrinfo`: the main thread waits for a lookup in another thread, and can handle signals.

    Applies to the whole process: urllib3 and the SDKs open their connections by themselves.
    """
    socket.getaddrinfo = run_in_thread(socket.getaddrinfo)


def run_in_thread(call: Callable[P, T]) -> Callable[P, T]:
    """Return a function that runs `call` in a new thread if called by the main thread, else directly."""

    def call_in_thread(*args: P.args, **options: P.kwargs) -> T:
        if current_thread() is not main_thread():
            return call(*args, **options)
        result: Future[T] = Future()

        def set_result() -> None:
            try:
                result.set_result(call(*args, **options))
            except Exception as error:  # noqa: BLE001  every error is raised again in the main thread
                result.set_exception(error)

        try:
            Thread(target=set_result, name="lookup", daemon=True).start()
        except (RuntimeError, MemoryError):  # no further thread is granted: a late signal is better than no lookup
            return call(*args, **options)
        return result.result()

    return call_in_thread

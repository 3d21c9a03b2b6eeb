"""Host names are looked up where a signal can be heard: getaddrinfo(3) goes on after one, until it has given up."""

import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread, current_thread, main_thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def install_lookup() -> None:
    """Let the main thread wait for a name instead of looking it up itself: it alone hears signals.

    For the whole process: connections are made by urllib3, and by what the SDKs have of their own.
    """
    socket.getaddrinfo = run_in_thread(socket.getaddrinfo)


def run_in_thread(call: Callable[P, T]) -> Callable[P, T]:
    """The same function, but what the main thread asks of it is done by another one."""

    def asked(*args: P.args, **options: P.kwargs) -> T:
        if current_thread() is not main_thread():
            return call(*args, **options)
        answer: Future[T] = Future()

        def answering() -> None:
            try:
                answer.set_result(call(*args, **options))
            except Exception as error:  # noqa: BLE001  whatever it is, it is raised where it was asked for
                answer.set_exception(error)

        Thread(target=answering, name="lookup", daemon=True).start()
        return answer.result()

    return asked

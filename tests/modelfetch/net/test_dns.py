"""DNS lookups outside the main thread; tests/faults/test_signals.py has a name server that never answers."""

import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Thread, current_thread, main_thread

import pytest

from modelfetch.net import dns


def running_thread(_: object = None) -> Thread:
    """Return the thread that runs the call."""
    return current_thread()


def test_main_thread_waits_for_another_thread() -> None:
    """A call by the main thread runs in a thread of its own."""
    assert dns.run_in_thread(running_thread)() is not main_thread()


def test_other_threads_run_the_call_themselves() -> None:
    """Only the main thread handles signals, so other threads may wait in the call."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(dns.run_in_thread(running_thread)).result() in pool._threads


def test_lookup_returns_and_raises_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, results and errors of `getaddrinfo` pass through unchanged."""
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)  # restored after the test
    expected = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    dns.install_lookup()

    assert socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM) == expected
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("127.0.0.1", "no such service")

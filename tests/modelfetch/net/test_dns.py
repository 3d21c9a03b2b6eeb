"""Names are looked up beside the main thread; tests/faults/test_signals.py has a name server that never answers."""

import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Thread, current_thread, main_thread

import pytest

from modelfetch.net import dns


def asked_by(_: object = None) -> Thread:
    """Which thread it is done by."""
    return current_thread()


def test_the_main_thread_only_waits() -> None:
    """Another one, made for it, does the work."""
    assert dns.run_in_thread(asked_by)() is not main_thread()


def test_other_threads_do_it_themselves() -> None:
    """No signal is for them."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(dns.run_in_thread(asked_by)).result() in pool._threads


def test_what_is_asked_and_answered_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing stood between."""
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)  # to be put back
    plain = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    dns.install_lookup()

    assert socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM) == plain
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("127.0.0.1", "no such service")

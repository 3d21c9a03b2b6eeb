"""Pytest plugin: mark tests by what they need, hold them to it, and spread them over the workers.

`server` marks a test that listens on a socket, itself or through a fixture; `process` a test that starts processes;
`container` a test that builds or runs images. `make quick` runs the tests with none of these marks. Fixtures in
`SERVER_FIXTURES` and `PROCESS_FIXTURES` mark the tests that request them; other tests say `pytestmark`. In every run an
audit hook refuses a process or a listening socket to a test without the mark, so that a forgotten mark fails.
"""

import socket
import sys
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

SERVER_FIXTURES = frozenset(
    {
        *("s3", "gcs", "moto", "toxiproxy", "https_server", "scripted_server", "raw_server", "fault_proxy"),
        *("store", "flat_store", "versioned_store"),  # they choose a bucket as they go
        *("serve", "serve_long"),  # modelserve in a thread
    }
)
PROCESS_FIXTURES = frozenset({"modelfetch", "launch", "tmpfs", "kubectl", "forker", "ledger"})
LIFTING = frozenset({"server", "process", "container"})  # marks that lift the guard
SPAWN_EVENTS = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "pty.spawn"}
)
BIND_EVENT = "socket.bind"


class Guard:
    """Audit hook that refuses processes and listening sockets to a test without a mark that allows them.

    Attributes:
        marks: names of the running test's marks; None between tests, when everything is allowed.
        refusals: messages of the running test's refused events, also of those that its code swallowed.
    """

    def __init__(self) -> None:
        self.marks: frozenset[str] | None = None
        self.refusals: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse the event if the running test lacks a mark for it; the interpreter calls this."""
        if self.marks is None or (event not in SPAWN_EVENTS and event != BIND_EVENT):
            return
        if event == BIND_EVENT and getattr(arguments[0], "family", None) == getattr(socket, "AF_UNIX", None):
            return  # a socket file is a file
        if not self.marks & LIFTING:
            needed = "server" if event == BIND_EVENT else "process"
            message = f"{event} {arguments[:2]!r:.200} in a test without the mark `{needed}`; see CONTRIBUTING.md"
            self.refusals.append(message)
            pytest.fail(message)


GUARD = Guard()


def pytest_configure() -> None:
    """Install the guard, once per process: an audit hook cannot be removed."""
    sys.addaudithook(GUARD)


def mark_item(item: pytest.Item) -> None:
    """Mark a test by the fixtures that it requests, directly or through others."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if fixtures & SERVER_FIXTURES:
        item.add_marker("server")
    if fixtures & PROCESS_FIXTURES:
        item.add_marker("process")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests before `-m` selects among them; in workers put the long modules first so that all end together."""
    for item in items:
        mark_item(item)
    if hasattr(config, "workerinput"):
        weights = Counter[object]()
        for item in items:
            weights[item.path] += weigh_item(item)
        items.sort(key=lambda item: (-weights[item.path], item.path))


def weigh_item(item: pytest.Item) -> int:
    """Return roughly how long a test takes, in hundredths of a second."""
    marks = {mark.name for mark in item.iter_markers()}
    return 2000 if "slow" in marks else 100 if marks & {"server", "process"} else 1


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold a test, and the fixtures that are set up for it, to its marks."""
    GUARD.refusals.clear()
    GUARD.marks = frozenset(mark.name for mark in item.iter_markers())
    try:
        return (yield)
    finally:
        GUARD.marks = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that caught the guard's refusal, or got it in another thread."""
    result = yield
    if GUARD.refusals:
        pytest.fail(GUARD.refusals[0])
    return result


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name binary parameters after the argument: compressed and pickled bytes differ from worker to worker."""
    return argname if isinstance(val, bytes) and not val.isascii() else None

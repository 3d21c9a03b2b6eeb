"""Pytest plugin: test marks from fixtures, a guard that enforces the marks, and the order of tests for the workers.

`server`: listens on a socket, directly or through a fixture. `process`: starts processes. `container`: builds or runs
images. `make quick` runs unmarked tests only. Fixtures in `SERVER_FIXTURES` and `PROCESS_FIXTURES` mark every test that
requests a listed fixture; other tests use decorators or `pytestmark`. In every run an audit hook refuses processes and
listening sockets to unmarked tests, so a forgotten mark fails.
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
    """Audit hook: refuse processes and listening sockets to an unmarked test.

    Attributes:
        marks: names of the running test's marks; None between tests, when everything is allowed.
        refusals: messages of the running test's refused events, swallowed exceptions included.
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
    """Mark a test by its fixtures, direct and indirect."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if fixtures & SERVER_FIXTURES:
        item.add_marker("server")
    if fixtures & PROCESS_FIXTURES:
        item.add_marker("process")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests before `-m` selects; in workers order modules by weight, longest first, for an even end."""
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
    """Enforce the marks of a test during setup, call and teardown."""
    GUARD.refusals.clear()
    GUARD.marks = frozenset(mark.name for mark in item.iter_markers())
    try:
        return (yield)
    finally:
        GUARD.marks = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose code swallowed the guard's refusal or met the refusal in another thread."""
    result = yield
    if GUARD.refusals:
        pytest.fail(GUARD.refusals[0])
    return result


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name binary parameters after the argument: compressed and pickled bytes differ from worker to worker."""
    return argname if isinstance(val, bytes) and not val.isascii() else None

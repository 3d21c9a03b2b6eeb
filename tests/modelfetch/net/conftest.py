"""Fixtures for tests of HTTP connections."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from testkit.scripted_server import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Server that is started by the test with a script of responses per connection."""
    with closing(ScriptedServer()) as scripted:
        yield scripted

"""Fixtures for tests of HTTP connections."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from testkit.raw_server import RawServer


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    """Server that is started by the test with a script of responses per connection."""
    with closing(RawServer()) as scripted:
        yield scripted

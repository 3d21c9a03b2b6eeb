from collections.abc import Iterator

import pytest
import urllib3

from testkit import toxiproxy as rig
from testkit.stores import GCSBucket
from testkit.toxiproxy import Stream
from testkit.tree import noise

DATA = noise(300_000)


@pytest.fixture
def stream(gcs_bucket: GCSBucket, toxiproxy: str) -> Iterator[Stream]:
    """A proxy in front of a store that holds DATA."""
    gcs_bucket.put("m", DATA)
    with rig.stream(toxiproxy, gcs_bucket.endpoint) as made:
        made.url += f"/storage/v1/b/{gcs_bucket.bucket}/o/m?alt=media"
        yield made


def get(stream: Stream) -> bytes:
    """What comes through, on a connection of its own."""
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        return pool.request("GET", stream.url).data


def test_a_stream_passes_until_it_is_spoilt(stream: Stream) -> None:
    """Cut off after some bytes; whole again once that is over."""
    before = get(stream)
    stream.add("limit_data", bytes=100_000)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        get(stream)
    stream.reset()

    assert before == get(stream) == DATA


def test_connections_are_refused_until_they_are_accepted(stream: Stream) -> None:
    """At the same address."""
    stream.refuse()
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        get(stream)
    stream.accept()

    assert get(stream) == DATA

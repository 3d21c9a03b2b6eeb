from collections.abc import Iterator

import pytest
import urllib3

from testkit import toxiproxy as rig
from testkit.file_tree import random_bytes
from testkit.stores import GCSBucket
from testkit.toxiproxy import ToxicStream

DATA = random_bytes(300_000)


@pytest.fixture
def stream(gcs_bucket: GCSBucket, toxiproxy: str) -> Iterator[ToxicStream]:
    """A proxy in front of a store that holds DATA."""
    gcs_bucket.put("m", DATA)
    with rig.open_stream(toxiproxy, gcs_bucket.endpoint) as made:
        made.url += f"/storage/v1/b/{gcs_bucket.bucket}/o/m?alt=media"
        yield made


def get(stream: ToxicStream) -> bytes:
    """What comes through, on a connection of its own."""
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        return pool.request("GET", stream.url).data


def test_a_stream_passes_until_it_is_spoilt(stream: ToxicStream) -> None:
    """Cut off after some bytes; whole again once that is over."""
    before = get(stream)
    stream.add_toxic("limit_data", bytes=100_000)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        get(stream)
    stream.remove_all_toxics()

    assert before == get(stream) == DATA


def test_connections_are_refused_until_they_are_accepted(stream: ToxicStream) -> None:
    """At the same address."""
    stream.refuse_connections()
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        get(stream)
    stream.accept_connections()

    assert get(stream) == DATA

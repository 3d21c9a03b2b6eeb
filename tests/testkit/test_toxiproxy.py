from collections.abc import Iterator

import pytest
import urllib3

from testkit.file_tree import random_bytes
from testkit.stores import GCSBucket
from testkit.toxiproxy import ToxicStream, open_stream

DATA = random_bytes(300_000)


@pytest.fixture
def stream(gcs_bucket: GCSBucket, toxiproxy: str) -> Iterator[ToxicStream]:
    """Return a proxy before a store that holds DATA."""
    gcs_bucket.put("m", DATA)
    with open_stream(toxiproxy, gcs_bucket.endpoint) as stream:
        stream.url += f"/storage/v1/b/{gcs_bucket.bucket}/o/m?alt=media"
        yield stream


def fetch_object(stream: ToxicStream) -> bytes:
    """Return the object, fetched on a new connection."""
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        return pool.request("GET", stream.url).data


def test_stream_passes_until_a_toxic_is_added(stream: ToxicStream) -> None:
    """A limit cuts the object off; without toxics the object is whole again."""
    before = fetch_object(stream)
    stream.add_toxic("limit_data", bytes=100_000)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        fetch_object(stream)
    stream.remove_all_toxics()

    assert before == fetch_object(stream) == DATA


def test_connections_are_refused_until_they_are_accepted(stream: ToxicStream) -> None:
    """The proxy keeps its address over a refusal."""
    stream.refuse_connections()
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        fetch_object(stream)
    stream.accept_connections()

    assert fetch_object(stream) == DATA

"""Endless and swelling responses are refused before the memory is full."""

import gzip
from collections.abc import Iterator

import pytest

from modelfetch.errors import RefusedError
from modelfetch.sources import open_source, parse_uri
from modelfetch.sources import response_limit as bounded
from modelfetch.sources.gcs.spec import GCSOptions
from testkit.options import anonymous_options
from testkit.scripted_server import ScriptedServer, ServerResponse

BEGIN = {"s3": b'<?xml version="1.0"?><ListBucketResult>', "gs": b'{"items": ['}
KIND = {"s3": "application/xml", "gs": "application/json"}


def spaces(scheme: str, told: list[int]) -> Iterator[bytes]:
    """Yield the beginning of a listing, then filler without end."""
    yield BEGIN[scheme]
    while True:
        told.append(100_000)
        yield b" " * 100_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte is enough to tell."""
    monkeypatch.setattr(bounded, "MAX_RESPONSE_BYTES", 1_000_000)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_endless_response_is_refused(scripted_server: ScriptedServer, scheme: str, status: int) -> None:
    """A listing or an error response of any length."""
    told: list[int] = []
    scripted_server.respond_with(
        lambda _: ServerResponse(status, (("Content-Type", KIND[scheme]),), spaces(scheme, told))
    )

    with pytest.raises(RefusedError, match="answers without end"):
        open_source(
            parse_uri(f"{scheme}://b/p/"),
            anonymous_options(scheme, scripted_server.url),
        ).resolve()

    assert len(scripted_server.requests) == 1
    assert sum(told) < 20_000_000  # what the sockets between hold is sent, too


def test_gzip_bomb_response_is_refused(scripted_server: ScriptedServer) -> None:
    """The library `requests` decompresses gzip bodies unasked."""
    packed = gzip.compress(BEGIN["gs"] + b" " * 50_000_000)
    scripted_server.respond_with(lambda _: ServerResponse(headers=(("Content-Encoding", "gzip"),), body=packed))

    with pytest.raises(RefusedError, match="answers without end"):
        open_source(parse_uri("gs://b/p/"), GCSOptions(emulator=scripted_server.url)).resolve()

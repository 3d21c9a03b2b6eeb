"""Small objects are read into memory, and nothing larger is."""

import gzip
from pathlib import Path

import pytest

from modelfetch.errors import WrongBytesError
from modelfetch.net.connection_pool import NetworkOptions
from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.sources.file import FileSource
from modelfetch.sources.https import HTTPSource
from modelfetch.transfer import read_object
from testkit.https_server import HttpsServer

MOST = 1000


def read(path: Path, *, encoded: bool = False) -> bytes:
    """Return the bytes read from a file, optionally treated as gzip-encoded."""
    source = FileSource(parse_uri(str(path)), SourceOptions())
    (obj,) = source.resolve().objects
    return read_object.read_object(source, obj._replace(gzip=encoded), MOST)


def test_object_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    """The bytes are decoded if stored with gzip."""
    (tmp_path / "m").write_bytes(b"x" * MOST)
    (tmp_path / "m.gz").write_bytes(gzip.compress(b"x" * MOST))

    assert read(tmp_path / "m") == read(tmp_path / "m.gz", encoded=True) == b"x" * MOST


@pytest.mark.parametrize("encoded", [False, True])
def test_object_over_the_limit_is_refused(tmp_path: Path, *, encoded: bool) -> None:
    """As stored or as decoded: few bytes may become many."""
    data = b"x" * (MOST + 1)
    (tmp_path / "m").write_bytes(gzip.compress(data) if encoded else data)

    with pytest.raises(WrongBytesError, match="more than 1000 bytes"):
        read(tmp_path / "m", encoded=encoded)


def test_endless_object_is_not_read_to_its_end(https_server: HttpsServer) -> None:
    """A server need not state a length."""
    https_server.length = https_server.ranges = False
    https_server.files["/m"] = b"x" * 200_000
    source = HTTPSource(
        parse_uri(f"{https_server.url}/m"), SourceOptions(NetworkOptions(ca_bundle=str(https_server.ca)))
    )
    (obj,) = source.resolve().objects

    assert obj.size is None
    with pytest.raises(WrongBytesError, match="more than 1000 bytes"):
        read_object.read_object(source, obj, MOST)


def test_undecodable_gzip_object_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Exit code 65, with the object's name."""
    (tmp_path / "m").write_bytes(b"plain")

    with pytest.raises(WrongBytesError, match="m is no gzip stream"):
        read(tmp_path / "m", encoded=True)

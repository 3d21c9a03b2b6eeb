"""Downloads of many requests to the disk, and the failure of a request."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from modelfetch.checksums import Fingerprint
from modelfetch.errors import ChangedError, RefusedError
from modelfetch.net.connection_pool import NetworkOptions
from modelfetch.sources import RemoteObject, SourceOptions, open_source, parse_uri
from modelfetch.transfer.adaptive_pool import TransferLimits
from modelfetch.transfer.download import download
from modelfetch.transfer.range_reader import RangeReader
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staged_tree import StagedTree
from testkit.file_tree import random_bytes, write_files
from testkit.options import anonymous_options
from testkit.scripted_server import ListedObject, ScriptedServer, gcs_store, s3_store
from testkit.stores import S3Bucket

Arrived = Callable[[RemoteObject, Fingerprint, int], None]


def fetch(model: Path, into: Path, wires: list[RangeReader], arrived: Arrived) -> None:
    """Download a directory's files, two side by side."""
    into.mkdir()
    source = open_source(parse_uri(f"{model}/"), SourceOptions(NetworkOptions(stall_timeout=5)))
    wires.append(wire := RangeReader(source, lambda _: None))
    journal = ResumeJournal(into.with_suffix(".jsonl"), "plan")
    journal.open()
    with closing(journal), closing(wire):
        download(wire, source.resolve().objects, StagedTree(into), journal, TransferLimits(connections=2), arrived)


def test_no_thread_writes_after_a_failed_download(tmp_path: Path) -> None:
    """Files would appear in a staging area that is being cleared."""
    model = write_files(tmp_path / "model", {name: random_bytes(1000) for name in "ab"})
    wires: list[RangeReader] = []
    at_work = threading.Event()
    done: list[str] = []

    def arrived(obj: RemoteObject, *_: object) -> None:
        if obj.path == "b":
            at_work.wait(30)
            raise RefusedError("b")
        at_work.set()
        while not wires[0].closed:
            time.sleep(0.001)
        for number in range(20):
            (tmp_path / "into" / f"{obj.path}{number}").write_bytes(random_bytes(100_000))
        done.append(obj.path)

    with pytest.raises(RefusedError):
        fetch(model, tmp_path / "into", wires, arrived)

    assert done == ["a"]


@pytest.mark.parametrize("size", [1000, 2 * 1024**2])
def test_requests_for_small_objects_are_sent_ahead(
    s3_bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """While other responses are read; requests for large objects would keep the server waiting."""
    for name, value in s3_bucket.env.items():
        monkeypatch.setenv(name, value)
    files = {f"m/{number}": random_bytes(size, number) for number in range(6)}
    for key, data in files.items():
        s3_bucket.put(key, data)
    asked: list[bool] = []

    class Noted(RangeReader):
        def send_ahead(self, obj: RemoteObject, start: int, end: int | None) -> bool:
            asked.append(super().send_ahead(obj, start, end))
            return asked[-1]

    source = open_source(parse_uri(s3_bucket.uri("m/")), SourceOptions())
    journal = ResumeJournal(tmp_path / "j", "plan")
    journal.open()
    with closing(journal), closing(wire := Noted(source, lambda _: None)):
        download(
            wire,
            source.resolve().objects,
            StagedTree(tmp_path),
            journal,
            TransferLimits(connections=2),
            lambda *_: None,
        )

    assert any(asked) == (size == 1000)
    assert {f"m/{number}": (tmp_path / str(number)).read_bytes() for number in range(6)} == files


@pytest.mark.parametrize("listed", [0, 1, 3])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_object_of_another_size_than_listed_is_refused(
    scripted_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, listed: int
) -> None:
    """Also an object listed as empty, which would be published without a request."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    scripted_server.respond_with(*(s3_store if scheme == "s3" else gcs_store)(ListedObject("p/a", b"yy", size=listed)))
    source = open_source(
        parse_uri(f"{scheme}://b/p/"),
        anonymous_options(scheme, scripted_server.url),
    )
    journal = ResumeJournal(tmp_path / "j", "plan")
    journal.open()

    with closing(journal), closing(RangeReader(source, lambda _: None)) as wire, pytest.raises(ChangedError):
        download(wire, source.resolve().objects, StagedTree(tmp_path), journal, TransferLimits(), lambda *_: None)

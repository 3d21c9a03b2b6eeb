"""What a crash left in the staging area does not disturb the next run; and what comes has its bounds."""

import ctypes
import gzip
import io
import os
import tarfile
import threading
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest

from modelfetch import plan
from modelfetch.archive import Budget
from modelfetch.errors import ArchiveError, BudgetError, DestinationError, RefusedError
from modelfetch.net.connection_pool import Response
from modelfetch.plan import Action, Plan, PlannedObject
from modelfetch.progress import SilentProgress
from modelfetch.pull.fetch import fetch_model
from modelfetch.pull.options import PullOptions
from modelfetch.pull.pull import pull, pull_plan
from modelfetch.sources import Listing, SignedRequest, SourceOptions, parse_uri
from modelfetch.sources.file import FileSource
from modelfetch.sources.gcs.spec import GCSOptions
from modelfetch.transfer.adaptive_pool import TransferLimits
from modelfetch.volume.staging import StagingArea, lock_staging_area
from testkit.file_tree import sha256_hex
from testkit.scripted_server import ListedObject, ScriptedServer, ServerResponse, gcs_store

ROOMY = Budget(max_bytes=1 << 30, max_files=100, max_ratio=1000)


class WithoutRanges(FileSource):
    """A source that cannot be read from the middle, as a plain web server."""

    def resolve(self) -> Listing:
        """See `Source.find`."""
        found = super().resolve()
        return found._replace(objects=tuple(obj._replace(ranges=False) for obj in found.objects))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[StagingArea]:
    """A locked, empty staging area."""
    with lock_staging_area(lambda: tmp_path / "home", "m", lambda: None) as opened:
        yield opened


def test_directories_of_a_failed_extraction_do_not_block_the_next(tmp_path: Path, stage: StagingArea) -> None:
    """A crash midway leaves directories; an archive from a server without ranges is extracted into an empty tree."""
    (tmp_path / "weights").write_bytes(b"0123456789")
    with tarfile.open(tmp_path / "m.tar", "w") as archive:
        archive.add(tmp_path / "weights", "dir/weights")
    source = WithoutRanges(parse_uri(str(tmp_path / "m.tar")), SourceOptions())
    wanted = plan.make_plan(source.resolve(), source.uri, plan.PlanLimits(max_files=100))
    journal = stage.open_journal(wanted.resume_key)
    journal.record_block("m.tar", 0, 1)
    journal.close()
    (stage.tree / "dir" / "weights").mkdir(parents=True)

    fetched = fetch_model(source, wanted, stage, ROOMY, None, TransferLimits(), SilentProgress())

    assert [entry.path for entry in fetched.files] == ["dir/weights"]
    assert (stage.tree / "dir" / "weights").read_bytes() == b"0123456789"
    assert not stage.resumable


def test_replaced_directory_is_cleared_before_a_fetch(stage: StagingArea) -> None:
    """Without an exchange in the kernel, a crash leaves the old directory at the scratch path."""
    stage.scratch.mkdir()
    (stage.scratch / "old").write_text("old")

    stage.restart()

    assert not stage.scratch.exists()
    assert list(stage.tree.iterdir()) == []


def test_endless_object_is_refused_at_the_budget(tmp_path: Path, scripted_server: ScriptedServer) -> None:
    """The server states no length; no byte of the object is kept."""
    scripted_server.respond_with(
        lambda asked: (
            ServerResponse(body=(bytes(100_000) for _ in count())) if asked.method == "GET" else ServerResponse(405)
        )
    )
    options = PullOptions(retries=1, max_bytes=1_000_000)

    for name in ("m", "m.tar"):
        with pytest.raises(BudgetError, match="more than 1000000 bytes"):
            pull(
                parse_uri(f"{scripted_server.url}/{name}"),
                str(tmp_path / "out" / name),
                SourceOptions(),
                options,
                SilentProgress(),
            )

    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


@pytest.mark.parametrize(("most", "published"), [(500_000, True), (300_000, False)])
def test_budget_counts_all_decoded_files_together(
    tmp_path: Path, scripted_server: ScriptedServer, most: int, published: bool
) -> None:
    """Each file alone would fit into the budget."""
    packed = gzip.compress(bytes(100_000))
    items = [ListedObject(f"p/{number}", packed, more={"contentEncoding": "gzip"}) for number in range(4)]
    scripted_server.respond_with(*gcs_store(*items))
    access, options = GCSOptions(emulator=scripted_server.url), PullOptions(retries=1, max_bytes=most)

    if published:
        pull(parse_uri("gs://b/p/"), str(tmp_path / "m"), access, options, SilentProgress())
        assert (tmp_path / "m" / "3").read_bytes() == bytes(100_000)
        return
    with pytest.raises(BudgetError, match="more than 300000 bytes"):
        pull(parse_uri("gs://b/p/"), str(tmp_path / "m"), access, options, SilentProgress())
    assert not (tmp_path / "m").exists()


def test_unreadable_local_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The message states the reason of the operating system."""
    source = FileSource(parse_uri(str(tmp_path / "m")), SourceOptions())

    with pytest.raises(RefusedError, match="Is a directory"):
        source.open_range(SignedRequest(tmp_path.as_uri()), {})


def make_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a tar archive of files with the given content."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def make_mixed_plan(source: FileSource) -> Plan:
    """Return a plan that extracts the archives of a directory and copies the other files."""
    objects = [
        obj._replace(checksums={"sha256": sha256_hex(Path(obj.key).read_bytes())}) for obj in source.resolve().objects
    ]
    planned = [PlannedObject(obj, Action.EXTRACT if obj.path.endswith(".tar") else Action.COPY) for obj in objects]
    return Plan(source.uri, tuple(planned), ("empty",), directory=True, version="v1")


def read_tree(tree: Path) -> dict[str, bytes]:
    """Return the content of every file by relative path."""
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_two_archives_and_a_file_are_fetched_into_one_tree(tmp_path: Path, stage: StagingArea) -> None:
    """Members share directories; each file is listed once, and empty folders of the plan exist."""
    model = tmp_path / "model"
    model.mkdir()
    make_archive(model / "1.tar", {"shared/a": b"a", "b": b"b"})
    make_archive(model / "2.tar", {"shared/c": b"cc"})
    (model / "config.json").write_bytes(b"{}")
    source = FileSource(parse_uri(f"{model}/"), SourceOptions())
    mixed_plan = make_mixed_plan(source)

    staged = fetch_model(source, mixed_plan, stage, ROOMY, None, TransferLimits(), SilentProgress())

    expected = {"b": b"b", "config.json": b"{}", "shared/a": b"a", "shared/c": b"cc"}
    assert read_tree(stage.tree) == expected
    assert [(entry.path, entry.sha256) for entry in staged.files] == [
        (path, sha256_hex(content)) for path, content in expected.items()
    ]
    assert (stage.tree / "empty").is_dir()
    assert staged.bytes == mixed_plan.size
    assert staged.archive is None
    assert not stage.layer.exists()


def test_two_archives_with_the_same_member_are_refused(tmp_path: Path, stage: StagingArea) -> None:
    """Neither member may silently replace the other, not even with equal bytes."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("1.tar", "2.tar"):
        make_archive(model / name, {"shared/a": b"a"})
    source = FileSource(parse_uri(f"{model}/"), SourceOptions())

    with pytest.raises(ArchiveError, match=r"shared/a.* is in two archives"):
        fetch_model(source, make_mixed_plan(source), stage, ROOMY, None, TransferLimits(), SilentProgress())


class DamagedOnce(FileSource):
    """Local source whose second archive arrives damaged the first time."""

    damaged: Path | None = None

    def open_range(self, request: SignedRequest, headers: Mapping[str, str]) -> Response:
        """Read the damaged file once instead of the archive."""
        if request.url.endswith("2.tar") and self.damaged is not None:
            damaged, self.damaged = SignedRequest(self.damaged.as_uri()), None
            response = super().open_range(damaged, headers)
            response.headers = {"content-length": response.headers["content-length"]}  # damaged, but of this version
            return response
        return super().open_range(request, headers)


def test_fetch_succeeds_when_the_second_archive_is_damaged_once(tmp_path: Path, stage: StagingArea) -> None:
    """Members of the damaged archive do not stand in the way of the second attempt."""
    model = tmp_path / "model"
    model.mkdir()
    make_archive(model / "1.tar", {"a": b"a"})
    make_archive(model / "2.tar", {"c": b"good"})
    (model / "config.json").write_bytes(b"{}")
    source = DamagedOnce(parse_uri(f"{model}/"), SourceOptions())
    mixed_plan = make_mixed_plan(source)
    source.damaged = tmp_path / "damaged.tar"
    make_archive(source.damaged, {"c": b"evil"})

    staged = fetch_model(source, mixed_plan, stage, ROOMY, None, TransferLimits(), SilentProgress())

    assert read_tree(stage.tree) == {"a": b"a", "c": b"good", "config.json": b"{}"}
    assert staged.retries == 1
    assert not stage.layer.exists()


@pytest.mark.parametrize("folder", ["", "link/empty"])
def test_object_below_a_symlink_of_an_archive_is_refused(tmp_path: Path, stage: StagingArea, folder: str) -> None:
    """Neither a copied object nor an empty folder is written through a link that an archive left."""
    store = tmp_path / "store"
    (store / "link").mkdir(parents=True)
    (store / "link" / "b").write_bytes(b"copied" if not folder else b"")
    with tarfile.open(store / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("real/x"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "real"
        archive.addfile(link)
    source = FileSource(parse_uri(f"{store}/"), SourceOptions())
    mixed = make_mixed_plan(source)
    mixed = mixed._replace(
        folders=(folder,) if folder else (),
        objects=tuple(obj for obj in mixed.objects if not folder or obj.action is Action.EXTRACT),
    )

    with pytest.raises(ArchiveError, match="through a link"):
        fetch_model(source, mixed, stage, ROOMY, None, TransferLimits(), SilentProgress())


def test_staged_directory_swapped_for_a_symlink_writes_nothing_outside(tmp_path: Path) -> None:
    """Another writer of the volume swaps `tree/d` while the model arrives: exit 73, and the target stays empty."""
    store, outside, dest = tmp_path / "store", tmp_path / "outside", tmp_path / "volume" / "dest"
    outside.mkdir()
    members = {f"d/{number}": b"x" * 1000 for number in range(40)}
    (store / "m" / "d").mkdir(parents=True)
    for path, data in members.items():
        (store / "m" / path).write_bytes(data)

    swapped: list[Path] = []
    swap = threading.Lock()
    link = tmp_path / "link"
    link.symlink_to(outside)

    class Swapping(FileSource):
        def open_range(self, request: SignedRequest, headers: Mapping[str, str]) -> Response:
            with swap:  # once, although several threads fetch
                for directory in (tmp_path / "volume" / ".modelfetch").rglob("tree/d"):
                    if not swapped:
                        swapped.append(directory)
                        names = (-100, os.fsencode(link), -100, os.fsencode(directory))
                        assert ctypes.CDLL(None).renameat2(*names, 2) == 0  # RENAME_EXCHANGE: the name never is free
            return super().open_range(request, headers)

    source = Swapping(parse_uri(f"{store}/m/"), SourceOptions())
    wanted = plan.make_plan(source.resolve(), source.uri, plan.PlanLimits(max_files=100))
    with pytest.raises(DestinationError):
        pull_plan(source, wanted, str(dest), PullOptions(retries=1), SilentProgress())
    assert swapped
    assert list(outside.iterdir()) == []
    assert not dest.exists()

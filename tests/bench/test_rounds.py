import hashlib
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import measure, rounds
from bench.cases import Case
from bench.data import StoredObject
from bench.server import Server

pytestmark = pytest.mark.process

DATA = b"model" * 1000
COPY = "sh -c 'cp {source} {dest}/model.bin'"
CASE = Case("copy", "a copy", "model.bin", {"cp": COPY, "cp, then": COPY}, ())
OBJECT = StoredObject("model.bin", len(DATA), hashlib.sha256(DATA).hexdigest(), "", "", "")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rounds.BenchContext:
    """Return a bench whose tools copy a file; this process stands in for the server and gets no request."""
    monkeypatch.setattr(measure, "_SPARE_MEMORY", 1024**2)
    source, log = tmp_path / "source", tmp_path / "access.log"
    source.write_bytes(DATA)
    log.touch()
    server = Server(port=0, ca=tmp_path / "ca.pem", log=log, pid=os.getpid())
    return rounds.BenchContext(server, [OBJECT], {"source": str(source)}, tmp_path / "dest", 60, lambda _: None)


def file_sizes(bench: rounds.BenchContext) -> dict[str, int]:
    """Return the sizes of the fetched files by directory."""
    return {path.parent.name: path.stat().st_size for path in bench.dest.rglob("model.bin")}


def test_each_run_has_a_directory_of_its_own_that_gives_only_bytes_back(bench: rounds.BenchContext) -> None:
    """Each run writes to a new directory and truncates its files: no inode of an earlier run is searched."""
    found, failed = rounds.run_rounds(bench, CASE, 2)

    assert (len(found["cp"]), failed) == (2, {})
    assert file_sizes(bench) == {"cp-0": 0, "cp-1": 0, "cp-then-0": 0, "cp-then-1": 0}


def test_a_second_run_finds_the_first_ones_files(bench: rounds.BenchContext) -> None:
    """Files stay for the second run and are truncated when the case ends."""
    first_one_only = "sh -c 'test -e {dest}/model.bin || cp {source} {dest}/model.bin'"

    found, failed = rounds.run_rounds(bench, replace(CASE, commands={"cp": first_one_only}, second_run=True), 2)

    assert (len(found["cp"]), failed) == (2, {})
    assert file_sizes(bench) == {"cp-0": 0}


def test_what_a_failed_tool_left_takes_no_room(bench: rounds.BenchContext) -> None:
    """A failed tool's files are truncated, and the other tools go on."""
    case = replace(CASE, commands={"broken": COPY.replace(".bin'", ".bin; exit 3'"), "cp": COPY})

    found, failed = rounds.run_rounds(bench, case, 2)

    assert (found["broken"], len(found["cp"])) == ([], 2)
    assert "status 3" in failed["broken"]
    assert file_sizes(bench) == {"broken-0": 0, "cp-0": 0, "cp-1": 0}


@pytest.mark.parametrize(("again", "fits"), [(False, True), (True, False)])
def test_a_case_wants_room_for_all_that_it_keeps(
    bench: rounds.BenchContext, monkeypatch: pytest.MonkeyPatch, *, again: bool, fits: bool
) -> None:
    """A case needs space for a single run, or for every contender if a second run is measured."""
    free = SimpleNamespace(free=int(OBJECT.size * 1.5) + 2 * 1024**3)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)

    if fits:
        assert rounds.run_rounds(bench, replace(CASE, second_run=again), 1)[0]["cp"]
    else:
        with pytest.raises(rounds.SkippedError, match="no room"):
            rounds.run_rounds(bench, replace(CASE, second_run=again), 1)

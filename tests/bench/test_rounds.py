import hashlib
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import measure, rounds
from bench.cases import Case
from bench.data import Object
from bench.server import Server

pytestmark = pytest.mark.process

DATA = b"model" * 1000
COPY = "sh -c 'cp {source} {dest}/model.bin'"
CASE = Case("copy", "a copy", "model.bin", {"cp": COPY, "cp, then": COPY}, ())
OBJECT = Object("model.bin", len(DATA), hashlib.sha256(DATA).hexdigest(), "", "", "")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rounds.Bench:
    """A bench whose tools copy a file; what would be the server is this process, which is asked nothing."""
    monkeypatch.setattr(measure, "_SPARE", 1024**2)
    source, log = tmp_path / "source", tmp_path / "access.log"
    source.write_bytes(DATA)
    log.touch()
    server = Server(port=0, ca=tmp_path / "ca.pem", log=log, pid=os.getpid())
    return rounds.Bench(server, [OBJECT], {"source": str(source)}, tmp_path / "dest", 60, lambda _: None)


def files(bench: rounds.Bench) -> dict[str, int]:
    """The sizes of what came, by directory."""
    return {path.parent.name: path.stat().st_size for path in bench.dest.rglob("model.bin")}


def test_each_run_has_a_directory_of_its_own_that_gives_only_bytes_back(bench: rounds.Bench) -> None:
    """Who makes files next does not have to pass by those of the one before."""
    found, failed = rounds.run(bench, CASE, 2)

    assert (len(found["cp"]), failed) == (2, {})
    assert files(bench) == {"cp-0": 0, "cp-1": 0, "cp-then-0": 0, "cp-then-1": 0}


def test_a_second_run_finds_the_first_ones_files(bench: rounds.Bench) -> None:
    """Until the case ends; then their bytes are given back too."""
    first_one_only = "sh -c 'test -e {dest}/model.bin || cp {source} {dest}/model.bin'"

    found, failed = rounds.run(bench, replace(CASE, commands={"cp": first_one_only}, again=True), 2)

    assert (len(found["cp"]), failed) == (2, {})
    assert files(bench) == {"cp-0": 0}


def test_what_a_failed_tool_left_takes_no_room(bench: rounds.Bench) -> None:
    """Its bytes are given back as well, and the others go on."""
    case = replace(CASE, commands={"broken": COPY.replace(".bin'", ".bin; exit 3'"), "cp": COPY})

    found, failed = rounds.run(bench, case, 2)

    assert (found["broken"], len(found["cp"])) == ([], 2)
    assert "status 3" in failed["broken"]
    assert files(bench) == {"broken-0": 0, "cp-0": 0, "cp-1": 0}


@pytest.mark.parametrize(("again", "fits"), [(False, True), (True, False)])
def test_a_case_wants_room_for_all_that_it_keeps(
    bench: rounds.Bench, monkeypatch: pytest.MonkeyPatch, *, again: bool, fits: bool
) -> None:
    """Of one run, and of every contender where a second run is measured."""
    free = SimpleNamespace(free=int(OBJECT.size * 1.5) + 2 * 1024**3)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)

    if fits:
        assert rounds.run(bench, replace(CASE, again=again), 1)[0]["cp"]
    else:
        with pytest.raises(rounds.SkippedError, match="no room"):
            rounds.run(bench, replace(CASE, again=again), 1)

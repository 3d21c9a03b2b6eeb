"""What must be on the disk before what: if the power fails, the disk has a beginning of these calls, not all of them.

A pull is traced; nothing is cut off here. See also test_kills.py, where all that was written stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testkit import strace
from testkit.cli_runner import CliRunner
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME
from testkit.stores import ModelFolder
from testkit.strace import SystemCall
from tests.faults import kill_scenes, kills, scenes
from tests.faults.kills import Bench
from tests.faults.scenes import Scene

pytestmark = [pytest.mark.slow, pytest.mark.process]
SCENES = {scene.name: scene for scene in kill_scenes.LOCAL}
CHOSEN = (
    "a file",
    "a directory, updated",
    "a directory, updated beside strangers",
    "fifty files, updated beside strangers",
)


@dataclass
class Disk:
    """What a power failure could cost.

    Attributes:
        unflushed: files whose bytes, and directories whose entries, may not be on the disk yet.
    """

    unflushed: set[str] = field(default_factory=set)

    def takes(self, call: SystemCall, paths: tuple[str, ...]) -> None:
        """One call is done, about these paths."""
        if call.name == "syncfs":
            self.unflushed.clear()
        elif call.name in ("fsync", "fdatasync"):
            self.unflushed -= {paths[0]}
        elif call.name.startswith("rename"):
            self._rename(*paths, exchange="EXCHANGE" in call.args)
        elif call.name in ("rmdir", "unlink", "unlinkat"):
            self.unflushed -= {paths[-1]}
            self.unflushed.add(parent(paths[-1]))
        else:
            of_entries = call.name not in ("write", "pwrite64", "ftruncate", "fallocate", "utimensat")
            of_entries &= not call.name.endswith("chmod")
            self.unflushed.add(parent(paths[-1]) if of_entries else paths[0])

    def _rename(self, one: str, other: str, *, exchange: bool) -> None:
        moved = {path for path in self.unflushed if within(path, one)}
        back = {path for path in self.unflushed if exchange and within(path, other)}
        self.unflushed -= moved | back
        self.unflushed |= {other + path.removeprefix(one) for path in moved}
        self.unflushed |= {one + path.removeprefix(other) for path in back}
        self.unflushed |= {parent(one), parent(other)}

    def lacks(self, at: str) -> list[str]:
        """What would be lost of a path, and of what is below it."""
        return sorted(path for path in self.unflushed if within(path, at))


def parent(path: str) -> str:
    """The directory that holds a path."""
    return Path(path).parent.as_posix()


def within(path: str, top: str) -> bool:
    """Whether a path is another one, or below it."""
    return Path(path).is_relative_to(top)


def staged(path: str) -> bool:
    """Whether it is in the staging area, where no reader looks."""
    return STAGING_NAME in Path(path).parts


@dataclass(frozen=True)
class Trace:
    """A pull that was left alone: each call with its paths in the volume."""

    scene: Scene
    steps: list[tuple[SystemCall, tuple[str, ...]]]

    @property
    def receipt(self) -> str:
        """Where the receipt goes."""
        return f"m{RECEIPT_NAME}" if self.scene.kind == "file" else f"m/{RECEIPT_NAME}"

    def told(self) -> Iterator[tuple[SystemCall, tuple[str, ...], Disk]]:
        """Each call, and what was unflushed before it."""
        disk = Disk()
        for call, paths in self.steps:
            yield call, paths, disk
            disk.takes(call, paths)

    def publishing(self) -> list[tuple[str, str]]:
        """The renames out of the staging area: from where, to where."""
        renames = [paths for call, paths in self.steps if call.name.startswith("rename")]
        return [(paths[0], paths[1]) for paths in renames if staged(paths[0]) and not staged(paths[1])]


@pytest.fixture(scope="module", params=CHOSEN)
def trace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """What a pull does to the disk."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    scene, at = SCENES[request.param], tmp_path_factory.mktemp("power")
    for name in ("source", "home"):
        (at / name).mkdir()
    prepared = scenes.prepare(scene, ModelFolder(at / "source"), CliRunner(at / "home"), at / "template", {})
    bench = Bench(prepared, at / "runs")
    calls = kills.at_the_destination(bench, kills.undisturbed(bench))
    return Trace(scene, [(call, call.paths_below(bench.alone)) for call in calls])


def test_every_byte_is_flushed_before_it_is_published(trace: Trace) -> None:
    """Each file with its mode and time, each directory with its entries: a power failure leaves none empty or torn."""
    published = 0
    for call, paths, disk in trace.told():
        if call.name.startswith("rename") and paths in trace.publishing():
            assert disk.lacks(paths[0]) == []
            published += 1
    assert published == (1 if not trace.scene.piecemeal else len(trace.scene.new.files) + 1)


def test_the_receipt_is_published_last(trace: Trace) -> None:
    """And the old one goes first: what lies between has none."""
    if not trace.scene.piecemeal:
        assert [there for _, there in trace.publishing()] == ["m"]
        return
    assert [there for _, there in trace.publishing()].index(trace.receipt) == len(trace.publishing()) - 1
    if trace.scene.old:
        changes = [
            paths for call, paths in trace.steps if not call.name.endswith("sync") and not all(map(staged, paths))
        ]
        assert trace.receipt in changes[0]


def test_what_was_published_is_on_the_disk_before_its_receipt(trace: Trace) -> None:
    """All but the staging area, which the next pull sweeps."""
    for call, paths, disk in trace.told():
        if call.name.startswith("rename") and paths[-1] == trace.receipt:
            assert [path for path in disk.unflushed if not staged(path)] == []


def test_the_old_model_is_removed_when_the_new_one_is_on_the_disk(trace: Trace) -> None:
    """The list of what is ours goes no sooner either."""
    last = trace.publishing()[-1]
    published = False
    for call, paths, disk in trace.told():
        published |= call.name.startswith("rename") and paths == last
        if published and call.name.startswith(("unlink", "rmdir")):
            assert [path for path in disk.unflushed if not staged(path)] == []
            return
    pytest.fail("nothing was cleaned up")


def test_what_is_ours_is_noted_before_the_first_change(trace: Trace) -> None:
    """Else the next pull would take half of a model for a stranger's files."""
    if not trace.scene.piecemeal:
        return
    for call, paths, disk in trace.told():
        if not call.name.endswith("sync") and not all(map(staged, paths)):
            (noted,) = {path for _, some in trace.steps for path in some if path.endswith("/ours.json")}
            assert not {noted, parent(noted)} & disk.unflushed
            return

"""Order of flushes and renames: after a power failure the disk holds a prefix of the calls, not all.

The pull is traced; no power is cut. See also test_kills.py, where all written data stays.
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
from tests.faults import kill_scenarios, kill_trial, scenarios
from tests.faults.kill_trial import KillSetup
from tests.faults.scenarios import Scenario

pytestmark = [pytest.mark.slow, pytest.mark.process]
SCENARIOS = {scenario.name: scenario for scenario in kill_scenarios.LOCAL}
CHOSEN_SCENARIOS = (
    "a file",
    "a directory, updated",
    "a directory, updated beside foreign files",
    "fifty files, updated beside foreign files",
)


@dataclass
class UnflushedPaths:
    """Paths at risk in a power failure.

    Attributes:
        unflushed: files whose bytes, and directories whose entries, may be missing from the disk.
    """

    unflushed: set[str] = field(default_factory=set)

    def record_call(self, call: SystemCall, paths: tuple[str, ...]) -> None:
        """Record a completed call on these paths."""
        if call.name == "syncfs":
            self.unflushed.clear()
        elif call.name in ("fsync", "fdatasync"):
            self.unflushed -= {paths[0]}
        elif call.name.startswith("rename"):
            self._record_rename(*paths, exchange="EXCHANGE" in call.args)
        elif call.name in ("rmdir", "unlink", "unlinkat"):
            self.unflushed -= {paths[-1]}
            self.unflushed.add(parent_path(paths[-1]))
        else:
            of_entries = call.name not in ("write", "pwrite64", "ftruncate", "fallocate", "utimensat")
            of_entries &= not call.name.endswith("chmod")
            self.unflushed.add(parent_path(paths[-1]) if of_entries else paths[0])

    def _record_rename(self, one: str, other: str, *, exchange: bool) -> None:
        moved = {path for path in self.unflushed if is_within(path, one)}
        back = {path for path in self.unflushed if exchange and is_within(path, other)}
        self.unflushed -= moved | back
        self.unflushed |= {other + path.removeprefix(one) for path in moved}
        self.unflushed |= {one + path.removeprefix(other) for path in back}
        self.unflushed |= {parent_path(one), parent_path(other)}

    def unflushed_below(self, at: str) -> list[str]:
        """Return the unflushed paths at or below a path."""
        return sorted(path for path in self.unflushed if is_within(path, at))


def parent_path(path: str) -> str:
    """Return the parent directory of a path."""
    return Path(path).parent.as_posix()


def is_within(path: str, top: str) -> bool:
    """Tell whether `path` is `top` or below."""
    return Path(path).is_relative_to(top)


def is_staged(path: str) -> bool:
    """Tell whether a path is in a staging area, unseen by readers."""
    return STAGING_NAME in Path(path).parts


@dataclass(frozen=True)
class PullTrace:
    """An undisturbed pull: each call with its paths in the volume."""

    scenario: Scenario
    steps: list[tuple[SystemCall, tuple[str, ...]]]

    @property
    def receipt_path(self) -> str:
        """Return the path of the receipt."""
        return f"m{RECEIPT_NAME}" if self.scenario.kind == "file" else f"m/{RECEIPT_NAME}"

    def replay_calls(self) -> Iterator[tuple[SystemCall, tuple[str, ...], UnflushedPaths]]:
        """Yield each call with the paths unflushed before the call."""
        disk = UnflushedPaths()
        for call, paths in self.steps:
            yield call, paths, disk
            disk.record_call(call, paths)

    def publishing_renames(self) -> list[tuple[str, str]]:
        """Return the renames out of the staging area: from, to."""
        renames = [paths for call, paths in self.steps if call.name.startswith("rename")]
        return [(paths[0], paths[1]) for paths in renames if is_staged(paths[0]) and not is_staged(paths[1])]


@pytest.fixture(scope="module", params=CHOSEN_SCENARIOS)
def trace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PullTrace:
    """Trace the disk calls of a pull in a scenario."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    scenario, at = SCENARIOS[request.param], tmp_path_factory.mktemp("power")
    for name in ("source", "home"):
        (at / name).mkdir()
    prepared = scenarios.prepare_scenario(
        scenario, ModelFolder(at / "source"), CliRunner(at / "home"), at / "template", {}
    )
    bench = KillSetup(prepared, at / "runs")
    calls = kill_trial.select_destination_calls(bench, kill_trial.trace_undisturbed_pull(bench))
    return PullTrace(scenario, [(call, call.paths_below(bench.undisturbed_volume)) for call in calls])


def test_every_byte_is_flushed_before_it_is_published(trace: PullTrace) -> None:
    """Files with mode and time, and directories with entries, are flushed before the rename: no torn file remains."""
    published = 0
    for call, paths, disk in trace.replay_calls():
        if call.name.startswith("rename") and paths in trace.publishing_renames():
            assert disk.unflushed_below(paths[0]) == []
            published += 1
    assert published == (1 if not trace.scenario.piecemeal else len(trace.scenario.new.files) + 1)


def test_the_receipt_is_published_last(trace: PullTrace) -> None:
    """The old receipt is removed first and the new receipt is published last: no receipt in between."""
    if not trace.scenario.piecemeal:
        assert [target for _, target in trace.publishing_renames()] == ["m"]
        return
    assert [target for _, target in trace.publishing_renames()].index(trace.receipt_path) == len(
        trace.publishing_renames()
    ) - 1
    if trace.scenario.old:
        changes = [
            paths for call, paths in trace.steps if not call.name.endswith("sync") and not all(map(is_staged, paths))
        ]
        assert trace.receipt_path in changes[0]


def test_what_was_published_is_on_the_disk_before_its_receipt(trace: PullTrace) -> None:
    """All paths are flushed before the receipt, except the staging area, which the next pull sweeps."""
    for call, paths, disk in trace.replay_calls():
        if call.name.startswith("rename") and paths[-1] == trace.receipt_path:
            assert [path for path in disk.unflushed if not is_staged(path)] == []


def test_the_old_model_is_removed_when_the_new_one_is_on_the_disk(trace: PullTrace) -> None:
    """Old files and the list of owned paths are removed only after the new model is flushed."""
    last = trace.publishing_renames()[-1]
    published = False
    for call, paths, disk in trace.replay_calls():
        published |= call.name.startswith("rename") and paths == last
        if published and call.name.startswith(("unlink", "rmdir")):
            assert [path for path in disk.unflushed if not is_staged(path)] == []
            return
    pytest.fail("nothing was cleaned up")


def test_what_is_ours_is_noted_before_the_first_change(trace: PullTrace) -> None:
    """The list of owned paths is flushed before the first change: else half a model would count as foreign files."""
    if not trace.scenario.piecemeal:
        return
    for call, paths, disk in trace.replay_calls():
        if not call.name.endswith("sync") and not all(map(is_staged, paths)):
            (claims,) = {path for _, some in trace.steps for path in some if path.endswith("/ours.json")}
            assert not {claims, parent_path(claims)} & disk.unflushed
            return

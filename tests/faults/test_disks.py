"""Disk campaign: for every fault of a volume, the new model or the old model, with the reason reported.

`make test` tries each kind of fault in a single scenario; `make faults` tries all, and fails every system call of a
pull on its volume.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import cache, partial
from pathlib import Path

import pytest

from testkit import strace
from testkit.cli_runner import CliRunner
from testkit.stores import ModelFolder, S3Server
from testkit.warm_process import WarmProcess, start_warm_process
from tests.faults import disk_layouts, disk_planted_files, disk_space, disk_syscalls, disk_trial, scenarios
from tests.faults.campaign_report import Ledger, Row
from tests.faults.disk_scenarios import EVERY_KIND, SCENARIOS
from tests.faults.disk_syscalls import FailingCall
from tests.faults.disk_trial import DiskCase, DiskVerdict, TrialSource

TITLE = "Disks"
WORKERS = 2
SEED = 4
SHORT_CALL_COUNT = 10  # failing calls in the short form

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

MakeSource = Callable[[str], TrialSource]


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    """Run `modelfetch` without a start-up each time."""
    with start_warm_process(tmp_path_factory.mktemp("warm")) as running:
        yield running


@pytest.fixture(scope="module")
def local_source(tmp_path_factory: pytest.TempPathFactory, forker: WarmProcess) -> MakeSource:
    """Return scenarios by name, with sources on the local disk: no SDK is needed."""

    @cache
    def ground(name: str) -> TrialSource:
        at = tmp_path_factory.mktemp("local")
        (at / "source").mkdir()
        (at / "home").mkdir()
        with closing(CliRunner(at / "home")) as cli:
            return TrialSource(
                scenarios.prepare_scenario(SCENARIOS[name], ModelFolder(at / "source"), cli, at / "template", {}),
                forker,
            )

    return ground


@pytest.fixture(scope="module")
def remote_source(s3: S3Server, tmp_path_factory: pytest.TempPathFactory, forker: WarmProcess) -> Iterator[MakeSource]:
    """Return scenarios by name, each with its source in a separate bucket."""
    with ExitStack() as stack:

        @cache
        def ground(name: str) -> TrialSource:
            at = tmp_path_factory.mktemp("remote")
            (at / "home").mkdir()
            bucket = stack.enter_context(s3.new_bucket())
            with closing(CliRunner(at / "home")) as cli:
                prepared = scenarios.prepare_scenario(SCENARIOS[name], bucket, cli, at / "template", bucket.env)
            return TrialSource(prepared, forker, bucket)

        yield ground


def run_trials(trials: Sequence[Callable[[], DiskVerdict]], ledger: Ledger) -> None:
    """Run all trials, two at a time; add the outcomes to the table, and fail on a flaw."""
    with ThreadPoolExecutor(WORKERS) as pool:
        verdicts = list(pool.map(lambda trial: trial(), trials))
    for verdict in verdicts:
        if not verdict.skip_reason:
            wrong = int(bool(verdict.flaws))
            right = int(not wrong and verdict.code == 0)
            ledger.add_row(TITLE, Row(verdict.fault, 1, right, 1 - right - wrong, wrong))
    assert [str(verdict) for verdict in verdicts if verdict.flaws] == []
    made = [verdict for verdict in verdicts if not verdict.skip_reason]
    if not made:
        pytest.skip("; ".join(sorted({verdict.skip_reason for verdict in verdicts})))


def case_trials(
    cases: Sequence[DiskCase], make_source: MakeSource, directory: Path, *, full: bool
) -> list[Callable[[], DiskVerdict]]:
    """Return trials of each case in its scenarios; in the short form the first, and a single case of each fault."""
    if not full:
        cases = list({case.fault: case for case in reversed(cases) if case.in_short_form}.values())
    chosen = [(case, make_source(name)) for case in cases for name in (case.scenarios if full else case.scenarios[:1])]
    return [
        partial(disk_trial.run_trial, case, ground, directory / str(number))
        for number, (case, ground) in enumerate(chosen)
    ]


def call_trials(
    select: Callable[[list[tuple[str, str, int]]], Sequence[FailingCall]], source: TrialSource, directory: Path
) -> list[Callable[[], DiskVerdict]]:
    """Return trials of failing calls in a scenario, selected from the calls of an undisturbed pull."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    calls = disk_syscalls.list_calls(source, directory / "listed")
    paths = sorted({path for _, path, _ in calls})
    return [
        partial(disk_syscalls.try_failing_call, source, directory / str(number), paths, one)
        for number, one in enumerate(select(calls))
    ]


def test_unusual_volume_is_filled_or_refused_with_a_reason(
    local_source: MakeSource, tmp_path: Path, ledger: Ledger, *, full: bool
) -> None:
    """Foreign, read-only, mounted, linked or oddly named volumes are filled, or the pull reports the reason."""
    run_trials(case_trials(disk_layouts.CASES, local_source, tmp_path, full=full), ledger)


def test_full_volume_keeps_the_old_model(
    remote_source: MakeSource, tmp_path: Path, ledger: Ledger, *, full: bool
) -> None:
    """Lack of space is found before the first byte where possible; partial data is removed; the next pull succeeds."""
    run_trials(case_trials(disk_space.CASES, remote_source, tmp_path, full=full), ledger)


def test_planted_entries_do_no_harm(local_source: MakeSource, tmp_path: Path, ledger: Ledger, *, full: bool) -> None:
    """With planted entries, no outside file is written or removed, and no false receipt is trusted."""
    run_trials(case_trials(disk_planted_files.CASES, local_source, tmp_path, full=full), ledger)


@pytest.mark.parametrize("name", EVERY_KIND)
def test_call_that_fails_once_fails_the_pull_or_changes_nothing(
    local_source: MakeSource, tmp_path: Path, ledger: Ledger, name: str, *, full: bool
) -> None:
    """For every call on every path: no success without the model, no failure with a new model."""
    turn = EVERY_KIND.index(name)
    if not full and name != "mixed directory":
        pytest.skip("with --full")

    def chosen(calls: list[tuple[str, str, int]]) -> list[FailingCall]:
        all_of_them = disk_syscalls.fail_each_call(calls, turn)
        return all_of_them if full else random.Random(SEED).sample(all_of_them, SHORT_CALL_COUNT)

    run_trials(call_trials(chosen, local_source(name), tmp_path), ledger)


def test_call_that_always_fails_ends_the_pull(
    local_source: MakeSource, tmp_path: Path, ledger: Ledger, *, full: bool
) -> None:
    """Persistent failures end the pull; above all, nothing is published after a failed flush."""
    strikes = disk_syscalls.ALWAYS if full else [one for one in disk_syscalls.ALWAYS if one.call in ("fsync", "write")]
    for name in EVERY_KIND if full else ["file"]:
        run_trials(call_trials(lambda _: strikes, local_source(name), tmp_path / name.replace(" ", "-")), ledger)


def test_missing_file_system_features_have_a_fallback(
    local_source: MakeSource, tmp_path: Path, ledger: Ledger, *, full: bool
) -> None:
    """Without exchange, link or fallocate (old kernels, network and FUSE file systems) the pull succeeds."""
    strikes = disk_syscalls.UNSUPPORTED if full else disk_syscalls.UNSUPPORTED[:1]
    for name in (*EVERY_KIND, "50 files") if full else ["directory"]:
        run_trials(call_trials(lambda _: strikes, local_source(name), tmp_path / name.replace(" ", "-")), ledger)

"""Kill campaign: after a killed pull, readers find a whole model or none, and the next pull finishes the work.

Signals arrive at system calls (at each in the full form, `--full`) and at random moments of pulls from both
stores. All random choices are seeded.
"""

import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from testkit import strace
from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.stores import ModelFolder, Store
from tests.faults import kill_scenarios, kill_trial, scenarios
from tests.faults.campaign_report import Ledger, Row
from tests.faults.kill_trial import KillOutcome, KillPoint, KillSetup
from tests.faults.scenarios import PreparedScenario, Scenario

Call = tuple[str, int]  # name of a system call and its number within the thread
T = TypeVar("T")
SEED = 4
RENAME_CALLS = ("rename", "renameat", "renameat2")
DATA_CALLS = ("pwrite64", "write", "ftruncate", "fallocate")  # alike: a sample is enough
DATA_CALL_COUNT = 8  # data calls in the full form
PACE = (64 * 1024, 0.002)  # bytes per chunk, seconds between chunks
CATCHABLE = (signal.SIGTERM, signal.SIGINT)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the scenarios: all in the full form."""
    full = bool(metafunc.config.option.full)
    if "local_setup" in metafunc.fixturenames:
        costly = metafunc.function is test_repeated_kills_do_no_more_harm
        short = kill_scenarios.SHORT_LOCAL[:1] if costly else kill_scenarios.SHORT_LOCAL
        chosen = [scenario for scenario in kill_scenarios.LOCAL if full or scenario.name in short]
        metafunc.parametrize("local_setup", chosen, indirect=True, ids=[scenario.name for scenario in chosen])
    if "remote" in metafunc.fixturenames:
        chosen = [
            scenario for scenario in kill_scenarios.REMOTE if full or scenario.name in kill_scenarios.SHORT_KILL_COUNTS
        ]
        metafunc.parametrize("remote", chosen, ids=[scenario.name for scenario in chosen])


@pytest.fixture(scope="module")
def local_setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> KillSetup:
    """Return a scenario with a source on the local disk: no SDK, and system calls in a fixed order."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    at = tmp_path_factory.mktemp("kills")
    for name in ("source", "home"):
        (at / name).mkdir()
    prepared = scenarios.prepare_scenario(
        request.param, ModelFolder(at / "source"), CliRunner(at / "home"), at / "template", {}
    )
    return KillSetup(prepared, at / "runs")


@pytest.fixture(scope="module")
def kill_targets(local_setup: KillSetup) -> list[Call]:
    """Return the calls by which the scenario's pull changes the disk."""
    return kill_trial.list_kill_targets(local_setup)


def seed_random(*words: str) -> random.Random:
    """Return a random generator with a fixed seed per test."""
    return random.Random(" ".join((str(SEED), *words)))


def run_trials(
    trial: Callable[[T], list[KillOutcome]], rows: Sequence[T], ledger: Ledger, threads: int = 2
) -> list[KillOutcome]:
    """Run all trials in threads; add the outcomes to the table, and fail on a flaw."""
    with ThreadPoolExecutor(threads) as pool:
        outcomes = [one for some in pool.map(trial, rows) for one in some]
    for outcome in outcomes:
        wrong = int(bool(outcome.flaws))
        fault = f"{outcome.kill_point.signum.name}: {outcome.phase}"
        ledger.add_row("Kills", Row(fault, 1, 1 - wrong, 0, wrong, outcome.refetched_bytes, seconds=outcome.seconds))
    assert [str(one) for one in outcomes if one.flaws] == []
    return outcomes


def kill_local_pulls(
    setup: KillSetup, label: str, rows: Sequence[tuple[KillPoint, ...]], ledger: Ledger
) -> list[KillOutcome]:
    """Kill local pulls, each with a separate destination."""
    numbered = list(enumerate(rows))
    return run_trials(lambda row: kill_trial.kill_pulls(setup, f"{label}-{row[0]}", *row[1]), numbered, ledger)


def choose_calls(
    calls: Sequence[Call], chance: random.Random, *, full: bool, publishing: int, others: int
) -> list[Call]:
    """Return the calls to kill at: all in the full form except most data writes; in the short form a few."""
    renames = [call for call in calls if call[0] in RENAME_CALLS]
    data = [call for call in calls if call[0] in DATA_CALLS]
    rest = [call for call in calls if call not in renames and call not in data]
    if full:
        return [*renames, *rest, *chance.sample(data, min(DATA_CALL_COUNT, len(data)))]
    return [*chance.sample(renames, min(publishing, len(renames))), *chance.sample([*rest, *data], others)]


def test_kill_at_any_system_call_leaves_a_whole_model_or_none(
    local_setup: KillSetup, kill_targets: list[Call], full: bool, ledger: Ledger
) -> None:
    """Receipts are true and all files old or all new after the kill; in the end all are new, without leftovers."""
    chance = seed_random("kill", local_setup.prepared.scenario.name)
    chosen = choose_calls(kill_targets, chance, full=full, publishing=3, others=1)

    outcomes = kill_local_pulls(local_setup, "kill", [(KillPoint(call=call),) for call in chosen], ledger)

    assert any(one.run.code != 0 for one in outcomes)


def test_repeated_kills_do_no_more_harm(
    local_setup: KillSetup, kill_targets: list[Call], full: bool, ledger: Ledger
) -> None:
    """Two or three kills in a row do no more harm."""
    chance = seed_random("row", local_setup.prepared.scenario.name)
    chosen = [KillPoint(call=call) for call in choose_calls(kill_targets, chance, full=True, publishing=0, others=0)]

    kill_local_pulls(
        local_setup,
        "row",
        [tuple(chance.choices(chosen, k=chance.choice((2, 3)))) for _ in range(20 if full else 1)],
        ledger,
    )


def test_signal_at_any_system_call_ends_the_pull_in_order(
    local_setup: KillSetup, kill_targets: list[Call], full: bool, ledger: Ledger
) -> None:
    """The pull reports the signal with its exit code and publishes nothing by half; repeated signals change nothing."""
    chance = seed_random("signal", local_setup.prepared.scenario.name)
    chosen = choose_calls(kill_targets, chance, full=full, publishing=1, others=0)
    chosen = chance.sample(chosen, min(len(chosen), 40))

    kill_local_pulls(
        local_setup,
        "signal",
        [(KillPoint(chance.choice(CATCHABLE), call, count=chance.choice((1, 2))),) for call in chosen],
        ledger,
    )


def test_signals_at_random_moments_end_the_pull_in_order(local_setup: KillSetup, full: bool, ledger: Ledger) -> None:
    """Signals from start-up on, also in bursts, end a pull in order."""
    chance = seed_random("moment", local_setup.prepared.scenario.name)
    rows = [
        (KillPoint(chance.choice(CATCHABLE), seconds=chance.uniform(0, 0.7), count=chance.choice((1, 2, 50))),)
        for _ in range(20 if full else 1)
    ]

    kill_local_pulls(local_setup, "moment", rows, ledger)


def prepare_on_store(scenario: Scenario, store: Store, directory: Path) -> PreparedScenario:
    """Prepare a scenario with its source in a bucket."""
    (directory / "home").mkdir(parents=True)
    return scenarios.prepare_scenario(scenario, store, CliRunner(directory / "home"), directory / "template", store.env)


def kill_paced_pull(
    prepared: PreparedScenario,
    store: Store,
    directory: Path,
    kill_point: KillPoint,
    prepare_last_run: Callable[[], PreparedScenario] | None = None,
) -> list[KillOutcome]:
    """Kill a long pull: the proxy sends slowly."""
    with closing(FaultProxy(store.endpoint)) as proxy:
        proxy.add_rule(**store.download_filter(), times=None, trickle=PACE)
        bench = KillSetup(prepared, directory, store.env_at(proxy.url), proxy, ("--connections", "2"), prepare_last_run)
        return kill_trial.kill_pulls(bench, "struck", kill_point)


def time_undisturbed_pull(prepared: PreparedScenario, store: Store, directory: Path) -> float:
    """Return the seconds of an undisturbed pull."""
    with closing(FaultProxy(store.endpoint)) as proxy:
        proxy.add_rule(**store.download_filter(), times=None, trickle=PACE)
        cli = KillSetup(prepared, directory).make_cli(directory)
        begun = time.monotonic()
        cli.ok(
            "pull",
            prepared.uri,
            prepared.lay_out_destination(directory / "volume"),
            "--connections",
            "2",
            env=store.env_at(proxy.url),
        )
        return time.monotonic() - begun


def choose_moments(scenario: Scenario, chance: random.Random, seconds: float, *, full: bool) -> list[KillPoint]:
    """Return kill points, half by bytes arrived, half by time."""
    times = (kill_scenarios.KILL_COUNTS if full else kill_scenarios.SHORT_KILL_COUNTS)[scenario.name]
    signals = [signal.SIGKILL] * 14 + [*CATCHABLE] * full
    least = 1 if full else scenario.size // 2  # in the short form late enough for a resumable block
    return [
        KillPoint(chance.choice(signals), seconds=chance.uniform(0, seconds))
        if number % 2
        else KillPoint(chance.choice(signals), sent_bytes=chance.randrange(least, scenario.size))
        for number in range(times)
    ]


def test_pull_killed_at_a_random_moment_is_resumed_by_the_next(
    store: Store, remote: Scenario, full: bool, ledger: Ledger, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """The next pull does not fetch journaled blocks again."""
    prepared, chance = prepare_on_store(remote, store, tmp_path), seed_random(store.scheme, remote.name)
    seconds = time_undisturbed_pull(prepared, store, tmp_path / "alone") if full else 1.5
    chosen = list(enumerate(choose_moments(remote, chance, seconds, full=full)))

    outcomes = run_trials(
        lambda one: kill_paced_pull(prepared, store, tmp_path / str(one[0]), one[1]), chosen, ledger, threads=3
    )

    record_property("saved", sum(one.resumed_bytes for one in outcomes))
    record_property("fetched twice", sum(one.refetched_bytes for one in outcomes))
    if remote.name == "a large object":
        assert any(0 < one.resumed_bytes < one.size for one in outcomes)


def test_an_object_that_changed_after_a_kill_is_fetched_from_its_start(
    store: Store, full: bool, ledger: Ledger, tmp_path: Path
) -> None:
    """Blocks of the old version are not mixed into the new version."""
    scenario = kill_scenarios.CHANGING
    prepared, chance = prepare_on_store(scenario, store, tmp_path), seed_random("changed", store.scheme)
    changed = replace(prepared, scenario=replace(scenario, new=kill_scenarios.CHANGED))

    def change() -> PreparedScenario:
        store.put("m", kill_scenarios.CHANGED.files["m"])
        return changed

    def attempt(number: int) -> list[KillOutcome]:
        store.put("m", scenario.new.files["m"])
        one = KillPoint(sent_bytes=chance.randrange(scenario.size // 2, scenario.size))
        return kill_paced_pull(prepared, store, tmp_path / str(number), one, change)

    outcomes = run_trials(attempt, range(10 if full else 1), ledger, threads=1)

    assert any(one.journaled_bytes for one in outcomes)

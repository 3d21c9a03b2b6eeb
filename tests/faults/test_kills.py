"""Whenever a pull is killed, readers find a whole model or none, and the next pull finishes the work.

The signals come at system calls (at each of them in the full form, `--full`) and at random moments of pulls from both
stores. All that is random is seeded.
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
from testkit.cli import Cli
from testkit.faultproxy import FaultProxy
from testkit.stores import Folder, Store
from tests.faults import kill_scenarios, kill_trial, scenarios
from tests.faults.campaign_report import Ledger, Row
from tests.faults.kill_trial import KillSetup, KillOutcome, KillPoint
from tests.faults.scenarios import PreparedScenario, Scenario

Call = tuple[str, int]  # a system call's name and its number among those of its thread
T = TypeVar("T")
SEED = 4
PUBLISHING = ("rename", "renameat", "renameat2")
DATA = ("pwrite64", "write", "ftruncate", "fallocate")  # what is true of one of them is true of the next
ENOUGH = 8  # of them
PACE = (64 * 1024, 0.002)  # bytes that a store sends at a time, and seconds in between
CATCHABLE = (signal.SIGTERM, signal.SIGINT)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the scenes: all of them in the full form."""
    full = bool(metafunc.config.option.full)
    if "local" in metafunc.fixturenames:
        costly = metafunc.function is test_a_kill_while_an_earlier_one_is_mended_does_no_more_harm
        short = kill_scenarios.SHORT_LOCAL[:1] if costly else kill_scenarios.SHORT_LOCAL
        chosen = [scene for scene in kill_scenarios.LOCAL if full or scene.name in short]
        metafunc.parametrize("local", chosen, indirect=True, ids=[scene.name for scene in chosen])
    if "remote" in metafunc.fixturenames:
        chosen = [scene for scene in kill_scenarios.REMOTE if full or scene.name in kill_scenarios.SHORT_KILL_COUNTS]
        metafunc.parametrize("remote", chosen, ids=[scene.name for scene in chosen])


@pytest.fixture(scope="module")
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> KillSetup:
    """A scene with a source on the local disk: it needs no SDK, and its system calls come in the same order."""
    if strace.missing():
        pytest.skip(strace.missing())
    at = tmp_path_factory.mktemp("kills")
    for name in ("source", "home"):
        (at / name).mkdir()
    prepared = scenarios.prepare_scenario(request.param, Folder(at / "source"), Cli(at / "home"), at / "template", {})
    return KillSetup(prepared, at / "runs")


@pytest.fixture(scope="module")
def calls(local: KillSetup) -> list[Call]:
    """The calls by which that scene's pull changes the disk."""
    return kill_trial.list_kill_targets(local)


def seeded(*what: str) -> random.Random:
    """Chance, the same for the same test."""
    return random.Random(" ".join((str(SEED), *what)))


def each(
    strike: Callable[[T], list[KillOutcome]], rows: Sequence[T], ledger: Ledger, threads: int = 2
) -> list[KillOutcome]:
    """Try all, some at once; note what came of them, and fail if one went wrong."""
    with ThreadPoolExecutor(threads) as pool:
        outcomes = [one for some in pool.map(strike, rows) for one in some]
    for one in outcomes:
        wrong = int(bool(one.flaws))
        fault = f"{one.kill_point.signum.name}: {one.phase}"
        ledger.add_row("Kills", Row(fault, 1, 1 - wrong, 0, wrong, one.refetched_bytes, seconds=one.seconds))
    assert [str(one) for one in outcomes if one.flaws] == []
    return outcomes


def here(bench: KillSetup, what: str, rows: Sequence[tuple[KillPoint, ...]], ledger: Ledger) -> list[KillOutcome]:
    """Strike down local pulls, each to a destination of its own."""
    numbered = list(enumerate(rows))
    return each(lambda row: kill_trial.kill_pulls(bench, f"{what}-{row[0]}", *row[1]), numbered, ledger)


def choose(calls: Sequence[Call], chance: random.Random, *, full: bool, publishing: int, others: int) -> list[Call]:
    """The calls to strike at: all in full, save for most of those that only bring bytes; in short a few."""
    renames = [call for call in calls if call[0] in PUBLISHING]
    data = [call for call in calls if call[0] in DATA]
    rest = [call for call in calls if call not in renames and call not in data]
    if full:
        return [*renames, *rest, *chance.sample(data, min(ENOUGH, len(data)))]
    return [*chance.sample(renames, min(publishing, len(renames))), *chance.sample([*rest, *data], others)]


def test_a_kill_at_any_system_call_leaves_a_whole_model_or_none_and_the_next_pull_mends_it(
    local: KillSetup, calls: list[Call], full: bool, ledger: Ledger
) -> None:
    """What a receipt there says is so, all old or all new; in the end all is new, and nothing else is there."""
    chance = seeded("kill", local.prepared.scenario.name)
    chosen = choose(calls, chance, full=full, publishing=3, others=1)

    outcomes = here(local, "kill", [(KillPoint(call=call),) for call in chosen], ledger)

    assert any(one.run.code != 0 for one in outcomes)


def test_a_kill_while_an_earlier_one_is_mended_does_no_more_harm(
    local: KillSetup, calls: list[Call], full: bool, ledger: Ledger
) -> None:
    """Two or three in a row."""
    chance = seeded("row", local.prepared.scenario.name)
    chosen = [KillPoint(call=call) for call in choose(calls, chance, full=True, publishing=0, others=0)]

    here(
        local, "row", [tuple(chance.choices(chosen, k=chance.choice((2, 3)))) for _ in range(20 if full else 1)], ledger
    )


def test_a_signal_at_any_system_call_ends_it_in_order(
    local: KillSetup, calls: list[Call], full: bool, ledger: Ledger
) -> None:
    """It says so, with the exit code of the signal, and leaves nothing half-published; more of them change nothing."""
    chance = seeded("signal", local.prepared.scenario.name)
    chosen = choose(calls, chance, full=full, publishing=1, others=0)
    chosen = chance.sample(chosen, min(len(chosen), 40))

    here(
        local,
        "signal",
        [(KillPoint(chance.choice(CATCHABLE), call, count=chance.choice((1, 2))),) for call in chosen],
        ledger,
    )


def test_signals_at_random_moments_end_it_in_order(local: KillSetup, full: bool, ledger: Ledger) -> None:
    """From the start-up on; in bursts, too."""
    chance = seeded("moment", local.prepared.scenario.name)
    rows = [
        (KillPoint(chance.choice(CATCHABLE), seconds=chance.uniform(0, 0.7), count=chance.choice((1, 2, 50))),)
        for _ in range(20 if full else 1)
    ]

    here(local, "moment", rows, ledger)


def on_a_store(scene: Scenario, store: Store, at: Path) -> PreparedScenario:
    """A scene whose source is a bucket."""
    (at / "home").mkdir(parents=True)
    return scenarios.prepare_scenario(scene, store, Cli(at / "home"), at / "template", store.env)


def paced(
    prepared: PreparedScenario,
    store: Store,
    at: Path,
    one: KillPoint,
    between: Callable[[], PreparedScenario] | None = None,
) -> list[KillOutcome]:
    """Strike down a pull that takes its time, for the store sends slowly."""
    with closing(FaultProxy(store.endpoint)) as proxy:
        proxy.add(**store.downloads(), times=None, trickle=PACE)
        bench = KillSetup(prepared, at, store.env_at(proxy.url), proxy, ("--connections", "2"), between)
        return kill_trial.kill_pulls(bench, "struck", one)


def duration(prepared: PreparedScenario, store: Store, at: Path) -> float:
    """Seconds that it takes if it is left alone."""
    with closing(FaultProxy(store.endpoint)) as proxy:
        proxy.add(**store.downloads(), times=None, trickle=PACE)
        cli = KillSetup(prepared, at).make_cli(at)
        begun = time.monotonic()
        cli.ok(
            "pull",
            prepared.uri,
            prepared.lay_out_destination(at / "volume"),
            "--connections",
            "2",
            env=store.env_at(proxy.url),
        )
        return time.monotonic() - begun


def moments(scene: Scenario, chance: random.Random, seconds: float, *, full: bool) -> list[KillPoint]:
    """Half of them by what has arrived, half by the clock."""
    times = (kill_scenarios.KILL_COUNTS if full else kill_scenarios.SHORT_KILL_COUNTS)[scene.name]
    signals = [signal.SIGKILL] * 14 + [*CATCHABLE] * full
    least = 1 if full else scene.size // 2  # in short, late enough for something to be resumed
    return [
        KillPoint(chance.choice(signals), seconds=chance.uniform(0, seconds))
        if number % 2
        else KillPoint(chance.choice(signals), sent_bytes=chance.randrange(least, scene.size))
        for number in range(times)
    ]


def test_a_pull_that_is_killed_at_a_random_moment_is_finished_by_the_next(
    store: Store, remote: Scenario, full: bool, ledger: Ledger, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """What had arrived whole is not fetched again."""
    prepared, chance = on_a_store(remote, store, tmp_path), seeded(store.scheme, remote.name)
    seconds = duration(prepared, store, tmp_path / "alone") if full else 1.5
    chosen = list(enumerate(moments(remote, chance, seconds, full=full)))

    outcomes = each(lambda one: paced(prepared, store, tmp_path / str(one[0]), one[1]), chosen, ledger, threads=3)

    record_property("saved", sum(one.resumed_bytes for one in outcomes))
    record_property("fetched twice", sum(one.refetched_bytes for one in outcomes))
    if remote.name == "a large object":
        assert any(0 < one.resumed_bytes < one.size for one in outcomes)


def test_an_object_that_changed_after_a_kill_is_fetched_from_its_start(
    store: Store, full: bool, ledger: Ledger, tmp_path: Path
) -> None:
    """Nothing of what had arrived is mixed into it."""
    scene = kill_scenarios.CHANGING
    prepared, chance = on_a_store(scene, store, tmp_path), seeded("changed", store.scheme)
    changed = replace(prepared, scenario=replace(scene, new=kill_scenarios.CHANGED))

    def change() -> PreparedScenario:
        store.put("m", kill_scenarios.CHANGED.files["m"])
        return changed

    def attempt(number: int) -> list[KillOutcome]:
        store.put("m", scene.new.files["m"])
        one = KillPoint(sent_bytes=chance.randrange(scene.size // 2, scene.size))
        return paced(prepared, store, tmp_path / str(number), one, change)

    outcomes = each(attempt, range(10 if full else 1), ledger, threads=1)

    assert any(one.journaled_bytes for one in outcomes)

from collections.abc import Sequence

import pytest

from bench.cases import CASES, MODELFETCH, MOST_RSS, Case, Goal, against
from bench.measure import Run
from bench.verdicts import NOISY, NOTHING, Row, drift, judge, rows, spread

CASE = Case("c", "work", "c.bin", {MODELFETCH: "", "peer": ""}, against("peer", wall=0.8, cpu=None))


def runs(walls: Sequence[float], calibrations: Sequence[float] | None = None, rss: int = 1) -> list[Run]:
    """Runs that took so long, on a machine that was as fast as that."""
    fast = calibrations or [1.0] * len(walls)
    return [Run(wall, 1.0, 0.5, rss, wall, 1, 0.0, speed) for wall, speed in zip(walls, fast, strict=True)]


def wall(ours: Sequence[Run], peers: Sequence[Run]) -> Row:
    """The row of the goal that is judged."""
    return rows(CASE, {MODELFETCH: ours, "peer": peers})[0]


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """Both sides may drift together: what counts is how they stand in each round."""
    row = wall(runs([1.0, 2.0, 4.0]), runs([2.0, 4.0, 8.0]))

    assert (row.value, row.figure, row.peers_figure) == (0.5, 2.0, 4.0)
    assert row.verdict == "reached"


def test_a_goal_that_is_just_met_is_reached_and_more_is_missed() -> None:
    """At most means at most."""
    assert wall(runs([0.8]), runs([1.0])).verdict == "reached"
    assert wall(runs([0.81]), runs([1.0])).verdict == "missed"


def test_rounds_that_disagree_widely_say_nothing() -> None:
    """A median within the goal is luck if the ratios are spread about it."""
    row = wall(runs([0.3, 0.7, 1.5, 0.6, 0.9]), runs([1.0] * 5))

    assert row.verdict == NOISY


def test_a_machine_that_became_slower_says_nothing_where_rounds_disagree() -> None:
    """The same ratios count on a quiet machine, and not on one whose fixed work took longer in the end."""
    walls = [0.78, 0.79, 0.81]

    assert wall(runs(walls), runs([1.0] * 3)).verdict == "reached"
    assert wall(runs(walls, [1.0, 1.2, 1.4]), runs([1.0] * 3)).verdict == NOISY


@pytest.mark.parametrize(("walls", "verdict"), [((0.1, 0.3, 0.6), "reached"), ((1.0, 2.0, 4.0), "missed")])
def test_noise_does_not_hide_what_every_round_says(walls: Sequence[float], verdict: str) -> None:
    """However busy the machine was: all rounds are on one side of the goal."""
    row = wall(runs(walls), runs([1.0] * 3))

    assert row.spread > 0.25
    assert row.verdict == verdict


def test_two_rounds_do_not_outweigh_noise() -> None:
    """They agree by chance as often as not."""
    assert wall(runs([0.1, 0.2], [1.0, 2.0]), runs([1.0] * 2)).verdict == NOISY


def test_a_figure_without_a_goal_gets_no_verdict() -> None:
    """It is only told."""
    row = rows(CASE, {MODELFETCH: runs([1.0]), "peer": runs([1.0])})[1]

    assert (row.goal.metric, row.value, row.verdict) == ("cpu", 1.0, "")


def test_who_failed_is_not_measured() -> None:
    """No figure is made up for a tool that brought nothing."""
    peerless = wall(runs([1.0]), [])

    assert (peerless.value, peerless.figure, peerless.verdict) == (None, 1.0, NOTHING)
    assert [row.verdict for row in rows(CASE, {MODELFETCH: [], "peer": runs([1.0])})] == [NOTHING] * 3


def test_memory_is_judged_by_its_worst_run() -> None:
    """A peak that is too high once is too high."""
    found = {MODELFETCH: [*runs([1.0]), *runs([1.0], rss=MOST_RSS + 1)], "peer": runs([1.0, 1.0])}

    *_, memory = rows(CASE, found)

    assert (memory.goal.metric, memory.value, memory.verdict) == ("rss", MOST_RSS + 1, "missed")


def test_requests_are_judged_by_their_number() -> None:
    """They have no peer."""
    case = Case("c", "work", "c.bin", {MODELFETCH: ""}, (Goal(MODELFETCH, "", "requests", 1),))

    assert rows(case, {MODELFETCH: runs([1.0])})[0].verdict == "reached"


def test_spread_and_drift_of_nothing_and_of_the_same() -> None:
    """One value, or none, or always the same is no noise."""
    for values in ((), (2.0,), (2.0, 2.0, 2.0)):
        assert (spread(values), drift(values)) == (0.0, 0.0)


def test_spread_is_a_share_and_drift_is_against_the_fastest() -> None:
    """By hand: quartiles 2 and 4 of 1 to 5, by a median of 3; and 20 % slower throughout the end."""
    assert spread([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)
    assert drift([1.0, *[1.2] * 20]) == pytest.approx(0.2)
    assert drift([*[1.0] * 50, 3.0]) == pytest.approx(0.0)


def test_judging_needs_no_noise_to_say_no() -> None:
    """The median decides on a quiet machine, even if a round was on the other side."""
    assert judge([0.7, 0.9, 0.9], 0.8, noisy=False) == "missed"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_goal_is_of_contenders_that_run(case: Case) -> None:
    """A name that is misspelt in a goal would never be measured."""
    for goal in case.goals:
        assert {goal.ours, goal.peer} <= {*case.commands, ""}
    assert set(case.needs) <= set(case.commands)

from collections.abc import Sequence

import pytest

from bench.cases import CASES, MODELFETCH, MOST_RSS, Case, Goal, goals_against
from bench.measure import Run
from bench.verdicts import NOISY, NOTHING, Row, judge_case, judge_ratios, relative_drift, relative_spread

CASE = Case("c", "work", "c.bin", {MODELFETCH: "", "peer": ""}, goals_against("peer", wall=0.8, cpu=None))


def make_runs(walls: Sequence[float], calibrations: Sequence[float] | None = None, rss: int = 1) -> list[Run]:
    """Return runs with these wall times, on a machine with these calibrations."""
    fast = calibrations or [1.0] * len(walls)
    return [Run(wall, 1.0, 0.5, rss, wall, 1, 0.0, speed) for wall, speed in zip(walls, fast, strict=True)]


def judge_wall(ours: Sequence[Run], peers: Sequence[Run]) -> Row:
    """Return the row of the judged goal."""
    return judge_case(CASE, {MODELFETCH: ours, "peer": peers})[0]


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """Ratios are taken per round, as both sides may drift together."""
    row = judge_wall(make_runs([1.0, 2.0, 4.0]), make_runs([2.0, 4.0, 8.0]))

    assert (row.value, row.figure, row.peers_figure) == (0.5, 2.0, 4.0)
    assert row.verdict == "reached"


def test_a_goal_that_is_just_met_is_reached_and_more_is_missed() -> None:
    """A value equal to the limit is reached; above is missed."""
    assert judge_wall(make_runs([0.8]), make_runs([1.0])).verdict == "reached"
    assert judge_wall(make_runs([0.81]), make_runs([1.0])).verdict == "missed"


def test_rounds_that_disagree_widely_say_nothing() -> None:
    """Widely spread ratios are noise, even with the median within the goal."""
    row = judge_wall(make_runs([0.3, 0.7, 1.5, 0.6, 0.9]), make_runs([1.0] * 5))

    assert row.verdict == NOISY


def test_a_machine_that_became_slower_says_nothing_where_rounds_disagree() -> None:
    """Equal ratios count on a quiet machine, and are noise when the calibration slows down."""
    walls = [0.78, 0.79, 0.81]

    assert judge_wall(make_runs(walls), make_runs([1.0] * 3)).verdict == "reached"
    assert judge_wall(make_runs(walls, [1.0, 1.2, 1.4]), make_runs([1.0] * 3)).verdict == NOISY


@pytest.mark.parametrize(("walls", "verdict"), [((0.1, 0.3, 0.6), "reached"), ((1.0, 2.0, 4.0), "missed")])
def test_noise_does_not_hide_what_every_round_says(walls: Sequence[float], verdict: str) -> None:
    """All rounds on the same side of the goal decide, however noisy the machine."""
    row = judge_wall(make_runs(walls), make_runs([1.0] * 3))

    assert row.spread > 0.25
    assert row.verdict == verdict


def test_two_rounds_do_not_outweigh_noise() -> None:
    """Two rounds agree by chance and do not outweigh noise."""
    assert judge_wall(make_runs([0.1, 0.2], [1.0, 2.0]), make_runs([1.0] * 2)).verdict == NOISY


def test_a_figure_without_a_goal_gets_no_verdict() -> None:
    """A figure without a limit is reported without a verdict."""
    row = judge_case(CASE, {MODELFETCH: make_runs([1.0]), "peer": make_runs([1.0])})[1]

    assert (row.goal.metric, row.value, row.verdict) == ("cpu", 1.0, "")


def test_who_failed_is_not_measured() -> None:
    """A failed tool has no figure and the verdict "not measured"."""
    peerless = judge_wall(make_runs([1.0]), [])

    assert (peerless.value, peerless.figure, peerless.verdict) == (None, 1.0, NOTHING)
    assert [row.verdict for row in judge_case(CASE, {MODELFETCH: [], "peer": make_runs([1.0])})] == [NOTHING] * 3


def test_memory_is_judged_by_its_worst_run() -> None:
    """Memory is judged by its maximum over all runs."""
    found = {MODELFETCH: [*make_runs([1.0]), *make_runs([1.0], rss=MOST_RSS + 1)], "peer": make_runs([1.0, 1.0])}

    *_, memory = judge_case(CASE, found)

    assert (memory.goal.metric, memory.value, memory.verdict) == ("rss", MOST_RSS + 1, "missed")


def test_requests_are_judged_by_their_number() -> None:
    """Requests are judged as a figure, without a peer."""
    case = Case("c", "work", "c.bin", {MODELFETCH: ""}, (Goal(MODELFETCH, "", "requests", 1),))

    assert judge_case(case, {MODELFETCH: make_runs([1.0])})[0].verdict == "reached"


def test_spread_and_drift_of_nothing_and_of_the_same() -> None:
    """Zero, single or equal values have no spread and no drift."""
    for values in ((), (2.0,), (2.0, 2.0, 2.0)):
        assert (relative_spread(values), relative_drift(values)) == (0.0, 0.0)


def test_spread_is_a_share_and_drift_is_against_the_fastest() -> None:
    """By hand: quartiles 2 and 4 of 1 to 5, by a median of 3; and 20 % slower throughout the end."""
    assert relative_spread([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)
    assert relative_drift([1.0, *[1.2] * 20]) == pytest.approx(0.2)
    assert relative_drift([*[1.0] * 50, 3.0]) == pytest.approx(0.0)


def test_judging_needs_no_noise_to_say_no() -> None:
    """The median decides on a quiet machine, even if a round was on the other side."""
    assert judge_ratios([0.7, 0.9, 0.9], 0.8, noisy=False) == "missed"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_goal_is_of_contenders_that_run(case: Case) -> None:
    """Every goal names contenders of its case: a misspelt name would never be measured."""
    for goal in case.goals:
        assert {goal.ours, goal.peer} <= {*case.commands, ""}
    assert set(case.needs) <= set(case.commands)

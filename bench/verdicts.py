"""Verdicts from runs: medians, ratios, and whether a goal is reached or the machine was too noisy to tell."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import cases
from bench.cases import MODELFETCH, Case, Goal
from bench.measure import Run

_MAX_SPREAD = 0.25  # interquartile range by median, of the rounds' ratios
_MAX_DRIFT = 0.15  # slowdown of the machine during a case
_MIN_ROUNDS = 3
NOISY = "noisy: no conclusion"
NOTHING = "not measured"

Runs = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Row:
    """A goal and its verdict; seconds, bytes or requests.

    Attributes:
        figure, peers_figure: medians; of memory, the maximum.
        value: the judged value: the median of the rounds' ratios, or the figure without a peer.
        spread: of the rounds' ratios.
    """

    title: str
    goal: Goal
    figure: float | None
    peers_figure: float | None
    value: float | None
    spread: float
    verdict: str


def judge_case(case: Case, runs: Runs) -> list[Row]:
    """Return a row for each goal of the case, and for memory; a failed contender has no runs."""
    moved = relative_drift([run.calibration for each in runs.values() for run in each])
    peaks = [float(run.rss) for name, each in runs.items() if name.startswith(MODELFETCH) for run in each]
    memory = judge_figure(case.title, Goal(MODELFETCH, "", "rss", cases.MOST_RSS), max(peaks, default=None))
    return [*(_judge_goal(case, goal, runs, moved) for goal in case.goals), memory]


def _judge_goal(case: Case, goal: Goal, runs: Runs, moved: float) -> Row:
    ours = [read_metric(run, goal.metric) for run in runs.get(goal.ours, ())]
    if not goal.peer:
        return judge_figure(case.title, goal, max(ours, default=None))
    peers = [read_metric(run, goal.metric) for run in runs.get(goal.peer, ())]
    if not ours or not peers:
        return Row(case.title, goal, median_or_none(ours), median_or_none(peers), None, 0.0, NOTHING)
    ratios = [mine / other for mine, other in zip(ours, peers, strict=True)]
    wide = relative_spread(ratios)
    verdict = judge_ratios(ratios, goal.at_most, noisy=wide > _MAX_SPREAD or moved > _MAX_DRIFT)
    return Row(case.title, goal, median_or_none(ours), median_or_none(peers), median_or_none(ratios), wide, verdict)


def judge_figure(title: str, goal: Goal, found: float | None) -> Row:
    """Return the row of a figure that is no ratio and independent of the machine's load."""
    verdict = NOTHING if found is None else judge_ratios([found], goal.at_most, noisy=False)
    return Row(title, goal, found, None, found, 0.0, verdict)


def read_metric(run: Run, metric: str) -> float:
    """Return a figure of a run by metric."""
    return float(getattr(run, metric))


def judge_ratios(values: Sequence[float], at_most: float | None, *, noisy: bool) -> str:
    """Judge the median against the goal; with noise only if all of several rounds agree."""
    if at_most is None:
        return ""
    if noisy and (len(values) < _MIN_ROUNDS or len({value <= at_most for value in values}) > 1):
        return NOISY
    return "reached" if statistics.median(values) <= at_most else "missed"


def relative_spread(values: Sequence[float]) -> float:
    """Return the interquartile range as a share of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)


def relative_drift(values: Sequence[float]) -> float:
    """Return how much slower than the fastest all but the slowest tenth were: a lone hiccup does not count."""
    if len(values) < 2:
        return 0.0
    return statistics.quantiles(values, n=10, method="inclusive")[-1] / min(values) - 1


def median_or_none(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None

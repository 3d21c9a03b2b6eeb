"""From runs to rows: medians, ratios, and whether a goal is reached or the machine was too noisy to say."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import cases
from bench.cases import MODELFETCH, Case, Goal
from bench.measure import Run

_SPREAD = 0.25  # interquartile range by median, of the rounds' ratios
_DRIFT = 0.15  # how much slower the machine became in the course of a case
_SEVERAL = 3
NOISY = "noisy: no conclusion"
NOTHING = "not measured"

Runs = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Row:
    """One goal, and what came of it; seconds, bytes or requests.

    Attributes:
        figure, peers_figure: medians; of memory, the most.
        value: what is judged: the median of the rounds' ratios, or the figure if there is no peer.
        spread: of the rounds' ratios.
    """

    title: str
    goal: Goal
    figure: float | None
    peers_figure: float | None
    value: float | None
    spread: float
    verdict: str


def rows(case: Case, runs: Runs) -> list[Row]:
    """A row for each of the case's goals, and one for memory; a contender that failed has no runs."""
    moved = drift([run.calibration for each in runs.values() for run in each])
    peaks = [float(run.rss) for name, each in runs.items() if name.startswith(MODELFETCH) for run in each]
    memory = figure(case.title, Goal(MODELFETCH, "", "rss", cases.MOST_RSS), max(peaks, default=None))
    return [*(_row(case, goal, runs, moved) for goal in case.goals), memory]


def _row(case: Case, goal: Goal, runs: Runs, moved: float) -> Row:
    ours = [measured(run, goal.metric) for run in runs.get(goal.ours, ())]
    if not goal.peer:
        return figure(case.title, goal, max(ours, default=None))
    peers = [measured(run, goal.metric) for run in runs.get(goal.peer, ())]
    if not ours or not peers:
        return Row(case.title, goal, _median(ours), _median(peers), None, 0.0, NOTHING)
    ratios = [mine / other for mine, other in zip(ours, peers, strict=True)]
    wide = spread(ratios)
    verdict = judge(ratios, goal.at_most, noisy=wide > _SPREAD or moved > _DRIFT)
    return Row(case.title, goal, _median(ours), _median(peers), _median(ratios), wide, verdict)


def figure(title: str, goal: Goal, found: float | None) -> Row:
    """The row of a figure that is no ratio, and does not depend on how busy the machine was."""
    verdict = NOTHING if found is None else judge([found], goal.at_most, noisy=False)
    return Row(title, goal, found, None, found, 0.0, verdict)


def measured(run: Run, metric: str) -> float:
    """One of a run's figures."""
    return float(getattr(run, metric))


def judge(values: Sequence[float], at_most: float | None, *, noisy: bool) -> str:
    """Whether the median is within the goal; noise forbids to say so, unless every round says the same, of several."""
    if at_most is None:
        return ""
    if noisy and (len(values) < _SEVERAL or len({value <= at_most for value in values}) > 1):
        return NOISY
    return "reached" if statistics.median(values) <= at_most else "missed"


def spread(values: Sequence[float]) -> float:
    """The interquartile range, as a share of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)


def drift(values: Sequence[float]) -> float:
    """How much slower than the fastest all but the slowest tenth were: a lone hiccup does not count."""
    if len(values) < 2:
        return 0.0
    return statistics.quantiles(values, n=10, method="inclusive")[-1] / min(values) - 1


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None

"""Results as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.cases import MODELFETCH
from bench.verdicts import NOTHING, Row, Runs, measured

_GOALS = ("work", "against", "measure", "ours", "theirs", "ratio", "goal", "verdict")
_TOOLS = ("tool", "wall s", "CPU s", "user", "sys", "peak RSS MiB", "pull and read back s", "rounds")


def markdown(facts: Mapping[str, Any], rows: Sequence[Row], measurements: Mapping[str, Runs]) -> str:
    """On what the figures were taken, the goals and what came of them, then every contender's medians."""
    tools = (f"{name}\n\n{_table(_TOOLS, _medians(runs))}" for name, runs in measurements.items())
    return "\n\n".join([_preface(facts), _table(_GOALS, [_cells(row) for row in rows]), *tools]) + "\n"


def _preface(facts: Mapping[str, Any]) -> str:
    on = facts["machine"]
    lines = [
        f"{on['cpu']}, {on['processors']} processors, Linux {on['kernel']}, Python {on['python']}.",
        f"With {facts['sizes']} sizes, in {facts['minutes']} minutes.",
        f"Other work on this machine took {facts['others']:.0%} of its processors meanwhile.",
        f"kserve-storage brings {shown('packages', facts['kserve_packages'])} of site-packages.",
        *(f"{name}: skipped, {why}." for name, why in facts["skipped"].items()),
        *(f"{name}: failed, {why.splitlines()[0]}" for name, why in facts["failed"].items()),
    ]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    goal = row.goal
    ours = "" if goal.ours == MODELFETCH else f" ({goal.ours})"
    figures = [shown(goal.metric, row.figure), shown(goal.metric, row.peers_figure)]
    ratio = "" if row.value is None or not goal.peer else f"{row.value:.2f}"
    at_most = "" if goal.at_most is None else shown("" if goal.peer else goal.metric, goal.at_most)
    return [row.title + ours, goal.peer or "-", goal.metric, *figures, ratio, at_most, row.verdict]


def _medians(runs: Runs) -> list[list[str]]:
    lines = []
    for contender, each in runs.items():
        if each:
            figures = [statistics.median(measured(run, m) for run in each) for m in ("wall", "cpu", "user", "system")]
            read = statistics.median(run.readable for run in each)
            most = max(run.rss for run in each) / 1024**2
            cells = [*(f"{figure:.2f}" for figure in figures), f"{most:.0f}", f"{read:.2f}", str(len(each))]
            lines.append([contender, *cells])
        else:
            lines.append([contender, NOTHING, *[""] * 6])
    return lines


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join([_line(head), f"|{'---|' * len(head)}", *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def shown(metric: str, figure: float | None) -> str:
    """A figure with its unit; a ratio has none."""
    if figure is None:
        return "-"
    match metric:
        case "rss":
            return f"{figure / 1024**2:.0f} MiB"
        case "packages":
            return f"{figure / 10**6:.0f} MB"
        case "requests":
            return f"{figure:.0f}"
        case "wall" | "cpu" | "readable":
            return f"{figure:.2f} s"
        case _:
            return f"{figure:.2f}"

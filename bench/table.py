"""Render the results as Markdown tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.cases import MODELFETCH
from bench.verdicts import NOTHING, Row, Runs, read_metric

_GOALS = ("work", "against", "measure", "ours", "theirs", "ratio", "goal", "verdict")
_TOOLS = ("tool", "wall s", "CPU s", "user", "sys", "peak RSS MiB", "pull and read back s", "rounds")


def render_markdown(facts: Mapping[str, Any], rows: Sequence[Row], measurements: Mapping[str, Runs]) -> str:
    """Return the conditions, the goals with verdicts, and every contender's medians."""
    tools = (f"{name}\n\n{_render_table(_TOOLS, _median_rows(runs))}" for name, runs in measurements.items())
    return (
        "\n\n".join([_render_preface(facts), _render_table(_GOALS, [_row_cells(row) for row in rows]), *tools]) + "\n"
    )


def _render_preface(facts: Mapping[str, Any]) -> str:
    on = facts["machine"]
    lines = [
        f"{on['cpu']}, {on['processors']} processors, Linux {on['kernel']}, Python {on['python']}.",
        f"With {facts['sizes']} sizes, in {facts['minutes']} minutes.",
        f"Other work on this machine took {facts['others']:.0%} of its processors meanwhile.",
        f"kserve-storage brings {format_figure('packages', facts['kserve_packages'])} of site-packages.",
        *(f"{name}: skipped, {why}." for name, why in facts["skipped"].items()),
        *(f"{name}: failed, {why.splitlines()[0]}" for name, why in facts["failed"].items()),
    ]
    return "\n".join(lines)


def _row_cells(row: Row) -> list[str]:
    goal = row.goal
    ours = "" if goal.ours == MODELFETCH else f" ({goal.ours})"
    figures = [format_figure(goal.metric, row.figure), format_figure(goal.metric, row.peers_figure)]
    ratio = "" if row.value is None or not goal.peer else f"{row.value:.2f}"
    at_most = "" if goal.at_most is None else format_figure("" if goal.peer else goal.metric, goal.at_most)
    return [row.title + ours, goal.peer or "-", goal.metric, *figures, ratio, at_most, row.verdict]


def _median_rows(runs: Runs) -> list[list[str]]:
    lines = []
    for contender, each in runs.items():
        if each:
            figures = [
                statistics.median(read_metric(run, m) for run in each) for m in ("wall", "cpu", "user", "system")
            ]
            read = statistics.median(run.readable for run in each)
            most = max(run.rss for run in each) / 1024**2
            cells = [*(f"{figure:.2f}" for figure in figures), f"{most:.0f}", f"{read:.2f}", str(len(each))]
            lines.append([contender, *cells])
        else:
            lines.append([contender, NOTHING, *[""] * 6])
    return lines


def _render_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join([_render_line(head), f"|{'---|' * len(head)}", *map(_render_line, lines)])


def _render_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def format_figure(metric: str, figure: float | None) -> str:
    """Format a figure with its unit; a ratio has none."""
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

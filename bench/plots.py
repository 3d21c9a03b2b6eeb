"""Draw the results: RESULTS.json DIRECTORY. Runs in the peers' environment, with matplotlib."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Readable on white and on black; equal figures give equal files.
_GREY, _OURS, _PEERS, _GOAL = "#808890", "#2f81f7", "#9aa4ae", "#e0a000"
_VERDICTS = {"reached": _OURS, "missed": "#d9534f"}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_WIDEST = 2.0  # ratio at which a bar is cut off; the label has the figure
_STYLE = {
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "modelfetch",
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
}


def draw_large_object(results: dict[str, Any], path: Path) -> None:
    """Bars of CPU and of wall for the large object, by tool."""
    runs = results["runs"].get("large-s3", {})
    tools = [name for name, each in runs.items() if each]
    if not tools:
        return
    size = results["facts"]["large_bytes"] / 1e9
    cpu = [statistics.median(run["user"] + run["system"] for run in runs[name]) / size for name in tools]
    wall = [statistics.median(run["wall"] for run in runs[name]) for name in tools]
    figure, axes = plt.subplots(1, 2, figsize=(8, 0.4 * len(tools) + 1), sharey=True)
    for axis, values, label in ((axes[0], cpu, "CPU seconds per GB"), (axes[1], wall, "seconds")):
        bars = axis.barh(tools, values, color=[_OURS if name == "modelfetch" else _PEERS for name in tools])
        axis.bar_label(bars, fmt="%.2f", padding=3, color=_GREY)
        axis.set_xlabel(label)
        axis.margins(x=0.15)
    axes[0].invert_yaxis()
    _save_figure(figure, path)


def draw_ratios(results: dict[str, Any], path: Path) -> None:
    """Draw every ratio beside its goal."""
    rows = [{**row, **row["goal"]} for row in results["rows"] if row["goal"]["peer"] and row["value"] is not None]
    rows = [row for row in rows if row["at_most"]]
    if not rows:
        return
    figure, axis = plt.subplots(figsize=(9, 0.26 * len(rows) + 1.2))
    places = range(len(rows))
    colours = [_VERDICTS.get(row["verdict"], _PEERS) for row in rows]
    bars = axis.barh(places, [min(row["value"], _WIDEST) for row in rows], color=colours, height=0.7)
    axis.bar_label(bars, [f"{row['value']:.2f}" for row in rows], padding=3, color=_GREY)
    axis.vlines(
        [row["at_most"] for row in rows], [at - 0.48 for at in places], [at + 0.48 for at in places], _GOAL, lw=2
    )
    axis.set_yticks(places, [_label_row(row) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, _WIDEST * 1.15)
    axis.set_xlabel("modelfetch divided by the other: less is better")
    patches = [
        Patch(color=colour, label=name) for name, colour in (*_VERDICTS.items(), ("noisy", _PEERS), ("goal", _GOAL))
    ]
    axis.legend(handles=patches, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    _save_figure(figure, path)


def _label_row(row: dict[str, Any]) -> str:
    ours = "" if row["ours"] == "modelfetch" else f" ({row['ours'].removeprefix('modelfetch, ')})"
    return f"{row['title']}{ours}: {row['metric']} against {row['peer']}"


def _save_figure(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, format="svg", transparent=True, metadata=_NO_METADATA)
    plt.close(figure)


def main() -> None:
    """Draw both plots as SVG files."""
    results = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    mpl.use("svg")
    with mpl.rc_context(_STYLE):
        draw_large_object(results, folder / "bench-large.svg")
        draw_ratios(results, folder / "bench-ratios.svg")


if __name__ == "__main__":
    main()

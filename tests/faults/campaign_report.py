"""Table of the campaigns: faults, number of runs, outcomes.

A campaign's test takes the fixture `ledger` and adds a `Row` for each fault or for each run; rows of the same fault
are summed. pytest prints the table at the end, and `--campaign-report PATH` writes PATH.md and PATH.json.
"""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("fault", "runs", "right model", "clean failure", "wrong outcome", "fetched twice", "peak memory")
SIGNAL_COLUMN = "signal to end"  # only if measured


@dataclass(frozen=True)
class Row:
    """Outcomes of a fault.

    Attributes:
        fault: the fault, in plain words.
        runs: number of runs; the sum of the next three.
        right_models: runs with the whole model, every byte, and its receipt.
        clean_failures: runs with the documented exit code and reason, and nothing published.
        wrong_outcomes: all other runs.
        refetched_bytes: bytes of model bodies sent in excess of the models' sizes, over all runs.
        peak_bytes: the largest resident set of any run; 0 if not measured.
        seconds: from a signal to the end of the process, of each measured run.
    """

    fault: str
    runs: int
    right_models: int
    clean_failures: int
    wrong_outcomes: int
    refetched_bytes: int = 0
    peak_bytes: int = 0
    seconds: list[float] = field(default_factory=list)

    def __add__(self, other: "Row") -> "Row":
        """Sum two rows under the name of the first."""
        return Row(
            self.fault,
            self.runs + other.runs,
            self.right_models + other.right_models,
            self.clean_failures + other.clean_failures,
            self.wrong_outcomes + other.wrong_outcomes,
            self.refetched_bytes + other.refetched_bytes,
            max(self.peak_bytes, other.peak_bytes),
            [*self.seconds, *other.seconds],
        )


@dataclass
class Ledger:
    """Rows of all campaigns by campaign title, in the order of arrival."""

    campaigns: dict[str, dict[str, Row]] = field(default_factory=dict)

    def add_row(self, campaign: str, row: Row) -> None:
        """Add a row under a campaign's title, e.g. "Kills"; rows of the same fault are summed."""
        rows = self.campaigns.setdefault(campaign, {})
        rows[row.fault] = rows[row.fault] + row if row.fault in rows else row

    def campaign_rows(self, campaign: str) -> list[Row]:
        """Return the rows of a campaign."""
        return list(self.campaigns.get(campaign, {}).values())


def render_tables(ledger: Ledger) -> str:
    """Return a Markdown table for each campaign, with columns aligned for a terminal."""
    return "\n".join(
        f"### {campaign}\n\n{_render_table(ledger.campaign_rows(campaign))}\n" for campaign in ledger.campaigns
    )


def save_tables(ledger: Ledger, path: Path) -> None:
    """Write the tables for people (.md) and for programs (.json)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(render_tables(ledger))
    rows = {name: [dataclasses.asdict(row) for row in ledger.campaign_rows(name)] for name in ledger.campaigns}
    path.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


def _render_table(rows: Sequence[Row]) -> str:
    total = sum(rows[1:], start=rows[0])
    lines = [
        (*COLUMNS, SIGNAL_COLUMN),
        *(_row_cells(row) for row in rows),
        _row_cells(dataclasses.replace(total, fault="**all**")),
    ]
    if not total.seconds:
        lines = [line[: len(COLUMNS)] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_render_line(cells, widths) for cells in (lines[0], ruler, *lines[1:]))


def _render_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join([cells[0].ljust(widths[0]), *numbers])} |"


def _row_cells(row: Row) -> tuple[str, ...]:
    counts = (row.runs, row.right_models, row.clean_failures, row.wrong_outcomes)
    return (
        row.fault,
        *map(str, counts),
        _format_megabytes(row.refetched_bytes),
        _format_megabytes(row.peak_bytes),
        _format_seconds(row.seconds),
    )


def _format_megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count else "0"


def _format_seconds(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s" if seconds else ""

"""Table of the campaigns: sums and formats."""

import json
from pathlib import Path

from tests.faults import campaign_report
from tests.faults.campaign_report import Ledger, Row


def test_runs_of_a_fault_are_summed_in_a_row_and_all_in_the_last(tmp_path: Path) -> None:
    """Counts and bytes are summed, memory is the largest; Markdown and JSON agree."""
    ledger = Ledger()
    ledger.add_row("Faults", Row("reset", 1, 1, 0, 0, 1_500_000, 80_000_000))
    ledger.add_row("Faults", Row("reset", 1, 0, 1, 0, 1_500_000, 90_000_000))
    ledger.add_row("Faults", Row("stall", 2, 1, 0, 1))

    campaign_report.save_tables(ledger, tmp_path / "new" / "table")

    lines = (tmp_path / "new" / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[2:] == [
        ["reset", "2", "1", "1", "0", "3.0 MB", "90.0 MB"],
        ["stall", "2", "1", "0", "1", "0", "0"],
        ["**all**", "4", "2", "1", "1", "3.0 MB", "90.0 MB"],
    ]
    assert all(len(row) == len(campaign_report.COLUMNS) for row in cells)  # no signal column: not measured
    (first, _) = json.loads((tmp_path / "new" / "table.json").read_text())["Faults"]
    assert Row(**first) == ledger.campaign_rows("Faults")[0]


def test_signal_column_shows_seconds_where_measured() -> None:
    """The last column has median and maximum seconds where measured."""
    ledger = Ledger()
    for seconds in (0.1, 0.3, 0.2):
        ledger.add_row("Kills", Row("SIGTERM", 1, 0, 1, 0, seconds=[seconds]))
    ledger.add_row("Kills", Row("SIGKILL", 1, 1, 0, 0))

    lines = [
        line.strip("|").split("|")
        for line in campaign_report.render_tables(ledger).splitlines()
        if line.startswith("|")
    ]

    assert [line[-1].strip() for line in lines if "-" not in line[0]] == [
        "signal to end",
        "0.20 s, at most 0.30 s",
        "",
        "0.20 s, at most 0.30 s",
    ]

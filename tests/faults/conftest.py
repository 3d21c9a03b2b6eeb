"""Ledger of the campaigns, and the table at the end of a test run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.faults import campaign_report

LEDGER = pytest.StashKey[campaign_report.Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the session with an empty ledger."""
    config.stash[LEDGER] = campaign_report.Ledger()


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> campaign_report.Ledger:
    """Return the ledger to which campaigns add their outcomes."""
    return request.config.stash[LEDGER]


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether to run a campaign in full (`make faults`), not in the short form of `make test`."""
    return bool(request.config.option.full)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's rows to the process that prints the table."""
    if hasattr(session.config, "workeroutput"):
        campaigns = session.config.stash[LEDGER].campaigns
        sent = {name: [dataclasses.asdict(row) for row in rows.values()] for name, rows in campaigns.items()}
        session.config.workeroutput["campaigns"] = sent


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the rows of a worker of pytest-xdist to the ledger."""
    for name, rows in getattr(node, "workeroutput", {}).get("campaigns", {}).items():
        for row in rows:
            node.config.stash[LEDGER].add_row(name, campaign_report.Row(**row))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and save a copy to the path in `--campaign-report`."""
    config = terminalreporter.config
    ledger = config.stash[LEDGER]
    if not ledger.campaigns:
        return
    terminalreporter.section("campaigns")
    terminalreporter.write_line(campaign_report.render_tables(ledger))
    if config.option.campaign_report:
        campaign_report.save_tables(ledger, Path(config.option.campaign_report))

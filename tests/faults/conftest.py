"""The campaigns' ledger, and the table at the end of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.faults import report

LEDGER = pytest.StashKey[report.Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin an empty ledger."""
    config.stash[LEDGER] = report.Ledger()


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> report.Ledger:
    """Where campaigns note what came of their faults."""
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
            node.config.stash[LEDGER].add(name, report.Row(**row))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and save it where `--campaign-report` says."""
    config = terminalreporter.config
    noted = config.stash[LEDGER]
    if not noted.campaigns:
        return
    terminalreporter.section("campaigns")
    terminalreporter.write_line(report.render(noted))
    if config.option.campaign_report:
        report.save(noted, Path(config.option.campaign_report))

"""Ledger of the campaigns, and the table at the end of a test run."""

from pathlib import Path

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

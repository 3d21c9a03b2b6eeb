"""The campaigns' ledger, and the table at the end of a run."""

from pathlib import Path

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

"""SIGTERM and SIGINT end a pull at once at every blocking point; the table states the seconds.

Nothing else would end the pull during the test. test_kills.py covers signals while files are moved and flushed.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit import mounts
from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import RECEIPT_NAME
from testkit.stores import S3Bucket
from tests.faults import kill_scenarios
from tests.faults.blocking_points import BLOCKING_POINTS, BlockedPull
from tests.faults.campaign_report import Ledger, Row

CATCHABLE = (signal.SIGTERM, signal.SIGINT)
ROUNDS = 3  # in the full form

pytestmark = [pytest.mark.slow, pytest.mark.timing, pytest.mark.timeout(900)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Pair each blocking point with a signal; in the full form with both."""
    full = bool(metafunc.config.option.full)
    rows = [
        pytest.param(waiting, signum, id=f"{signum.name}, {waiting}")
        for number, waiting in enumerate(BLOCKING_POINTS)
        for turn, signum in enumerate(CATCHABLE)
        if full or number % 2 == turn
    ]
    metafunc.parametrize(("waiting", "signum"), rows)


def test_signal_ends_a_blocked_command_at_once(
    modelfetch: CliRunner,
    s3_bucket: S3Bucket,
    fault_proxy: Callable[..., FaultProxy],
    tmp_path: Path,
    waiting: str,
    signum: signal.Signals,
    full: bool,
    ledger: Ledger,
) -> None:
    """The pull reports the signal in a single line, and leaves no file that passes for a model."""
    s3_bucket.put("m", kill_scenarios.OLD_FILE.files["m"])
    for number in range(ROUNDS if full else 1):
        (at := tmp_path / str(number)).mkdir()
        site = BlockedPull(modelfetch, s3_bucket, fault_proxy, at)
        with site.stack:
            try:
                running = BLOCKING_POINTS[waiting](site)
            except mounts.CannotMountError as error:
                pytest.skip(str(error))
            begun = time.monotonic()
            last = running.send_signal(signum)
            seconds = time.monotonic() - begun
        modelfetch.close()

        code = 128 + signum
        assert (last.code, last.error["code"], last.error["reason"]) == (code, code, "interrupted")
        assert "Traceback" not in last.stderr
        assert waiting == "on hashing" or not [*at.rglob(f"*{RECEIPT_NAME}"), *at.glob("volume/m")]
        ledger.add_row("Kills", Row(f"{signum.name}: {waiting}", 1, 0, 1, 0, seconds=[seconds]))

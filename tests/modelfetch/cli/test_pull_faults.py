"""Pulls over broken connections, beyond the fault campaign (tests/faults): bytes fetched twice, and the retry count."""

from collections.abc import Callable
from pathlib import Path

from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import random_bytes
from testkit.stores import Store

LARGE = random_bytes(30_000_000)


def test_broken_request_is_resumed_at_the_same_byte(
    modelfetch: CliRunner, store: Store, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path
) -> None:
    """Received bytes are not fetched again; the receipt counts the retries."""
    store.put("large.bin", LARGE)
    proxy = fault_proxy(store.endpoint)
    cut = proxy.add_rule(**store.download_filter("large.bin"), cut_after=3_000_000, times=3)

    run = modelfetch.ok("pull", store.uri("large.bin"), tmp_path / "m", "--output", "json", env=store.env_at(proxy.url))

    assert cut.hits == 3
    assert (tmp_path / "m").read_bytes() == LARGE
    assert (
        proxy.sent_bytes(store.download_filter("large.bin")["path"]) < len(LARGE) + 3_000_000
    )  # what was under way as it broke
    assert run.receipt["retries"] == 3

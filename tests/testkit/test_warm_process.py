import os
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner
from testkit.file_tree import random_bytes
from testkit.stores import ModelFolder
from testkit.warm_process import start_warm_process

pytestmark = pytest.mark.process


def test_each_run_is_a_process_of_its_own(folder: ModelFolder, tmp_path: Path) -> None:
    """Each run has its own environment, output, exit code and peak of memory."""
    folder.put("m", random_bytes(1000))
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()

    with start_warm_process(tmp_path) as run:
        good, peak = run(
            CliRunner(homes[0]), "pull", folder.uri("m"), tmp_path / "m", "--output", "json", env={}, timeout=60
        )
        bad, _ = run(CliRunner(homes[1]), "pull", env={"MODELFETCH_SOURCE": folder.uri("n")}, timeout=60)

    assert (good.code, good.receipt["bytes"]) == (0, 1000)
    assert (tmp_path / "m").read_bytes() == random_bytes(1000)
    assert peak > 10_000_000
    assert bad.code == bad.error["code"] == 78
    assert bad.termination
    assert "MODELFETCH_SOURCE" not in os.environ

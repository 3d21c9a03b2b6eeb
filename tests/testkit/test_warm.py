import os
from pathlib import Path

from testkit import tree
from testkit.cli import Cli
from testkit.stores import Folder
from testkit.warm import warm


def test_runs_are_processes_of_their_own(folder: Folder, tmp_path: Path) -> None:
    """Each with its environment, its output and its exit code; and with a figure for its memory."""
    folder.put("m", tree.noise(1000))
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()

    with warm(tmp_path) as run:
        good, peak = run(Cli(homes[0]), "pull", folder.uri("m"), tmp_path / "m", "--output", "json", env={}, timeout=60)
        bad, _ = run(Cli(homes[1]), "pull", env={"MODELFETCH_SOURCE": folder.uri("n")}, timeout=60)

    assert (good.code, good.receipt["bytes"]) == (0, 1000)
    assert (tmp_path / "m").read_bytes() == tree.noise(1000)
    assert peak > 10_000_000
    assert bad.code == bad.error["code"] == 78
    assert bad.termination
    assert "MODELFETCH_SOURCE" not in os.environ

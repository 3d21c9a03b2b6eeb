"""Kill campaign of pushes: after a killed push, a pull gets a whole model or fails, and the next push heals."""

import random
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner, RunningCommand
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import STAGING_NAME, random_bytes, read_files, sha256_hex, write_files
from testkit.stores import Store
from tests.faults.campaign_report import Ledger, Row

RUN_SECONDS = 150  # of a run on a busy machine
SEED = 4
OLD_FILES = {"a.bin": random_bytes(200_000, 1), "b/c.bin": random_bytes(100_000, 2), "d.bin": b"1"}
NEW_FILES = {"a.bin": random_bytes(200_000, 3), "b/c.bin": random_bytes(100_000, 4), "d.bin": b"2", "e/new.bin": b"new"}
REQUEST_RANGE = (3, 10)  # a push makes more requests
CLEAN_CODES = (65, 66, 75)  # manifest mismatch; nothing pushed yet; a push in progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@dataclass(frozen=True)
class PushScenario:
    """New files pushed over old files; a single file if the target has no trailing slash."""

    name: str
    old: Mapping[str, bytes]
    new: Mapping[str, bytes]
    target: str


PUSHES = [
    PushScenario("a directory, over an older one", OLD_FILES, NEW_FILES, "m/"),
    PushScenario("a directory", {}, NEW_FILES, "m/"),
    PushScenario("a file, over an older one", {"m": OLD_FILES["a.bin"]}, {"m": NEW_FILES["a.bin"]}, "m"),
]


@dataclass(frozen=True)
class PushSetup:
    """Prefix of the bucket, directory and proxy of a killed push."""

    push: PushScenario
    store: Store
    home: Path
    proxy: FaultProxy

    @property
    def target(self) -> str:
        """Return the URI to push to."""
        return self.store.uri(f"{self.home.name}/{self.push.target}")

    def start_push(self, cli: CliRunner, files: Mapping[str, bytes]) -> RunningCommand:
        """Start a push of these files through the proxy."""
        at = write_files(self.home / str(len(files)) / sha256_hex(b"".join(files.values())), files)
        return cli.start("push", at if self.push.target.endswith("/") else at / "m", self.target, env=self.proxy_env)

    @property
    def proxy_env(self) -> dict[str, str]:
        """Return the variables that point to the proxy."""
        return self.store.env_at(self.proxy.url)

    def pull_model(self, cli: CliRunner, name: str) -> tuple[int, dict[str, bytes]]:
        """Pull into a new directory; return the exit code and the files found."""
        dest = self.home / name
        run = cli("pull", self.target, dest / "m", env=self.store.env, timeout=RUN_SECONDS)
        found = {path.removeprefix("m/"): data for path, data in read_files(dest).items()} if dest.exists() else {}
        return run.code, {path: data for path, data in found.items() if not path.startswith(STAGING_NAME)}


def count_requests(push: PushScenario, store: Store, home: Path) -> int:
    """Return the number of requests of a push."""
    home.mkdir(parents=True)
    with closing(FaultProxy(store.endpoint)) as proxy:
        setup, cli = PushSetup(push, store, home, proxy), CliRunner(home)
        for files in (push.old, push.new):
            proxy.clear()
            assert not files or setup.start_push(cli, files).finish(RUN_SECONDS).code == 0
        return len(proxy.requests)


def try_killed_push(push: PushScenario, store: Store, home: Path, request_number: int) -> tuple[str, str]:
    """Kill a push at a request; return the result of the pull that follows, and the flaw if any."""
    home.mkdir(parents=True)
    with closing(FaultProxy(store.endpoint)) as proxy:
        setup, cli = PushSetup(push, store, home, proxy), CliRunner(home)
        if push.old:
            assert setup.start_push(cli, push.old).finish(RUN_SECONDS).code == 0
        proxy.clear()
        _kill_push(setup, cli, request_number)
        between, next_push = setup.pull_model(cli, "between"), setup.start_push(cli, push.new).finish(RUN_SECONDS)
        end = setup.pull_model(cli, "end")
    if next_push.code != 0:
        return "failed", f"the next push ended with {next_push.code}: {next_push.stderr}"
    if end != (0, push.new):
        return "failed", f"after it, a pull ended with {end[0]} and {sorted(end[1])}"
    if between in ((0, push.old), (0, push.new)):
        return "got a model", ""
    if between[0] in CLEAN_CODES and not between[1]:
        return "got none, and said so", ""
    return "failed", f"a pull ended with {between[0]} and {sorted(between[1])}"


def _kill_push(setup: PushSetup, cli: CliRunner, request_number: int) -> None:
    begun, victims = threading.Event(), list[RunningCommand]()

    def strike() -> None:
        begun.wait(RUN_SECONDS)
        victims[0].process.kill()

    setup.proxy.add_rule(nth=request_number, before=strike)
    victims.append(setup.start_push(cli, setup.push.new))
    begun.set()
    victims[0].finish(RUN_SECONDS)
    setup.proxy.wait_for(lambda: all(request.done for request in list(setup.proxy.requests)))
    setup.proxy.clear()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the scenarios: all in the full form."""
    if "push" in metafunc.fixturenames:
        chosen = PUSHES if metafunc.config.option.full else PUSHES[:1]
        metafunc.parametrize("push", chosen, ids=[push.name for push in chosen])


def test_pull_after_a_killed_push_gets_a_whole_model_or_a_reason(
    push: PushScenario, store: Store, full: bool, ledger: Ledger, tmp_path: Path
) -> None:
    """A pull gets the old model, the new model, or a reason; the next push is complete."""
    if full:
        chosen = range(1, count_requests(push, store, tmp_path / "alone") + 1)
    else:
        chosen = range(nth := random.Random(f"{SEED} {store.scheme}").randrange(*REQUEST_RANGE), nth + 1)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda nth: try_killed_push(push, store, tmp_path / f"nth-{nth}", nth), chosen))

    for got, wrong in outcomes:
        right = 1 if got == "got a model" else 0
        ledger.add_row("Kills", Row("SIGKILL: pushing", 1, right, int(not wrong) - right, int(bool(wrong))))
    assert [wrong for _, wrong in outcomes if wrong] == []

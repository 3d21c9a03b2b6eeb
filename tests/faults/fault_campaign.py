"""Fault campaign: pull through a fault, pull again without, and judge both outcomes."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testkit import toxiproxy
from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, read_files, sha256_hex
from testkit.stores import GCSServer, S3Server
from testkit.warm_process import WarmProcess
from tests.faults.campaign_report import Row
from tests.faults.fault import RIGHT, Fault
from tests.faults.network_route import NetworkRoute
from tests.faults.stored_models import Files, StoredModel, store_model

RUN_SECONDS = 150  # of a run; the slowest takes about 15 on an idle machine
ARCHIVE_BUFFER_BYTES = 16 * 1024**2  # of an archive waiting for extraction: keeps peaks comparable
PEAK_ALLOWANCE_BYTES = 24 * 1024**2  # allowed above the peak of undisturbed runs: the buffer above, and threads' arenas
PULL_ENV = {"MODELFETCH_MEMORY": str(ARCHIVE_BUFFER_BYTES), "MODELFETCH_STALL_TIMEOUT": "5s"}


@dataclass(frozen=True)
class FaultCase:
    """A fault applied to a model."""

    fault: Fault
    store: str
    shape: str
    variant: int = 0

    def __str__(self) -> str:
        return f"{self.fault.name} ({self.shape} on {self.store}, no. {self.variant + 1})"


@dataclass
class FaultOutcome:
    """Outcome of a case.

    Attributes:
        ending: "right", or exit code and reason.
        flaws: violations of the expected outcome.
        refetched_bytes: bytes sent in excess of the model's, by both pulls.
        peak_bytes: largest resident set of the disturbed pull.
    """

    case: FaultCase
    ending: str
    flaws: list[str] = field(default_factory=list)
    refetched_bytes: int = 0
    peak_bytes: int = 0
    output: str = ""

    @property
    def report_row(self) -> Row:
        """Return the outcome as a row of the table."""
        wrong = bool(self.flaws)
        right = not wrong and self.ending == RIGHT
        clean = not wrong and not right
        return Row(self.case.fault.name, 1, int(right), int(clean), int(wrong), self.refetched_bytes, self.peak_bytes)

    def __str__(self) -> str:
        return f"{self.case} ended {self.ending}: {'; '.join(self.flaws)}\n{self.output}"


@dataclass
class Campaign:
    """Servers, unchanged models, and the memory of an undisturbed pull of each.

    Attributes:
        toxiproxy: URL of toxiproxy's API.
        warm: runs the pulls.
        directory: a directory for all cases.
        thorough: pull once more after every pull, not only after a failure.
    """

    servers: Mapping[str, S3Server | GCSServer]
    models: Mapping[tuple[str, str], StoredModel]
    toxiproxy: str
    warm: WarmProcess
    directory: Path
    thorough: bool
    _peaks: dict[tuple[str, str], int] = field(default_factory=dict)

    def measure_undisturbed_pulls(self) -> None:
        """Pull every model without a fault and record the peak memory."""
        for (store, shape), model in self.models.items():
            case = FaultCase(Fault("none", lambda _: None), store, shape)
            self._peaks[store, shape] = sys.maxsize
            outcomes = [
                self._run_trial(case, model, self.directory / f"undisturbed-{store}-{shape}-{n}") for n in range(2)
            ]
            assert not any(outcome.flaws for outcome in outcomes), outcomes
            self._peaks[store, shape] = max(outcome.peak_bytes for outcome in outcomes)

    def undisturbed_rows(self) -> Iterator[Row]:
        """Yield table rows of the pulls without a fault."""
        for (store, shape), peak in self._peaks.items():
            yield Row(f"none: {shape} on {store}", 2, 2, 0, 0, 0, peak)

    def run_case(self, case: FaultCase) -> FaultOutcome:
        """Run a case; errors of the campaign itself are raised."""
        directory = self.directory / f"{case.fault.name}-{case.store}-{case.shape}-{case.variant}".replace(
            "/", "-"
        ).replace(" ", "-")
        with self._provide_model(case) as model:
            outcome = self._run_trial(case, model, directory)
        if not outcome.flaws:
            shutil.rmtree(directory)
        return outcome

    @contextmanager
    def _provide_model(self, case: FaultCase) -> Iterator[StoredModel]:
        if not case.fault.changes_objects:
            yield self.models[case.store, case.shape]
            return
        with self.servers[case.store].new_bucket() as bucket:
            yield store_model(bucket, case.shape, gzip_encoded=case.fault.gzip_encoded)

    def _run_trial(self, case: FaultCase, model: StoredModel, directory: Path) -> FaultOutcome:
        with ExitStack() as stack:
            proxy = stack.enter_context(closing(FaultProxy(model.store.endpoint)))
            stream = stack.enter_context(toxiproxy.open_stream(self.toxiproxy, proxy.url))
            (directory / "route").mkdir(parents=True)
            route = NetworkRoute(model, proxy, stream, directory / "route", case.variant)
            (directory / "home").mkdir()
            cli = CliRunner(directory / "home")
            case.fault.inject(route)
            outcome = self._pull_through_fault(case, route, cli, directory)
            route.remove_faults()
            model.restore_objects()
            if self.thorough or outcome.ending != RIGHT:
                outcome.flaws += self._pull_again(route, cli, directory)
            outcome.flaws += _find_staged_leftovers(directory)
            outcome.refetched_bytes = max(0, outcome.refetched_bytes + _count_body_bytes(route) - model.size)
        return outcome

    def _pull_through_fault(
        self, case: FaultCase, route: NetworkRoute, cli: CliRunner, directory: Path
    ) -> FaultOutcome:
        try:
            run, peak = self._run_pull(cli, route, directory, case.fault.env)
        except TimeoutError as error:
            return FaultOutcome(case, "never", [str(error)])
        ended, flaws = _judge_run(run, route.model.editions, directory)
        if ended not in case.fault.endings:
            flaws.append(f"should have ended {' or '.join(case.fault.endings)}")
        limit = self._peaks[case.store, case.shape] + PEAK_ALLOWANCE_BYTES
        if peak > limit:
            flaws.append(f"needed {peak} bytes of memory, undisturbed {limit - PEAK_ALLOWANCE_BYTES}")
        return FaultOutcome(case, ended, flaws, _count_body_bytes(route), peak, run.all_output)

    def _pull_again(self, route: NetworkRoute, cli: CliRunner, directory: Path) -> list[str]:
        """Return the flaws of a pull without faults."""
        run, _ = self._run_pull(cli, route, directory, {})
        ended, flaws = _judge_run(run, route.model.editions[-1:], directory)
        if ended != RIGHT:
            flaws.append(f"the next pull ended {ended}:\n{run.all_output}")
        return flaws

    def _run_pull(
        self, cli: CliRunner, route: NetworkRoute, directory: Path, env: Mapping[str, str]
    ) -> tuple[Run, int]:
        endpoint_env = route.model.store.env_at(route.stream.url)
        args = ("pull", route.model.uri, f"{directory / 'out'}/", "--output", "json")
        return self.warm(cli, *args, env={**PULL_ENV, **endpoint_env, **env, **route.env}, timeout=RUN_SECONDS)


def _count_body_bytes(route: NetworkRoute) -> int:
    return sum(request.sent for request in route.proxy.matching_requests(**route.model.match_downloads("")))


def _judge_run(run: Run, editions: list[Files], directory: Path) -> tuple[str, list[str]]:
    """Return the ending of a run and the flaws."""
    if run.code == 0:
        return RIGHT, _check_published_model(run, editions, directory / "out")
    error = run.error
    flaws = [] if error["code"] == run.code else [f"the exit code is {run.code}"]
    if json.loads(run.termination) != {name: value for name, value in error.items() if name != "time"}:
        flaws.append(f"the termination message differs: {run.termination}")
    published = [path for path in directory.rglob("*") if path.is_file() and _is_published(path.relative_to(directory))]
    if published:
        flaws.append(f"published all the same: {published[:3]}")
    return f"{run.code} {error['reason']}", flaws


def _is_published(path: Path) -> bool:
    return path.parts[0] not in ("home", "route") and STAGING_NAME not in path.parts


def _check_published_model(run: Run, editions: list[Files], out: Path) -> list[str]:
    found = read_files(out) if out.exists() else {}
    if found not in editions:
        return [_describe_difference(found, editions[-1])]
    (receipt,) = out.glob(f"*{RECEIPT_NAME}")
    receipt = json.loads(receipt.read_text())
    sums = {file["path"]: (file["size"], file["sha256"]) for file in receipt["files"]}
    flaws = [] if sums == {n: (len(data), sha256_hex(data)) for n, data in found.items()} else ["the receipt lies"]
    return flaws if run.receipt == receipt else [*flaws, "the receipt printed is another than that published"]


def _describe_difference(found: Files, expected: Files) -> str:
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    return f"a wrong model: missing {missing[:3]}, surplus {surplus[:3]}, other bytes {other[:3]}"


def _find_staged_leftovers(directory: Path) -> list[str]:
    """Return a flaw if staging areas hold files; an empty lock may stay."""
    staged_files = [path for path in directory.rglob("*") if STAGING_NAME in path.parts and path.is_file()]
    leftovers = [path for path in staged_files if path.suffix != ".lock" or path.stat().st_size]
    return [f"left in the staging area: {leftovers[:3]}"] if leftovers else []

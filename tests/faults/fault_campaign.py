"""Runs a pull through a fault, and a second one without; judges what came of both."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testkit import toxiproxy, tree
from testkit.cli import Cli, Run
from testkit.faultproxy import FaultProxy
from testkit.stores import GCS, S3
from testkit.warm import Warm
from tests.faults.campaign_report import Row
from tests.faults.fault import RIGHT, Fault
from tests.faults.network_route import Way
from tests.faults.stored_models import Files, Model, stock

SECONDS = 150  # for one run; the slowest takes some 15 on an idle machine
MEMORY = 16 * 1024**2  # bytes of an archive that may wait to be unpacked, so that peaks can be compared
MORE = 24 * 1024**2  # bytes by which a peak may exceed that of undisturbed runs: the above, and threads' arenas
ENV = {"MODELFETCH_MEMORY": str(MEMORY), "MODELFETCH_STALL_TIMEOUT": "5s"}


@dataclass(frozen=True)
class Case:
    """A fault that befalls a model."""

    fault: Fault
    store: str
    shape: str
    nth: int = 0

    def __str__(self) -> str:
        return f"{self.fault.name} ({self.shape} on {self.store}, no. {self.nth + 1})"


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        ended: "right", or exit code and reason.
        flaws: what must not be.
        twice: bytes sent in excess of the model's, by both pulls.
        peak: largest resident set of the disturbed pull.
    """

    case: Case
    ended: str
    flaws: list[str] = field(default_factory=list)
    twice: int = 0
    peak: int = 0
    said: str = ""

    @property
    def row(self) -> Row:
        """It as a line of the table."""
        wrong = bool(self.flaws)
        right = not wrong and self.ended == RIGHT
        clean = not wrong and not right
        return Row(self.case.fault.name, 1, int(right), int(clean), int(wrong), self.twice, self.peak)

    def __str__(self) -> str:
        return f"{self.case} ended {self.ended}: {'; '.join(self.flaws)}\n{self.said}"


@dataclass
class Campaign:
    """The servers, the models that are not changed, and what an undisturbed pull of each needs.

    Attributes:
        toxiproxy: URL of its API.
        warm: runs the pulls.
        work: a directory for everything.
        thorough: pull once more after each pull, not only after those that failed.
    """

    servers: Mapping[str, S3 | GCS]
    shelf: Mapping[tuple[str, str], Model]
    toxiproxy: str
    warm: Warm
    work: Path
    thorough: bool
    _peaks: dict[tuple[str, str], int] = field(default_factory=dict)

    def measure(self) -> None:
        """Pull every model undisturbed."""
        for (store, shape), model in self.shelf.items():
            case = Case(Fault("none", lambda _: None), store, shape)
            self._peaks[store, shape] = sys.maxsize
            outcomes = [self._tried(case, model, self.work / f"undisturbed-{store}-{shape}-{n}") for n in range(2)]
            assert not any(outcome.flaws for outcome in outcomes), outcomes
            self._peaks[store, shape] = max(outcome.peak for outcome in outcomes)

    def undisturbed(self) -> Iterator[Row]:
        """What pulls without a fault needed, as lines of the table."""
        for (store, shape), peak in self._peaks.items():
            yield Row(f"none: {shape} on {store}", 2, 2, 0, 0, 0, peak)

    def run(self, case: Case) -> Outcome:
        """Try one case; what goes wrong in the trying itself is raised."""
        at = self.work / f"{case.fault.name}-{case.store}-{case.shape}-{case.nth}".replace("/", "-").replace(" ", "-")
        with self._model(case) as model:
            outcome = self._tried(case, model, at)
        if not outcome.flaws:
            shutil.rmtree(at)
        return outcome

    @contextmanager
    def _model(self, case: Case) -> Iterator[Model]:
        if not case.fault.alters:
            yield self.shelf[case.store, case.shape]
            return
        with self.servers[case.store].new_bucket() as bucket:
            yield stock(bucket, case.shape, packed=case.fault.packed)

    def _tried(self, case: Case, model: Model, at: Path) -> Outcome:
        with ExitStack() as stack:
            proxy = stack.enter_context(closing(FaultProxy(model.store.endpoint)))
            stream = stack.enter_context(toxiproxy.stream(self.toxiproxy, proxy.url))
            (at / "way").mkdir(parents=True)
            way = Way(model, proxy, stream, at / "way", case.nth)
            (at / "home").mkdir()
            cli = Cli(at / "home")
            case.fault.lay(way)
            outcome = self._disturbed(case, way, cli, at)
            way.clear()
            model.restore()
            if self.thorough or outcome.ended != RIGHT:
                outcome.flaws += self._once_more(way, cli, at)
            outcome.flaws += _left_over(at)
            outcome.twice = max(0, outcome.twice + _sent(way) - model.size)
        return outcome

    def _disturbed(self, case: Case, way: Way, cli: Cli, at: Path) -> Outcome:
        try:
            run, peak = self._pull(cli, way, at, case.fault.env)
        except TimeoutError as error:
            return Outcome(case, "never", [str(error)])
        ended, flaws = _judged(run, way.model.editions, at)
        if ended not in case.fault.ends:
            flaws.append(f"should have ended {' or '.join(case.fault.ends)}")
        most = self._peaks[case.store, case.shape] + MORE
        if peak > most:
            flaws.append(f"needed {peak} bytes of memory, undisturbed {most - MORE}")
        return Outcome(case, ended, flaws, _sent(way), peak, run.said)

    def _once_more(self, way: Way, cli: Cli, at: Path) -> list[str]:
        """The flaws of a pull without faults."""
        run, _ = self._pull(cli, way, at, {})
        ended, flaws = _judged(run, way.model.editions[-1:], at)
        if ended != RIGHT:
            flaws.append(f"the next pull ended {ended}:\n{run.said}")
        return flaws

    def _pull(self, cli: Cli, way: Way, at: Path, env: Mapping[str, str]) -> tuple[Run, int]:
        where = way.model.store.env_at(way.stream.url)
        args = ("pull", way.model.uri, f"{at / 'out'}/", "--output", "json")
        return self.warm(cli, *args, env={**ENV, **where, **env, **way.env}, timeout=SECONDS)


def _sent(way: Way) -> int:
    return sum(request.sent for request in way.proxy.came(**way.model.downloads("")))


def _judged(run: Run, editions: list[Files], at: Path) -> tuple[str, list[str]]:
    """How it ended, and what is wrong with that."""
    if run.code == 0:
        return RIGHT, _flaws_of_a_model(run, editions, at / "out")
    error = run.error
    flaws = [] if error["code"] == run.code else [f"the exit code is {run.code}"]
    if json.loads(run.termination) != {name: value for name, value in error.items() if name != "time"}:
        flaws.append(f"the termination message differs: {run.termination}")
    published = [path for path in at.rglob("*") if path.is_file() and _is_published(path.relative_to(at))]
    if published:
        flaws.append(f"published all the same: {published[:3]}")
    return f"{run.code} {error['reason']}", flaws


def _is_published(path: Path) -> bool:
    return path.parts[0] not in ("home", "way") and tree.STAGING not in path.parts


def _flaws_of_a_model(run: Run, editions: list[Files], out: Path) -> list[str]:
    found = tree.read(out) if out.exists() else {}
    if found not in editions:
        return [_difference(found, editions[-1])]
    (receipt,) = out.glob(f"*{tree.RECEIPT}")
    told = json.loads(receipt.read_text())
    sums = {file["path"]: (file["size"], file["sha256"]) for file in told["files"]}
    flaws = [] if sums == {n: (len(data), tree.sha256(data)) for n, data in found.items()} else ["the receipt lies"]
    return flaws if run.receipt == told else [*flaws, "the receipt printed is another than that published"]


def _difference(found: Files, wanted: Files) -> str:
    missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = [name for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    return f"a wrong model: missing {missing[:3]}, surplus {surplus[:3]}, other bytes {other[:3]}"


def _left_over(at: Path) -> list[str]:
    """What is in a staging area; an empty lock may stay."""
    staged = [path for path in at.rglob("*") if tree.STAGING in path.parts and path.is_file()]
    left = [path for path in staged if path.suffix != ".lock" or path.stat().st_size]
    return [f"left in the staging area: {left[:3]}"] if left else []

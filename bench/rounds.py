"""Runs a case: every contender in turn, and again, each from nothing and in a directory of its own."""

import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import cases, cgroup, measure
from bench.cases import Case
from bench.data import Object
from bench.measure import Run, RunError
from bench.server import Server
from testkit import servers, toxiproxy

ROUND_TRIP, RATE = 100, 20_000  # ms; kB/s of each connection
_SLACK = 2 * 1024**3  # bytes of the disk that are left alone


class SkippedError(Exception):
    """A case cannot be run here; with the reason."""


@dataclass(frozen=True)
class Bench:
    """All that the cases share.

    Attributes:
        server: where the objects are.
        objects: what is there.
        words: of the commands.
        dest: a directory on the disk that is written to; each case makes one in it, and leaves it full of empty files.
        timeout: seconds for one run.
        say: tells how it goes.
    """

    server: Server
    objects: Sequence[Object]
    words: Mapping[str, str]
    dest: Path
    timeout: float
    say: Callable[[str], None]


def run(bench: Bench, case: Case, rounds: int) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Each contender's runs, and why others have none.

    Raises:
        SkippedError: the case needs what is not here.
    """
    expected = [each for each in bench.objects if each.key.startswith(case.expects)]
    place = bench.dest / case.name
    place.mkdir(parents=True)
    _require_room(case, expected, place)
    found: dict[str, list[Run]] = {name: [] for name in case.commands}
    failed: dict[str, str] = {}
    with _endpoint(bench, case, place) as endpoint, _confined(case) as group:
        env = {**_clean(os.environ), **bench.server.environment(endpoint)}
        turn = _Turn(bench, case, expected, place, env, group)
        for number in range(1 if case.once else rounds * case.times):
            for name in [name for name in case.commands if name not in failed]:
                try:
                    found[name].append(turn.take(name, number))
                except RunError as error:
                    bench.say(f"{case.name}: {name} {error}")
                    failed[name], found[name] = str(error), []
    measure.empty(place)
    return found, failed


def _require_room(case: Case, expected: Sequence[Object], place: Path) -> None:
    """See that the disk takes a run's files; those of all contenders, where they stay for the next round."""
    kept = len(case.commands) if case.again else 1
    if shutil.disk_usage(place).free < sum(each.size for each in expected) * 1.1 * kept + _SLACK:
        raise SkippedError(f"no room for it at {place}")


@dataclass(frozen=True)
class _Turn:
    bench: Bench
    case: Case
    expected: Sequence[Object]
    place: Path
    env: Mapping[str, str]
    group: str

    def take(self, name: str, number: int) -> Run:
        """One run of one contender."""
        program = self.case.needs.get(name, "sh")
        if not shutil.which(program):
            raise RunError(f"needs {program}, which is not here")
        folder = self.place / f"{name.replace(' ', '-').replace(',', '')}-{0 if self.case.again else number}"
        try:
            found = self._taken(self._command(name, folder), folder, first=number == 0)
        finally:
            if not self.case.again:
                measure.empty(folder)
        self.bench.say(
            f"{self.case.name}: {name}: {found.wall:.2f} s, CPU {found.cpu:.2f} s,"
            f" {found.rss / 1024**2:.0f} MiB, {found.requests} requests; others {found.others:.0%}"
        )
        return found

    def _taken(self, command: str, folder: Path, *, first: bool) -> Run:
        log = self.place / "last.log"
        measure.settle(folder)
        if self.case.again and first:
            measure.execute(command, self.env, log, self.bench.timeout)
            measure.settle(folder)
        with measure.memory(self._written(again=self.case.again)):
            begun = measure.calibrate()
            found = self._measured(command, log, folder, begun)
        measure.check(folder, self.expected, bytes_too=first)
        return found

    def _written(self, *, again: bool) -> int:
        """The bytes of a run, as far as it is compared with others."""
        return 0 if again or self.case.once else sum(each.size for each in self.expected)

    def _measured(self, command: str, log: Path, folder: Path, calibration: float) -> Run:
        server = self.bench.server
        seen, served, all_busy, clock = server.seen(), measure.cpu_of(server.pid), measure.busy(), time.perf_counter()
        cost = measure.execute(command, self.env, log, self.bench.timeout, self.group)
        spent = measure.busy() - all_busy - (measure.cpu_of(server.pid) - served) - cost["user"] - cost["system"]
        others = max(0.0, spent) / (time.perf_counter() - clock) / (os.cpu_count() or 1)
        read = measure.read_back(folder, log)
        requests = len(server.requests(seen))  # nginx logs a request once its reply is gone
        return Run(
            wall=cost["wall"],
            user=cost["user"],
            system=cost["system"],
            rss=int(cost["rss"]),
            readable=cost["wall"] + read,
            requests=requests,
            others=others,
            calibration=calibration,
        )

    def _command(self, name: str, folder: Path) -> str:
        sums = self.place / "sums"
        lines = (f"{each.sha256}  {folder / each.key}\n" for each in self.expected)
        sums.write_text("".join(lines))
        words = {**self.bench.words, "dest": shlex.quote(str(folder)), "sums": shlex.quote(str(sums))}
        return self.case.commands[name].format_map(words)


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what could lead a tool elsewhere, or change how it works."""
    ours = ("AWS_", "S3_", "GCS_", "GOOGLE_", "MODELFETCH_", "RCLONE_", "STORAGE_", "CLOUDSDK_", "PYTHON")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {k: v for k, v in environ.items() if not k.startswith(ours) and k.upper() not in proxies}


@contextmanager
def _endpoint(bench: Bench, case: Case, place: Path) -> Iterator[str | None]:
    """The server itself, or the far end of a slow line."""
    if not case.far:
        yield None
        return
    if not servers.can_build():
        raise SkippedError("toxiproxy is built with Go, which is not here")
    folder = place / "toxiproxy"
    folder.mkdir()
    with servers.run_toxiproxy(folder) as api, toxiproxy.open_stream(api, bench.server.endpoint) as line:
        line.add_toxic("latency", latency=ROUND_TRIP)
        line.add_toxic("bandwidth", rate=RATE)
        yield line.url.replace("http:", "https:")


@contextmanager
def _confined(case: Case) -> Iterator[str]:
    if not case.confined:
        yield "-"
        return
    with cgroup.limited(cases.CGROUP) as place:
        if place is None:
            raise SkippedError("no memory cgroup can be made here (root can)")
        yield str(place)

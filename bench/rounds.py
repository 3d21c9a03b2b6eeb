"""Runs a case: every contender in turn, and again, each from nothing."""

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
from rigs import servers, toxiproxy

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
        dest: a directory on the disk that is written to, and removed.
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
    shutil.rmtree(bench.dest, ignore_errors=True)
    bench.dest.mkdir(parents=True)
    if shutil.disk_usage(bench.dest).free < sum(each.size for each in expected) * 1.1 + _SLACK:
        raise SkippedError(f"no room for it at {bench.dest}")
    found: dict[str, list[Run]] = {name: [] for name in case.commands}
    failed: dict[str, str] = {}
    with _endpoint(bench, case) as endpoint, _confined(case) as group:
        env = {**_clean(os.environ), **bench.server.environment(endpoint)}
        turn = _Turn(bench, case, expected, env, group)
        for number in range(1 if case.once else rounds * case.times):
            for name in [name for name in case.commands if name not in failed]:
                try:
                    found[name].append(turn.take(name, first=number == 0))
                except RunError as error:
                    bench.say(f"{case.name}: {name} {error}")
                    failed[name], found[name] = str(error), []
    shutil.rmtree(bench.dest, ignore_errors=True)
    return found, failed


@dataclass(frozen=True)
class _Turn:
    bench: Bench
    case: Case
    expected: Sequence[Object]
    env: Mapping[str, str]
    group: str

    def take(self, name: str, *, first: bool) -> Run:
        """One run of one contender."""
        program = self.case.needs.get(name, "sh")
        if not shutil.which(program):
            raise RunError(f"needs {program}, which is not here")
        folder = self.bench.dest / name.replace(" ", "-").replace(",", "")
        command = self._command(name, folder)
        log = self.bench.dest / "last.log"
        if not self.case.again or first:
            measure.settle(folder)
        if self.case.again and first:
            measure.execute(command, self.env, log, self.bench.timeout)
        begun = measure.calibrate()
        found = self._measured(command, log, folder, begun)
        measure.check(folder, self.expected, bytes_too=first)
        if not self.case.again:
            shutil.rmtree(folder)
        self.bench.say(
            f"{self.case.name}: {name}: {found.wall:.2f} s, CPU {found.cpu:.2f} s,"
            f" {found.rss / 1024**2:.0f} MiB, {found.requests} requests; others {found.others:.0%}"
        )
        return found

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
        sums = self.bench.dest / "sums"
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
def _endpoint(bench: Bench, case: Case) -> Iterator[str | None]:
    """The server itself, or the far end of a slow line."""
    if not case.far:
        yield None
        return
    if not servers.can_build():
        raise SkippedError("toxiproxy is built with Go, which is not here")
    folder = bench.dest / "toxiproxy"
    folder.mkdir()
    with servers.toxiproxy(folder) as api, toxiproxy.stream(api, bench.server.endpoint) as line:
        line.add("latency", latency=ROUND_TRIP)
        line.add("bandwidth", rate=RATE)
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

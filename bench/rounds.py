"""Rounds of a case: the contenders run in turn, each from nothing in a separate directory."""

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
from bench.data import StoredObject
from bench.measure import Run, RunError
from bench.server import Server
from testkit import servers, toxiproxy

ROUND_TRIP, RATE = 100, 20_000  # ms; kB/s of each connection
_SLACK = 2 * 1024**3  # bytes of the disk left free


class SkippedError(Exception):
    """A case cannot run here, for the reason given."""


@dataclass(frozen=True)
class BenchContext:
    """Values shared by the cases.

    Attributes:
        server: the server of the objects.
        objects: the objects of the bucket.
        words: programs by word of the commands.
        dest: a directory of the disk under test; each case adds a directory, left full of empty files.
        timeout: seconds of a run.
        log: prints a progress line.
    """

    server: Server
    objects: Sequence[StoredObject]
    words: Mapping[str, str]
    dest: Path
    timeout: float
    log: Callable[[str], None]


def run_rounds(bench: BenchContext, case: Case, rounds: int) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Return the runs of each contender, and the reasons of failures.

    Raises:
        SkippedError: a requirement of the case is missing.
    """
    expected = [each for each in bench.objects if each.key.startswith(case.expects)]
    place = bench.dest / case.name
    place.mkdir(parents=True)
    _require_space(case, expected, place)
    found: dict[str, list[Run]] = {name: [] for name in case.commands}
    failed: dict[str, str] = {}
    with _open_endpoint(bench, case, place) as endpoint, _limit_memory(case) as group:
        env = {**_clean_environment(os.environ), **bench.server.environment(endpoint)}
        turn = _CaseRunner(bench, case, expected, place, env, group)
        for number in range(1 if case.single_round else rounds * case.round_factor):
            for name in [name for name in case.commands if name not in failed]:
                try:
                    found[name].append(turn.run_once(name, number))
                except RunError as error:
                    bench.log(f"{case.name}: {name} {error}")
                    failed[name], found[name] = str(error), []
    measure.truncate_files(place)
    return found, failed


def _require_space(case: Case, expected: Sequence[StoredObject], place: Path) -> None:
    """Check the free space for a run's files; for all contenders' if the files stay for the next round."""
    kept = len(case.commands) if case.second_run else 1
    if shutil.disk_usage(place).free < sum(each.size for each in expected) * 1.1 * kept + _SLACK:
        raise SkippedError(f"no room for it at {place}")


@dataclass(frozen=True)
class _CaseRunner:
    bench: BenchContext
    case: Case
    expected: Sequence[StoredObject]
    place: Path
    env: Mapping[str, str]
    group: str

    def run_once(self, name: str, number: int) -> Run:
        """Run a contender once and measure."""
        program = self.case.needs.get(name, "sh")
        if not shutil.which(program):
            raise RunError(f"needs {program}, which is not here")
        folder = self.place / f"{name.replace(' ', '-').replace(',', '')}-{0 if self.case.second_run else number}"
        try:
            found = self._run_in_folder(self._make_command(name, folder), folder, first=number == 0)
        finally:
            if not self.case.second_run:
                measure.truncate_files(folder)
        self.bench.log(
            f"{self.case.name}: {name}: {found.wall:.2f} s, CPU {found.cpu:.2f} s,"
            f" {found.rss / 1024**2:.0f} MiB, {found.requests} requests; others {found.others:.0%}"
        )
        return found

    def _run_in_folder(self, command: str, folder: Path, *, first: bool) -> Run:
        log = self.place / "last.log"
        measure.sync_disk(folder)
        if self.case.second_run and first:
            measure.run_command(command, self.env, log, self.bench.timeout)
            measure.sync_disk(folder)
        with measure.hold_free_memory(self._written_bytes(again=self.case.second_run)):
            begun = measure.time_fixed_work()
            found = self._measure_command(command, log, folder, begun)
        measure.check_files(folder, self.expected, hash_files=first)
        return found

    def _written_bytes(self, *, again: bool) -> int:
        """Return the bytes written by a run, or 0 if the run is not compared with others."""
        return 0 if again or self.case.single_round else sum(each.size for each in self.expected)

    def _measure_command(self, command: str, log: Path, folder: Path, calibration: float) -> Run:
        server = self.bench.server
        seen, served, all_busy, clock = (
            server.log_position(),
            measure.process_cpu_seconds(server.pid),
            measure.machine_cpu_seconds(),
            time.perf_counter(),
        )
        cost = measure.run_command(command, self.env, log, self.bench.timeout, self.group)
        spent = (
            measure.machine_cpu_seconds()
            - all_busy
            - (measure.process_cpu_seconds(server.pid) - served)
            - cost["user"]
            - cost["system"]
        )
        others = max(0.0, spent) / (time.perf_counter() - clock) / (os.cpu_count() or 1)
        read = measure.read_back(folder, log)
        requests = len(server.requests_since(seen))  # nginx logs a request after the response
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

    def _make_command(self, name: str, folder: Path) -> str:
        sums = self.place / "sums"
        lines = (f"{each.sha256}  {folder / each.key}\n" for each in self.expected)
        sums.write_text("".join(lines))
        words = {**self.bench.words, "dest": shlex.quote(str(folder)), "sums": shlex.quote(str(sums))}
        return self.case.commands[name].format_map(words)


def _clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that redirect or configure a tool."""
    ours = ("AWS_", "S3_", "GCS_", "GOOGLE_", "MODELFETCH_", "RCLONE_", "STORAGE_", "CLOUDSDK_", "PYTHON")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {k: v for k, v in environ.items() if not k.startswith(ours) and k.upper() not in proxies}


@contextmanager
def _open_endpoint(bench: BenchContext, case: Case, place: Path) -> Iterator[str | None]:
    """Yield None for the server itself, or the URL of a high-latency proxy."""
    if not case.high_latency:
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
def _limit_memory(case: Case) -> Iterator[str]:
    if not case.memory_limited:
        yield "-"
        return
    with cgroup.limit_memory(cases.CGROUP) as place:
        if place is None:
            raise SkippedError("no memory cgroup can be made here (root can)")
        yield str(place)

"""Pulls that are struck down and run again: when the signal comes, and what came of it."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelfetch.transfer.part_file import BLOCK_SIZE
from testkit import strace, tree
from testkit.cli import Cli, Run, Running
from testkit.faultproxy import FaultProxy
from testkit.strace import Call
from tests.faults import destination_check
from tests.faults.scenarios import Prepared, Scene

SECONDS = 150  # for one run, traced, on a busy machine
FEW = 200_000  # bytes of listings, manifests and errors


@dataclass(frozen=True)
class Strike:
    """When a signal comes: at a system call, after some seconds, or once some bytes were sent.

    Attributes:
        signum: the signal.
        call: a system call's name and its number among those of its thread. SIGKILL comes before it, others after it.
        seconds: from the start of the process; of a signal that can be caught, from when it is.
        sent: bytes of bodies.
        times: how many signals, one right after the other; at a system call all that follow get one, too, if not 1.
    """

    signum: signal.Signals = signal.SIGKILL
    call: tuple[str, int] | None = None
    seconds: float = 0.0
    sent: int | None = None
    times: int = 1

    @property
    def injected(self) -> str:
        """It as strace(1) wants it."""
        assert self.call
        name, nth = self.call
        return f"{name}:signal={self.signum.name}:when={nth}{'' if self.times == 1 else '+'}"


@dataclass
class Outcome:
    """What came of one strike.

    Attributes:
        phase: what the pull was at.
        run: the run that was struck.
        saw: what a reader would have seen then: old, new or none.
        flaws: what must not be.
        noted: bytes that the journal told of.
        saved: bytes that the next run did not fetch again.
        size: bytes of the model as stored.
        twice: bytes sent in excess of that, over all runs.
        seconds: from a signal that can be caught to the end of the process; with strace's own, where that was at it.
    """

    scene: str
    strike: Strike
    phase: str
    run: Run
    saw: str
    flaws: list[str]
    seconds: list[float] = field(default_factory=list)
    noted: int = 0
    saved: int = 0
    size: int = 0
    twice: int = 0

    def __str__(self) -> str:
        return f"{self.scene}, {self.strike} ({self.phase}, saw {self.saw}): {'; '.join(self.flaws)}"


@dataclass(frozen=True)
class Bench:
    """Where strikes are tried.

    Attributes:
        prepared: the scene.
        at: a directory for all runs.
        env: variables that lead to the source, or to the proxy.
        proxy: in front of the source, and of nobody else, if bytes are counted.
        flags: more arguments of `pull`.
        between: called before the last run; gives what that one is judged by.
    """

    prepared: Prepared
    at: Path
    env: Mapping[str, str] = field(default_factory=dict)
    proxy: FaultProxy | None = None
    flags: Sequence[str] = ()
    between: Callable[[], Prepared] | None = None

    @property
    def alone(self) -> Path:
        """The volume of the pull that is left alone."""
        return self.at / "undisturbed" / "volume"

    def cli(self, home: Path) -> Cli:
        """A command line of its own: a process that is killed has no coverage to tell of, and starts faster without."""
        home.mkdir(parents=True)
        cli = Cli(home)
        cli.env = {name: value for name, value in cli.env.items() if not name.startswith("COV")}
        cli.env |= {**self.env, "PYTHONHASHSEED": "0"}
        if self.prepared.scene.locked and os.geteuid() == 0:  # root may write anywhere, unless it lets go of that
            cli.prefix = ["setpriv", "--bounding-set=-dac_override"]
        return cli


def undisturbed(bench: Bench) -> list[Call]:
    """The calls of a pull that is left alone, as far as they may be about a disk."""
    volume = bench.alone
    cli, log = bench.cli(volume.parent), volume.parent / "strace"
    cli.prefix += strace.command(log)
    dest = bench.prepared.fresh(volume)
    run = cli("pull", bench.prepared.uri, dest, *bench.flags, timeout=SECONDS)
    assert run.code == 0, run.stderr
    assert destination_check.at_the_end(bench.prepared, volume) == []
    return strace.calls(log)


def at_the_destination(bench: Bench, calls: Sequence[Call]) -> list[Call]:
    """Those of its calls that change what is at the destination, flushes included."""
    return [call for call in calls if call.changes and call.below(bench.alone)]


def targets(bench: Bench) -> list[tuple[str, int]]:
    """Such calls, as a `Strike` can name them.

    strace counts for each thread: a number that another thread reaches sooner would be that one's call, at the start-up
    maybe.
    """
    first: dict[tuple[str, int], Call] = {}
    for call in undisturbed(bench):
        first.setdefault((call.name, call.nth), call)
    return sorted((call.name, call.nth) for call in at_the_destination(bench, list(first.values())))


def strike(bench: Bench, name: str, *strikes: Strike) -> list[Outcome]:
    """Strike down pulls to one destination, one after the other, then let one run to its end."""
    home = bench.at / name
    cli, volume = bench.cli(home), home / "volume"
    dest = bench.prepared.fresh(volume)
    outcomes = []
    for number, one in enumerate(strikes):
        log = home / f"strace-{number}"
        run, seconds = _struck(bench, cli, dest, one, log)
        saw, flaws = destination_check.seen(bench.prepared, volume)
        flaws += _of_the_end(run, one, saw, bench.prepared.scene)
        phase = _phase(bench.prepared, volume, saw, _cut(log))
        outcomes.append(Outcome(bench.prepared.scene.name, one, phase, run, saw, flaws, seconds))
    _finish(bench, cli, volume, outcomes[-1])
    if not any(outcome.flaws for outcome in outcomes):
        volume.chmod(0o755)
        shutil.rmtree(home)
    return outcomes


def _struck(bench: Bench, cli: Cli, dest: Path, one: Strike, log: Path) -> tuple[Run, list[float]]:
    args = ("pull", bench.prepared.uri, dest, *bench.flags)
    if one.call:
        plain, cli.prefix = cli.prefix, [*cli.prefix, *strace.command(log, one.injected)]
        try:
            run, seconds = cli(*args, timeout=SECONDS), strace.to_the_end(log, one.signum.name)
        finally:
            cli.prefix = plain
    else:
        running = cli.start(*args)
        _wait(bench, running, one)
        there, begun = running.process.poll() is None, time.monotonic()
        for _ in range(one.times):
            running.process.send_signal(one.signum)
        run = running.finish(SECONDS)
        seconds = time.monotonic() - begun if there else None
    return run, [] if seconds is None or one.signum == signal.SIGKILL else [seconds]


def _wait(bench: Bench, running: Running, one: Strike) -> None:
    while one.signum != signal.SIGKILL and running.process.poll() is None and not minded(running.process.pid):
        time.sleep(0.001)
    time.sleep(one.seconds)
    while one.sent and bench.proxy and bench.proxy.sent() < one.sent and running.process.poll() is None:
        time.sleep(0.005)


def minded(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM: Python's own start takes a moment. See proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _of_the_end(run: Run, one: Strike, saw: str, scene: Scene) -> list[str]:
    """What must not be, of how a process ended that was struck."""
    if run.code == 0:
        return [] if saw == "new" else [f"it ended well, but the destination holds {saw}"]
    if one.signum == signal.SIGKILL:
        return [] if run.code in (-signal.SIGKILL, 128 + signal.SIGKILL) else [f"it ended with {run.code}"]
    flaws = []
    if run.code != 128 + one.signum:
        flaws.append(f"it ended with {run.code}")
    if any(word in run.stderr for word in ("Traceback", "ignored in")):
        flaws.append(f"it showed its insides: {run.stderr}")
    elif (run.error["code"], run.error["reason"]) != (run.code, "interrupted"):
        flaws.append(f"its last word was {run.error}")
    if saw == "none" and scene.old:
        flaws.append("it left half of a model")
    return flaws


def _finish(bench: Bench, cli: Cli, volume: Path, last: Outcome) -> None:
    """Run it once more, and judge."""
    before = _sent(bench.proxy)
    last.noted = journaled(volume, bench.prepared.scene)
    prepared = bench.between() if bench.between else bench.prepared
    last.size = prepared.scene.size

    run = cli("pull", prepared.uri, volume / "m", "--output", "json", *bench.flags, timeout=SECONDS)

    if run.code != 0:
        last.flaws.append(f"the next run ended with {run.code}: {run.stderr}")
        return
    last.flaws += destination_check.at_the_end(prepared, volume)
    done = last.saw == "new" and prepared is bench.prepared
    last.saved = last.size if done else int(run.receipt["resumed_bytes"])
    expected = range(last.noted, last.size + 1) if prepared is bench.prepared else range(1)
    if last.saved not in expected:
        last.flaws.append(f"{last.noted} bytes were noted, and {last.saved} of them used")
    if bench.proxy:
        after = _sent(bench.proxy) - before
        last.twice = max(0, before + after - last.size)
        if after > last.size - last.saved + FEW:
            last.flaws.append(f"{after} bytes were fetched where {last.size - last.saved} were missing")


def _sent(proxy: FaultProxy | None) -> int:
    """Bytes that a proxy has sent, now that nobody listens any more."""
    if proxy is None:
        return 0
    proxy.wait_for(lambda: all(request.done for request in list(proxy.requests)))
    return proxy.sent()


def journaled(volume: Path, scene: Scene) -> int:
    """Bytes of a model that the journals in the staging areas of a volume tell of; of an archive, none is of use."""
    noted = set()
    for journal in volume.rglob(f"{tree.STAGING}/*/parts.jsonl") if scene.kind != "archive" else ():
        for line in journal.read_text().splitlines():
            entry = _parsed(line)
            if isinstance(entry, list) and len(entry) in (3, 4):
                noted.add((entry[0], entry[1]))
    files = scene.new.files
    return sum(min(BLOCK_SIZE, len(files[path]) - block * BLOCK_SIZE) for path, block in noted if path in files)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:  # cut short by the kill
        return None


def _cut(log: Path) -> Call | None:
    """The call at which a traced run was struck down."""
    return next((call for call in strace.calls(log) if call.cut), None) if log.exists() else None


def _phase(prepared: Prepared, volume: Path, saw: str, cut: Call | None) -> str:
    """What a pull was at when it was struck down."""
    packed = prepared.scene.kind == "archive"
    if cut and cut.below(volume):
        return _phase_of(cut, cut.below(volume)[-1], saw, packed=packed)
    work = [path for area in volume.rglob(tree.STAGING) for path in area.iterdir() if path.is_dir()]
    if saw == "new":
        return "clean-up" if work else "done"
    if not work:
        return "start-up, listing"
    if any((path / "ours.json").exists() for path in work):
        return "publishing"
    return "unpacking" if packed else "transfer"


def _phase_of(cut: Call, path: str, saw: str, *, packed: bool) -> str:
    parts = Path(path).parts
    if saw == "new":
        return "clean-up"
    if cut.name.startswith("rename") or path.endswith(tree.RECEIPT) or tree.STAGING not in parts:
        return "publishing"
    if parts[-1] in ("ours.new", "ours.json", "receipt.json"):
        return "publishing"
    if cut.name in ("fsync", "syncfs", "utimensat", "chmod", "fchmod", "fchmodat"):
        return "flushing"
    if "tree" in parts or "parts.jsonl" in parts:
        return "unpacking" if packed else "transfer"
    return "staging"

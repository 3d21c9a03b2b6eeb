"""Trial of killed pulls: when the signal arrives, and what readers and the next pull find."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelfetch.transfer.part_file import BLOCK_SIZE
from testkit import strace
from testkit.cli_runner import CliRunner, Run, RunningCommand
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME
from testkit.strace import SystemCall
from tests.faults import destination_check
from tests.faults.scenarios import PreparedScenario, Scenario

RUN_SECONDS = 150  # of a traced run on a busy machine
OVERHEAD_BYTES = 200_000  # bytes of listings, manifests and errors


@dataclass(frozen=True)
class KillPoint:
    """Moment of a signal: at a system call, after some seconds, or after a number of bytes sent.

    Attributes:
        signum: the signal.
        call: name of a system call and its number within its thread. SIGKILL arrives before the call, others after.
        seconds: from the start of the process; for a catchable signal, from the installation of the handler.
        sent_bytes: bytes of bodies sent.
        count: number of signals in a row; at a system call all later calls get a signal, too, unless 1.
    """

    signum: signal.Signals = signal.SIGKILL
    call: tuple[str, int] | None = None
    seconds: float = 0.0
    sent_bytes: int | None = None
    count: int = 1

    @property
    def strace_injection(self) -> str:
        """Return the kill point in the syntax of strace(1)."""
        assert self.call
        name, nth = self.call
        return f"{name}:signal={self.signum.name}:when={nth}{'' if self.count == 1 else '+'}"


@dataclass
class KillOutcome:
    """Outcome of a kill.

    Attributes:
        phase: the phase of the pull at the kill.
        run: the killed run.
        visible: the model visible afterwards: old, new or none.
        flaws: violations of the expected outcome.
        journaled_bytes: bytes listed by the resume journal.
        resumed_bytes: bytes that the next run did not fetch again.
        size: bytes of the model as stored.
        refetched_bytes: bytes sent in excess of `size`, over all runs.
        seconds: from a catchable signal to the end of the process; includes strace's own time at a system call.
    """

    scenario: str
    kill_point: KillPoint
    phase: str
    run: Run
    visible: str
    flaws: list[str]
    seconds: list[float] = field(default_factory=list)
    journaled_bytes: int = 0
    resumed_bytes: int = 0
    size: int = 0
    refetched_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.scenario}, {self.kill_point} ({self.phase}, saw {self.visible}): {'; '.join(self.flaws)}"


@dataclass(frozen=True)
class KillSetup:
    """Scenario, source and directory for kills.

    Attributes:
        prepared: the scenario.
        directory: a directory for all runs.
        env: variables that point to the source or the proxy.
        proxy: in front of the source, for this setup only, if bytes are counted.
        flags: more arguments of `pull`.
        prepare_last_run: called before the last run; returns the scenario to judge the last run by.
    """

    prepared: PreparedScenario
    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)
    proxy: FaultProxy | None = None
    flags: Sequence[str] = ()
    prepare_last_run: Callable[[], PreparedScenario] | None = None

    @property
    def undisturbed_volume(self) -> Path:
        """Return the volume of the undisturbed pull."""
        return self.directory / "undisturbed" / "volume"

    def make_cli(self, home: Path) -> CliRunner:
        """Return a command line without coverage: a killed process writes none, and starts faster."""
        home.mkdir(parents=True)
        cli = CliRunner(home)
        cli.env = {name: value for name, value in cli.env.items() if not name.startswith("COV")}
        cli.env |= {**self.env, "PYTHONHASHSEED": "0"}
        if (
            self.prepared.scenario.parent_read_only and os.geteuid() == 0
        ):  # root may write anywhere unless without this capability
            cli.prefix = ["setpriv", "--bounding-set=-dac_override"]
        return cli


def trace_undisturbed_pull(setup: KillSetup) -> list[SystemCall]:
    """Return the traced system calls of a pull without a kill, as far as disks are concerned."""
    volume = setup.undisturbed_volume
    cli, log = setup.make_cli(volume.parent), volume.parent / "strace"
    cli.prefix += strace.strace_command(log)
    dest = setup.prepared.lay_out_destination(volume)
    run = cli("pull", setup.prepared.uri, dest, *setup.flags, timeout=RUN_SECONDS)
    assert run.code == 0, run.stderr
    assert destination_check.check_finished_pull(setup.prepared, volume) == []
    return strace.read_calls(log)


def select_destination_calls(setup: KillSetup, calls: Sequence[SystemCall]) -> list[SystemCall]:
    """Select the calls that change the destination, flushes included."""
    return [call for call in calls if call.changes_disk and call.paths_below(setup.undisturbed_volume)]


def list_kill_targets(setup: KillSetup) -> list[tuple[str, int]]:
    """Return destination calls as a `KillPoint` names calls.

    strace counts per thread: a number that another thread reaches sooner would hit the other thread's call, perhaps at
    start-up.
    """
    first: dict[tuple[str, int], SystemCall] = {}
    for call in trace_undisturbed_pull(setup):
        first.setdefault((call.name, call.nth), call)
    return sorted((call.name, call.nth) for call in select_destination_calls(setup, list(first.values())))


def kill_pulls(setup: KillSetup, name: str, *kill_points: KillPoint) -> list[KillOutcome]:
    """Kill pulls to a destination in turn, then let a last pull finish."""
    home = setup.directory / name
    cli, volume = setup.make_cli(home), home / "volume"
    dest = setup.prepared.lay_out_destination(volume)
    outcomes = []
    for number, kill_point in enumerate(kill_points):
        log = home / f"strace-{number}"
        run, seconds = _run_killed_pull(setup, cli, dest, kill_point, log)
        visible, flaws = destination_check.check_destination(setup.prepared, volume)
        flaws += _check_ending(run, kill_point, visible, setup.prepared.scenario)
        phase = _name_phase(setup.prepared, volume, visible, _find_killed_call(log))
        outcomes.append(KillOutcome(setup.prepared.scenario.name, kill_point, phase, run, visible, flaws, seconds))
    _run_last_pull(setup, cli, volume, outcomes[-1])
    if not any(outcome.flaws for outcome in outcomes):
        volume.chmod(0o755)
        shutil.rmtree(home)
    return outcomes


def _run_killed_pull(
    setup: KillSetup, cli: CliRunner, dest: Path, kill_point: KillPoint, log: Path
) -> tuple[Run, list[float]]:
    args = ("pull", setup.prepared.uri, dest, *setup.flags)
    if kill_point.call:
        plain, cli.prefix = cli.prefix, [*cli.prefix, *strace.strace_command(log, kill_point.strace_injection)]
        try:
            run, seconds = cli(*args, timeout=RUN_SECONDS), strace.seconds_to_exit(log, kill_point.signum.name)
        finally:
            cli.prefix = plain
    else:
        running = cli.start(*args)
        _wait_for_moment(setup, running, kill_point)
        alive, begun = running.process.poll() is None, time.monotonic()
        for _ in range(kill_point.count):
            running.process.send_signal(kill_point.signum)
        run = running.finish(RUN_SECONDS)
        seconds = time.monotonic() - begun if alive else None
    return run, [] if seconds is None or kill_point.signum == signal.SIGKILL else [seconds]


def _wait_for_moment(setup: KillSetup, running: RunningCommand, kill_point: KillPoint) -> None:
    while (
        kill_point.signum != signal.SIGKILL
        and running.process.poll() is None
        and not has_signal_handler(running.process.pid)
    ):
        time.sleep(0.001)
    time.sleep(kill_point.seconds)
    while (
        kill_point.sent_bytes
        and setup.proxy
        and setup.proxy.sent_bytes() < kill_point.sent_bytes
        and running.process.poll() is None
    ):
        time.sleep(0.005)


def has_signal_handler(pid: int) -> bool:
    """Tell whether a process handles SIGTERM: Python's start takes a moment. See proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _check_ending(run: Run, kill_point: KillPoint, visible: str, scenario: Scenario) -> list[str]:
    """Return the flaws in the ending of a killed process."""
    if run.code == 0:
        return [] if visible == "new" else [f"it ended well, but the destination holds {visible}"]
    if kill_point.signum == signal.SIGKILL:
        return [] if run.code in (-signal.SIGKILL, 128 + signal.SIGKILL) else [f"it ended with {run.code}"]
    flaws = []
    if run.code != 128 + kill_point.signum:
        flaws.append(f"it ended with {run.code}")
    if any(word in run.stderr for word in ("Traceback", "ignored in")):
        flaws.append(f"it showed its insides: {run.stderr}")
    elif (run.error["code"], run.error["reason"]) != (run.code, "interrupted"):
        flaws.append(f"its last word was {run.error}")
    if visible == "none" and scenario.old:
        flaws.append("it left half of a model")
    return flaws


def _run_last_pull(setup: KillSetup, cli: CliRunner, volume: Path, last: KillOutcome) -> None:
    """Run the pull to its end, and judge."""
    before = _count_sent_bytes(setup.proxy)
    last.journaled_bytes = count_journaled_bytes(volume, setup.prepared.scenario)
    prepared = setup.prepare_last_run() if setup.prepare_last_run else setup.prepared
    last.size = prepared.scenario.size

    run = cli("pull", prepared.uri, volume / "m", "--output", "json", *setup.flags, timeout=RUN_SECONDS)

    if run.code != 0:
        last.flaws.append(f"the next run ended with {run.code}: {run.stderr}")
        return
    last.flaws += destination_check.check_finished_pull(prepared, volume)
    done = last.visible == "new" and prepared is setup.prepared
    last.resumed_bytes = last.size if done else int(run.receipt["resumed_bytes"])
    expected = range(last.journaled_bytes, last.size + 1) if prepared is setup.prepared else range(1)
    if last.resumed_bytes not in expected:
        last.flaws.append(f"{last.journaled_bytes} bytes were noted, and {last.resumed_bytes} of them used")
    if setup.proxy:
        after = _count_sent_bytes(setup.proxy) - before
        last.refetched_bytes = max(0, before + after - last.size)
        if after > last.size - last.resumed_bytes + OVERHEAD_BYTES:
            last.flaws.append(f"{after} bytes were fetched where {last.size - last.resumed_bytes} were missing")


def _count_sent_bytes(proxy: FaultProxy | None) -> int:
    """Return the bytes sent by a proxy after all requests are done."""
    if proxy is None:
        return 0
    proxy.wait_for(lambda: all(request.done for request in list(proxy.requests)))
    return proxy.sent_bytes()


def count_journaled_bytes(volume: Path, scenario: Scenario) -> int:
    """Return the bytes listed by the resume journals of a volume; 0 for archives, which cannot be resumed."""
    blocks = set()
    for journal in volume.rglob(f"{STAGING_NAME}/*/parts.jsonl") if scenario.kind != "archive" else ():
        for line in journal.read_text().splitlines():
            entry = _parse_line(line)
            if isinstance(entry, list) and len(entry) in (3, 4):
                blocks.add((entry[0], entry[1]))
    files = scenario.new.files
    return sum(min(BLOCK_SIZE, len(files[path]) - block * BLOCK_SIZE) for path, block in blocks if path in files)


def _parse_line(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:  # truncated by the kill
        return None


def _find_killed_call(log: Path) -> SystemCall | None:
    """Return the call at which a traced run was killed."""
    return next((call for call in strace.read_calls(log) if call.cut), None) if log.exists() else None


def _name_phase(prepared: PreparedScenario, volume: Path, visible: str, killed_call: SystemCall | None) -> str:
    """Return the phase of a pull at the kill."""
    packed = prepared.scenario.kind == "archive"
    if killed_call and killed_call.paths_below(volume):
        return _name_phase_of_call(killed_call, killed_call.paths_below(volume)[-1], visible, packed=packed)
    staged = [path for area in volume.rglob(STAGING_NAME) for path in area.iterdir() if path.is_dir()]
    if visible == "new":
        return "clean-up" if staged else "done"
    if not staged:
        return "start-up, listing"
    if any((path / "ours.json").exists() for path in staged):
        return "publishing"
    return "unpacking" if packed else "transfer"


def _name_phase_of_call(call: SystemCall, path: str, visible: str, *, packed: bool) -> str:
    parts = Path(path).parts
    if visible == "new":
        return "clean-up"
    if call.name.startswith("rename") or path.endswith(RECEIPT_NAME) or STAGING_NAME not in parts:
        return "publishing"
    if parts[-1] in ("ours.new", "ours.json", "receipt.json"):
        return "publishing"
    if call.name in ("fsync", "syncfs", "utimensat", "chmod", "fchmod", "fchmodat"):
        return "flushing"
    if "tree" in parts or "parts.jsonl" in parts:
        return "unpacking" if packed else "transfer"
    return "staging"

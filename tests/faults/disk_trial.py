"""Trial of a pull on a faulty volume; only two outcomes are right: the new model, or the old model and a reason."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelfetch.volume import receipt as receipts
from testkit import mounts
from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import STAGING_NAME, write_files
from testkit.stores import Store
from testkit.warm_process import WarmProcess
from tests.faults import destination_check
from tests.faults.scenarios import PreparedScenario, State

RUN_SECONDS = 150  # of a traced run on a busy machine
STAGED_LIMIT_BYTES = 64 * 1024  # bytes of journals that may stay in a staging area
DOCUMENTED_CODES = {2, 65, 66, 69, 73, 75, 77, 78}
# Root without the capabilities that bypass owners and modes: an ordinary user with the right to mount.
WITHOUT_ROOT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
OUTSIDE_FILES = {"precious": b"not to be touched", "more/precious": b"nor this"}


def do_nothing() -> None:
    """Heal nothing: the default of a trial."""


@dataclass
class TrialVolume:
    """Volume and command line of a trial, for a case to arrange.

    Attributes:
        prepared: the scenario; its destination is `volume/m`.
        directory: the trial's own directory.
        path: the volume, where the template is laid out.
        stack: cleanup at the end: mounts, above all.
        cli: the command line.
        forker: a faster runner, used unless another command must wrap the pull.
        destination: argument of `pull`, if not the plain path of `volume/m`.
        env: variables that point to the source.
        args: more arguments of `pull`.
        popen_options: options of Popen: umask, cwd.
        heal: removes the fault before the next pull.
        known_flaws: flaws present before the pull, allowed after a failed pull.
        proxy: in front of the source, if any.
        downloads: the proxy's filter for requests of the model's bytes.
    """

    prepared: PreparedScenario
    directory: Path
    stack: ExitStack
    cli: CliRunner
    forker: WarmProcess
    path: Path = Path()
    destination: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)
    popen_options: dict[str, Any] = field(default_factory=dict)
    heal: Callable[[], object] = do_nothing
    known_flaws: Sequence[str] = ()
    proxy: FaultProxy | None = None
    downloads: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = self.directory / "volume"
        write_files(self.outside, OUTSIDE_FILES)
        self.outside_before: State = destination_check.read_state(self.outside)

    @property
    def outside(self) -> Path:
        """Return the directory of files that no pull may touch."""
        return self.directory / "outside"

    @property
    def staging_area(self) -> Path:
        """Return the path of the staging area."""
        home = self.prepared.scenario.kind == "file" or not self.prepared.scenario.piecemeal
        return (self.path if home else self.path / "m") / STAGING_NAME

    def replace_template(self, change: Callable[[Path], object]) -> None:
        """Change a copy of the template, and lay the copy out."""
        template, before = self.directory / "template", destination_check.read_state(self.prepared.template)
        shutil.copytree(self.prepared.template, template, symlinks=True)
        change(template)
        others = {
            path: entry for path, entry in destination_check.read_state(template).items() if before.get(path) != entry
        }
        scenario = replace(self.prepared.scenario, other_entries=others)
        self.prepared = replace(self.prepared, scenario=scenario, template=template)
        self.lay_out()

    def lay_out(self) -> None:
        """Copy the template into the volume, with owners and times."""
        shutil.copytree(self.prepared.template, self.path, symlinks=True, dirs_exist_ok=True)

    def mount_tmpfs(self, options: str) -> None:
        """Mount a tmpfs as the volume, and lay out the template."""
        self.stack.enter_context(mounts.mount_tmpfs(self.path, options))
        self.lay_out()

    def remount(self, options: str) -> None:
        """Change the mount options of the volume."""
        mounts.run_privileged("mount", "-o", f"remount,{options}", str(self.path))

    def drop_privileges(self) -> None:
        """Run the pull as a user bound by owners and modes."""
        if os.geteuid() == 0:
            self.cli.prefix = WITHOUT_ROOT_RIGHTS

    def run_pull(self) -> Run:
        """Run the pull of the trial."""
        args = ("pull", self.prepared.uri, self.destination or str(self.path / "m"), *self.args)
        if self.cli.prefix or self.popen_options:
            return self.cli(*args, env=self.env, timeout=RUN_SECONDS, **self.popen_options)
        return self.forker(self.cli, *args, env=self.env, timeout=RUN_SECONDS)[0]


@dataclass(frozen=True)
class DiskCase:
    """A fault of a volume.

    Attributes:
        fault: in plain words; the table's row.
        arrange: causes the fault; CannotMountError skips the case.
        codes: the allowed exit codes.
        scenarios: names of the scenarios; in the short form only the first, if `in_short_form`.
        in_short_form: whether the short form includes the case.
        message_words: words required in the message or hint.
        must_heal: whether the next pull must succeed.
        no_download: whether no byte of the model may have been requested.
    """

    fault: str
    arrange: Callable[[TrialVolume], object]
    codes: tuple[int, ...] = (73,)
    scenarios: tuple[str, ...] = ("file",)
    in_short_form: bool = True
    message_words: tuple[str, ...] = ()
    must_heal: bool = True
    no_download: bool = False


@dataclass(frozen=True)
class TrialSource:
    """A scenario and its source: the local disk, or a store behind a proxy per trial."""

    prepared: PreparedScenario
    forker: WarmProcess
    store: Store | None = None

    def make_volume(self, at: Path, stack: ExitStack) -> TrialVolume:
        """Make the volume and the command line of a trial."""
        (at / "home").mkdir(parents=True)
        cli = stack.enter_context(closing(CliRunner(at / "home")))
        cli.env = {name: value for name, value in cli.env.items() if not name.startswith(("COV", "COVERAGE_"))}
        if self.store is None:
            return TrialVolume(self.prepared, at, stack, cli, self.forker)
        proxy = stack.enter_context(closing(FaultProxy(self.store.endpoint)))
        env, downloads = self.store.env_at(proxy.url), self.store.download_filter()
        return TrialVolume(self.prepared, at, stack, cli, self.forker, env=env, proxy=proxy, downloads=downloads)


@dataclass
class DiskVerdict:
    """Outcome of a trial.

    Attributes:
        visible: the model visible afterwards: old, new or none.
        flaws: violations of the expected outcome.
        skip_reason: why the trial was impossible here.
    """

    fault: str
    scenario: str
    code: int = 0
    visible: str = ""
    flaws: list[str] = field(default_factory=list)
    skip_reason: str = ""

    def __str__(self) -> str:
        return f"{self.fault}, {self.scenario} (exit code {self.code}, saw {self.visible}): {'; '.join(self.flaws)}"


def run_trial(case: DiskCase, source: TrialSource, directory: Path) -> DiskVerdict:
    """Cause a fault, pull and judge; then heal the fault, pull again and judge again."""
    verdict = DiskVerdict(case.fault, source.prepared.scenario.name)
    with ExitStack() as stack:
        volume = source.make_volume(directory, stack)
        volume.args += ["--retries", "1"]
        try:
            case.arrange(volume)
        except mounts.CannotMountError as error:
            verdict.skip_reason = str(error)
            return verdict
        run = volume.run_pull()
        verdict.code = run.code
        verdict.visible, verdict.flaws = judge_pull(volume, run, case.codes)
        verdict.flaws += [
            f"does not say {word!r}: {failure_text(run)}"
            for word in case.message_words
            if word not in failure_text(run)
        ]
        if case.no_download and volume.proxy and (downloads := volume.proxy.matching_requests(**volume.downloads)):
            verdict.flaws.append(f"bytes were asked for: {downloads}")
        if case.must_heal:
            verdict.flaws += check_next_pull(volume)
    if not verdict.flaws:
        shutil.rmtree(directory)
    return verdict


def failure_text(run: Run) -> str:
    """Return the failure's message and hint."""
    return f"{run.error['message']} {run.error['hint']}" if run.code else ""


def judge_pull(volume: TrialVolume, run: Run, codes: Sequence[int]) -> tuple[str, list[str]]:
    """Return the model visible after a pull, and the flaws."""
    visible, flaws = destination_check.check_destination(volume.prepared, volume.path)
    if run.code:
        flaws = [flaw for flaw in flaws if flaw not in volume.known_flaws]
    if run.code not in codes:
        flaws.append(f"exit code {run.code} in place of {codes}: {run.stderr}")
    flaws += check_failure(run) if run.code else []
    if run.code == 0 and visible != "new":
        flaws.append(f"it says it succeeded, but there is {visible}")
    if run.code == 0 and visible == "new":
        flaws += check_file_times(volume)
    if run.code != 0 and visible == "new":
        flaws.append("it says it failed, but the new model is published")
    if run.code != 0 and volume.prepared.scenario.old and visible != "old":
        flaws.append(f"it failed, and the old model is gone: there is {visible}")
    if run.code in (65, 73) and (size := count_staged_bytes(volume.path)) > STAGED_LIMIT_BYTES:
        flaws.append(f"{size} bytes are left in the staging area")
    return visible, flaws + check_outside_files(volume)


def check_failure(run: Run) -> list[str]:
    """Return the parts missing from a failure report."""
    if run.code not in DOCUMENTED_CODES or "Traceback" in run.all_output:
        return [f"exit code {run.code} is none that is documented: {run.stderr}"]
    try:
        missing = [key for key in ("message", "hint") if not run.error.get(key)]
        same = run.error["code"] == run.code == json.loads(run.termination)["code"]
    except (ValueError, KeyError, IndexError):
        return [f"its last words are no JSON: {run.stderr}"]
    return [f"it has no {key}" for key in missing] + ([] if same else ["the termination log differs"])


def check_file_times(volume: TrialVolume) -> list[str]:
    """Return a flaw if a published file lacks the receipt's size or time: the next pull would fetch again."""
    dest = volume.path / "m"
    receipt = receipts.read_receipt(receipts.receipt_path(dest, directory=dest.is_dir()))
    base = dest if dest.is_dir() else volume.path
    return [] if receipts.is_intact(receipt, base) else ["what is published has not the times that its receipt says"]


def count_staged_bytes(volume: Path) -> int:
    """Return the bytes of staging areas, as allocated on the disk."""
    paths = [path for area in volume.rglob(STAGING_NAME) for path in area.rglob("*")]
    return sum(path.lstat().st_blocks * 512 for path in paths if not path.is_dir())


def check_outside_files(volume: TrialVolume) -> list[str]:
    """Return a flaw if a file outside the volume changed."""
    after = destination_check.read_state(volume.outside)
    return (
        []
        if after == volume.outside_before
        else [f"outside there was {volume.outside_before}, and now there is {after}"]
    )


def check_next_pull(volume: TrialVolume) -> list[str]:
    """Heal the fault, pull again, and return the flaws."""
    volume.heal()
    run = volume.run_pull()
    if run.code != 0:
        return [f"the next pull ended with {run.code}: {run.stderr}"]
    return (
        destination_check.check_finished_pull(volume.prepared, volume.path)
        + check_file_times(volume)
        + check_outside_files(volume)
    )

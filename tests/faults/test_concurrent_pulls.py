"""Concurrent pulls on a volume: every receipt is true, and a whole model remains."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from modelfetch.errors import ModelfetchError
from modelfetch.verify import verify
from modelfetch.volume import receipt as receipts
from testkit import mounts
from testkit.cli_runner import CliRunner, Run, RunningCommand
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, random_bytes, read_files, sha256_hex, write_files
from testkit.stores import S3Bucket
from tests.faults.campaign_report import Ledger, Row

TITLE = "Disks"
RUN_SECONDS = 150
MODEL_A = {"a.bin": random_bytes(200_000, 1), "shared/x.bin": random_bytes(100_000, 2), "x": b"1"}
MODEL_B = {"b.bin": random_bytes(200_000, 3), "shared/x.bin": random_bytes(100_000, 4), "x": b"2"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PullArguments = tuple[str, str]  # key and destination
PullTogether = Callable[..., list[Run]]


@pytest.fixture
def pull_together(modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Callable[[str], FaultProxy]) -> PullTogether:
    """Return a function that starts pulls, holds back all bodies until each has logged, and waits for the ends."""
    proxy = fault_proxy(s3_bucket.endpoint)
    return lambda pulls: _pull_together(modelfetch, s3_bucket, proxy, pulls)


def _pull_together(cli: CliRunner, bucket: S3Bucket, proxy: FaultProxy, pulls: Sequence[PullArguments]) -> list[Run]:
    go = threading.Event()
    proxy.add_rule(**bucket.download_filter(), before=lambda: go.wait(RUN_SECONDS), times=None)
    cli.env["MODELFETCH_RETRIES"] = "1"
    running = [cli.start("pull", bucket.uri(key), dest, env=bucket.env_at(proxy.url)) for key, dest in pulls]
    for one in running:
        one.wait_for(partial(_has_logged, one), RUN_SECONDS)
    go.set()
    runs = [one.finish(RUN_SECONDS) for one in running]
    proxy.clear()
    return runs


def _has_logged(run: RunningCommand) -> bool:
    return bool(run.log)


@pytest.fixture
def stocked_bucket(s3_bucket: S3Bucket) -> S3Bucket:
    """Return a bucket with two models and six files."""
    for prefix, files in (
        ("a/", MODEL_A),
        ("b/", MODEL_B),
        ("f", {str(number): random_bytes(50_000, number) for number in range(6)}),
    ):
        for path, data in files.items():
            s3_bucket.put(prefix + path, data)
    return s3_bucket


def find_flaws(volume: Path, runs: Sequence[Run]) -> list[str]:
    """Return the flaws after some pulls: false receipts, unexpected exit codes, no success at all."""
    found = []
    for path in sorted(volume.rglob(f"*{RECEIPT_NAME}")):
        single = path.name != RECEIPT_NAME
        try:
            verify(path.with_name(path.name.removesuffix(RECEIPT_NAME)) if single else path.parent)
        except ModelfetchError as error:
            found.append(error.message)
    # 75: a pull that waited plans anew, and would be retried; these pulls have a single try.
    found += [f"exit code {run.code}: {run.stderr}" for run in runs if run.code not in (0, 73, 75)]
    return found if any(run.code == 0 for run in runs) else [*found, "none succeeded"]


def report_runs(ledger: Ledger, fault: str, runs: Sequence[Run], flaws: Sequence[str]) -> None:
    """Add the outcome to the table; fail if flaws were found."""
    right = 0 if flaws else sum(run.code == 0 for run in runs)
    bad = len(runs) if flaws else 0
    ledger.add_row(TITLE, Row(fault, len(runs), right, len(runs) - right - bad, bad))
    assert flaws == []


def read_model_files(dest: Path) -> dict[str, bytes]:
    """Return a directory's files without staging areas."""
    return {path: data for path, data in read_files(dest).items() if STAGING_NAME not in Path(path).parts}


def repeat(*, full: bool) -> range:
    """Return how often each test repeats."""
    return range(10 if full else 1)


def test_six_concurrent_pulls_fill_one_directory(
    pull_together: PullTogether, stocked_bucket: S3Bucket, tmp_path: Path, ledger: Ledger, *, full: bool
) -> None:
    """Six pulls into the same directory all succeed, each with its receipt."""
    for number in repeat(full=full):
        dest = tmp_path / str(number)
        runs = pull_together([(f"f{name}", f"{dest}/") for name in range(6)])

        wrong = find_flaws(dest, runs) + [run.stderr for run in runs if run.code != 0]
        expected = {f"f{name}": random_bytes(50_000, name) for name in range(6)}
        wrong += [] if read_model_files(dest) == expected else [f"found {sorted(read_model_files(dest))}"]
        report_runs(ledger, "six pulls into one directory", runs, wrong)


@pytest.mark.parametrize("foreign", [False, True], ids=["exchanged", "entry by entry"])
def test_two_pulls_to_one_destination_leave_one_whole_model(
    pull_together: PullTogether, stocked_bucket: S3Bucket, tmp_path: Path, ledger: Ledger, *, full: bool, foreign: bool
) -> None:
    """Two pulls to the same destination run in turn; the last model remains, whole, and the other is removed."""
    if foreign and not full:
        pytest.skip("with --full")
    for number in repeat(full=full):
        dest = tmp_path / str(number)
        mine = {"mine.txt": b"mine"} if foreign else {}
        write_files(dest, mine)
        runs = pull_together([("a/", str(dest)), ("b/", str(dest))])

        wrong = find_flaws(dest, runs) + [run.stderr for run in runs if run.code != 0]
        wrong += (
            []
            if read_model_files(dest) in ({**MODEL_A, **mine}, {**MODEL_B, **mine})
            else [f"found {sorted(read_model_files(dest))}"]
        )
        report_runs(ledger, "two models to one destination", runs, wrong)


def test_pull_that_waited_publishes_the_version_put_meanwhile(
    modelfetch: CliRunner,
    s3_bucket: S3Bucket,
    fault_proxy: Callable[[str], FaultProxy],
    tmp_path: Path,
    ledger: Ledger,
) -> None:
    """The first pull is held in its body; the second plans the old version, waits, and publishes the new one."""
    s3_bucket.put("w", b"old")
    proxy, go = fault_proxy(s3_bucket.endpoint), threading.Event()
    proxy.add_rule(**s3_bucket.download_filter(), before=lambda: go.wait(RUN_SECONDS), times=1)
    dest = tmp_path / "w"

    first = modelfetch.start("pull", s3_bucket.uri("w"), str(dest), env=s3_bucket.env_at(proxy.url))
    first.wait_for(partial(_has_logged, first), RUN_SECONDS)
    second = modelfetch.start("pull", s3_bucket.uri("w"), str(dest), env=s3_bucket.env_at(s3_bucket.endpoint))
    second.wait_for(lambda: "Waiting" in "".join(map(str, second.log)), RUN_SECONDS)
    s3_bucket.put("w", b"new")
    go.set()
    runs = [first.finish(RUN_SECONDS), second.finish(RUN_SECONDS)]

    wrong = [] if dest.read_bytes() == b"new" else [f"found {dest.read_bytes()!r}"]
    report_runs(ledger, "a new version while a pull waits", runs, find_flaws(tmp_path, runs) + wrong)


@pytest.mark.parametrize("old", [False, True], ids=["into nothing", "over an old model"])
def test_pulls_of_a_directory_and_of_files_into_it_lose_no_file(
    pull_together: PullTogether,
    stocked_bucket: S3Bucket,
    modelfetch: CliRunner,
    tmp_path: Path,
    ledger: Ledger,
    *,
    full: bool,
    old: bool,
) -> None:
    """The second pull may fail, but receipts are true and a file pulled alone is not lost."""
    for number in repeat(full=full):
        dest = tmp_path / str(number)
        if old:
            modelfetch.ok("pull", stocked_bucket.uri("b/"), dest, env=stocked_bucket.env)
        runs = pull_together([("a/", str(dest)), ("a/x", f"{dest}/"), ("f0", f"{dest}/")])

        wrong = find_flaws(dest, runs)
        wrong += ["f0 is lost"] if runs[2].code == 0 and not (dest / "f0").exists() else []
        wrong += ["x is lost"] if runs[1].code == 0 and not (dest / "x").exists() else []
        lost = runs[0].code == 0 and not read_model_files(dest).items() >= MODEL_A.items()
        wrong += ["the model is lost"] if lost else []
        report_runs(ledger, "a directory and files that go into it", runs, wrong)


def test_directory_and_file_of_one_name_leave_one_of_both(
    pull_together: PullTogether, stocked_bucket: S3Bucket, tmp_path: Path, ledger: Ledger, *, full: bool
) -> None:
    """A directory or a file remains, and the other pull reports the conflict."""
    for number in repeat(full=full):
        dest = tmp_path / str(number) / "m"
        runs = pull_together([("a/", str(dest)), ("f0", str(dest))])

        present = read_model_files(dest) if dest.is_dir() else dest.read_bytes()
        wrong = find_flaws(tmp_path / str(number), runs)
        if (runs[0].code, present == MODEL_A) != (0, True) and (runs[1].code, present == random_bytes(50_000, 0)) != (
            0,
            True,
        ):
            wrong.append("nobody's model is there")
        report_runs(ledger, "a directory and a file of its name", runs, wrong)


@pytest.mark.parametrize("which", ["volume", "destination"])
def test_destination_under_two_mounts_shows_one_model(
    pull_together: PullTogether, stocked_bucket: S3Bucket, tmp_path: Path, ledger: Ledger, *, full: bool, which: str
) -> None:
    """Two mounts of the same destination, as two pods with a `subPath` see, show the same model in the end."""
    for number in repeat(full=full):
        volume, other = tmp_path / str(number) / "volume", tmp_path / str(number) / "other"
        write_files(volume, {"m/mine.txt": b"mine"} if which == "destination" else {"x": b""})
        (volume / "m").mkdir(exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(mounts.bind_mount(volume if which == "volume" else volume / "m", other))
            except mounts.CannotMountError as error:
                pytest.skip(str(error))
            again = other / "m" if which == "volume" else other
            runs = pull_together([("a/", str(volume / "m")), ("b/", str(again))])

            wrong = find_flaws(volume, runs) + [run.stderr for run in runs if run.code != 0]
            seen = [read_model_files(path) for path in (volume / "m", again)]
            mine = {"mine.txt": b"mine"} if which == "destination" else {}
            wrong += (
                []
                if seen[0] == seen[1] in ({**MODEL_A, **mine}, {**MODEL_B, **mine})
                else [f"found {list(map(sorted, seen))}"]
            )
        report_runs(ledger, "one destination by two names", runs, wrong)


def test_bind_mounted_directory_is_not_exchanged(
    stocked_bucket: S3Bucket, modelfetch: CliRunner, tmp_path: Path
) -> None:
    """A bind-mounted destination is not exchanged: the mount would keep the old directory, which is then removed."""
    dest, mount = tmp_path / "m", tmp_path / "mount ü"
    modelfetch.ok("pull", stocked_bucket.uri("a/"), dest, env=stocked_bucket.env)
    with ExitStack() as stack:
        try:
            stack.enter_context(mounts.bind_mount(dest, mount))
        except mounts.CannotMountError as error:
            pytest.skip(str(error))

        modelfetch.ok("pull", stocked_bucket.uri("b/"), dest, env=stocked_bucket.env)

        assert read_model_files(mount) == MODEL_B


def test_reader_always_finds_a_whole_file(stocked_bucket: S3Bucket, modelfetch: CliRunner, tmp_path: Path) -> None:
    """A reader finds the old or the new file, whole, at every moment."""
    dest = tmp_path / "m"
    stocked_bucket.put("m", MODEL_A["a.bin"])
    modelfetch.ok("pull", stocked_bucket.uri("m"), dest, env=stocked_bucket.env)
    stocked_bucket.put("m", MODEL_B["b.bin"])
    seen: set[bytes | None] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(dest.read_bytes() if os.path.lexists(dest) else None)

    reader = threading.Thread(target=read)
    reader.start()
    run = modelfetch("pull", stocked_bucket.uri("m"), dest, env=stocked_bucket.env)
    done.set()
    reader.join()

    assert run.code == 0
    assert seen <= {MODEL_A["a.bin"], MODEL_B["b.bin"]}
    assert (
        receipts.read_receipt(receipts.receipt_path(dest, directory=False)).digest
        == f"sha256:{sha256_hex(MODEL_B['b.bin'])}"
    )

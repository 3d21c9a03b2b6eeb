"""Measure modelfetch side by side with its peers; `serve` only serves the data, for manual tries."""

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from bench import cases, data, environments, programs, rounds, server, table, verdicts
from bench.cases import Goal
from bench.environments import ROOT
from bench.verdicts import Row, Runs

BUILD = ROOT / "build/bench"
REMOVAL_MARK = BUILD / "removed"  # as old as the last removal of many files
INODE_REUSE_SECONDS = 365.0  # ext4 withholds a removed inode for 60, and 300 more while its block is unwritten


def parse_arguments() -> argparse.Namespace:
    """Parse the options of the benchmark."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["run", "serve"], default="run")
    parser.add_argument("--only", metavar="CASE", action="append", choices=[case.name for case in cases.CASES])
    parser.add_argument("--runs", metavar="COUNT", type=int, default=5, help="rounds of each case; default: 5")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether all works, not how fast")
    parser.add_argument("--data", type=Path, default=BUILD / "data", help="where the data is made, once")
    parser.add_argument("--dest", type=Path, default=BUILD, help="a directory of the disk to write to")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=300.0, help="of one run; default: 300")
    parser.add_argument("--port", type=int, default=0, help="of the server; default: any")
    parser.add_argument("--publish", action="store_true", help="put the plots into docs/pictures")
    options = parser.parse_args()
    if options.quick and options.publish:
        parser.error("--publish wants full sizes: leave --quick out")
    return options


def serve_data(data_dir: Path, objects: list[data.StoredObject], port: int) -> None:
    """Serve the data until Ctrl-C."""
    with server.start_server(data_dir, objects, port) as found:
        print("".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.environment().items()))
        print("# s3://bench/KEY and gs://bench/KEY, where KEY is one of:")
        print("#", *sorted({f"{each.key.split('/')[0]}{'/' * ('/' in each.key)}" for each in objects}), flush=True)
        threading.Event().wait()


def run_cases(options: argparse.Namespace, data_dir: Path, objects: list[data.StoredObject]) -> None:
    """Measure the chosen cases, then write tables and plots."""
    started = time.monotonic()
    installed = environments.install_environments(BUILD)
    measured: dict[str, Runs] = {}
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    with (
        server.start_server(data_dir, objects, options.port) as running,
        empty_directory(options.dest / "modelfetch-bench") as dest,
    ):
        bench = rounds.BenchContext(
            running, objects, programs.program_words(installed), dest, options.timeout, log_progress
        )
        for case in cases.CASES:
            if options.only and case.name not in options.only:
                continue
            if case.many_files and not options.quick:
                wait_for_disk()
            try:
                measured[case.name], reasons = rounds.run_rounds(bench, case, options.runs)
                failed |= {f"{case.name}, {name}": why for name, why in reasons.items()}
            except rounds.SkippedError as error:
                skipped[case.name] = str(error)
                log_progress(f"{case.name}: skipped: {error}")
    sizes = data.QUICK if options.quick else data.Sizes()
    facts = {
        "machine": describe_machine(),
        "sizes": "quick" if options.quick else "full",
        "large_bytes": sizes.large,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "others": other_load(measured),
        "kserve_packages": installed.kserve.package_bytes(),
        "skipped": skipped,
        "failed": failed,
    }
    rows = [
        row for case in cases.CASES if case.name in measured for row in verdicts.judge_case(case, measured[case.name])
    ]
    packages = Goal(cases.MODELFETCH, "", "packages", cases.MOST_PACKAGES)
    rows.append(verdicts.judge_figure("site-packages, both clouds", packages, installed.ours.package_bytes()))
    results = BUILD / "quick" if options.quick else BUILD
    write_report(results, facts, rows, measured)
    plots = ROOT / "docs/pictures" if options.publish else results
    script = str(Path(__file__).with_name("plots.py"))
    subprocess.run([installed.peers.python, script, str(results / "results.json"), str(plots)], check=True)


@contextmanager
def empty_directory(folder: Path) -> Iterator[Path]:
    """Yield an empty directory, without files of an earlier bench; remove the directory afterwards."""
    remove_directory(folder)
    folder.mkdir(parents=True)
    try:
        yield folder.resolve()
    finally:
        remove_directory(folder)


def remove_directory(folder: Path) -> None:
    """Remove a directory and record the time: new files are slow for some minutes."""
    if folder.exists():
        shutil.rmtree(folder)
        os.sync()
        REMOVAL_MARK.touch()


def wait_for_disk() -> None:
    """Wait while new files are slow because an earlier bench removed many."""
    remaining = REMOVAL_MARK.stat().st_mtime + INODE_REUSE_SECONDS - time.time() if REMOVAL_MARK.exists() else 0.0
    if remaining > 0:
        pause = min(remaining, INODE_REUSE_SECONDS)
        log_progress(f"waiting until the disk reuses the inodes that an earlier bench removed: {pause:.0f} s")
        time.sleep(pause)


def write_report(folder: Path, facts: Mapping[str, Any], rows: Sequence[Row], measured: Mapping[str, Runs]) -> None:
    """Print the tables, and save them with every single figure."""
    text = table.render_markdown(facts, rows, measured)
    runs = {name: {who: [asdict(each) for each in them] for who, them in got.items()} for name, got in measured.items()}
    results = {"facts": facts, "rows": [asdict(row) for row in rows], "runs": runs}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    (folder / "results.md").write_text(text)
    print(text)


def other_load(measured: Mapping[str, Runs]) -> float:
    """Return the processors' share of other work over all runs; without high-latency cases, as a proxy would count."""
    near = (each for case in cases.CASES if not case.high_latency and (each := measured.get(case.name)))
    runs = [run for each in near for them in each.values() for run in them]
    return statistics.mean(run.others for run in runs) if runs else 0.0


def describe_machine() -> dict[str, str]:
    """Return the processor, kernel and Python of the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    processors = str(sum(line.startswith("processor") for line in lines))
    return {"cpu": model, "processors": processors, "kernel": platform.release(), "python": platform.python_version()}


def log_progress(line: str) -> None:
    """Print a progress line to stderr."""
    print(line, file=sys.stderr, flush=True)


def interrupt(*_: object) -> NoReturn:
    """End as Ctrl-C does: stop the server and free the copies in memory."""
    raise KeyboardInterrupt


def main() -> int:
    """Make the data, then serve or measure."""
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)  # shells ignore SIGINT for background jobs
    options = parse_arguments()
    server.install_nginx()
    data_dir = options.data.resolve() / ("quick" if options.quick else "full")
    log_progress(f"data: {data_dir}")
    objects = data.make_data(data_dir, data.QUICK if options.quick else data.Sizes())
    (serve_data(data_dir, objects, options.port) if options.what == "serve" else run_cases(options, data_dir, objects))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except server.NoServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)

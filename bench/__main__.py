"""Measure modelfetch side by side with its peers; `serve` only serves the data, for trying by hand."""

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
REMOVED = BUILD / "removed"  # as old as the last removal of many files
FORGOTTEN = 365.0  # seconds; ext4 keeps a removed inode back for 60, and 300 more while its block is to be written


def arguments() -> argparse.Namespace:
    """What was asked for."""
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
    asked = parser.parse_args()
    if asked.quick and asked.publish:
        parser.error("--publish wants full sizes: leave --quick out")
    return asked


def serve(made: Path, objects: list[data.Object], port: int) -> None:
    """Serve until Ctrl-C."""
    with server.running(made, objects, port) as found:
        print("".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.environment().items()))
        print("# s3://bench/KEY and gs://bench/KEY, where KEY is one of:")
        print("#", *sorted({f"{each.key.split('/')[0]}{'/' * ('/' in each.key)}" for each in objects}), flush=True)
        threading.Event().wait()


def run(asked: argparse.Namespace, made: Path, objects: list[data.Object]) -> None:
    """Measure what was asked for, and leave tables and plots."""
    begun = time.monotonic()
    found = environments.prepare(BUILD)
    measured: dict[str, Runs] = {}
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    with server.running(made, objects, asked.port) as running, emptied(asked.dest / "modelfetch-bench") as dest:
        bench = rounds.Bench(running, objects, programs.words(found), dest, asked.timeout, say)
        for case in cases.CASES:
            if asked.only and case.name not in asked.only:
                continue
            if case.many and not asked.quick:
                wait()
            try:
                measured[case.name], reasons = rounds.run(bench, case, asked.runs)
                failed |= {f"{case.name}, {name}": why for name, why in reasons.items()}
            except rounds.SkippedError as error:
                skipped[case.name] = str(error)
                say(f"{case.name}: skipped: {error}")
    sizes = data.QUICK if asked.quick else data.Sizes()
    facts = {
        "machine": machine(),
        "sizes": "quick" if asked.quick else "full",
        "large_bytes": sizes.large,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "others": others(measured),
        "kserve_packages": found.kserve.size(),
        "skipped": skipped,
        "failed": failed,
    }
    rows = [row for case in cases.CASES if case.name in measured for row in verdicts.rows(case, measured[case.name])]
    packages = Goal(cases.MODELFETCH, "", "packages", cases.MOST_PACKAGES)
    rows.append(verdicts.figure("site-packages, both clouds", packages, found.ours.size()))
    results = BUILD / "quick" if asked.quick else BUILD
    report(results, facts, rows, measured)
    plots = ROOT / "docs/pictures" if asked.publish else results
    script = str(Path(__file__).with_name("plots.py"))
    subprocess.run([found.peers.python, script, str(results / "results.json"), str(plots)], check=True)


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """A directory without what an earlier bench left there, until the block ends."""
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder.resolve()
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a directory, and keep in mind when: whoever makes files next would pay for it."""
    if folder.exists():
        shutil.rmtree(folder)
        os.sync()
        REMOVED.touch()


def wait() -> None:
    """Let the time pass in which making files is slow because many were removed."""
    rest = REMOVED.stat().st_mtime + FORGOTTEN - time.time() if REMOVED.exists() else 0.0
    if rest > 0:
        say(f"waiting until the disk has forgotten what an earlier bench removed: {min(rest, FORGOTTEN):.0f} s")
        time.sleep(min(rest, FORGOTTEN))


def report(folder: Path, facts: Mapping[str, Any], rows: Sequence[Row], measured: Mapping[str, Runs]) -> None:
    """Print the tables, and save them beside every single figure."""
    text = table.markdown(facts, rows, measured)
    runs = {name: {who: [asdict(each) for each in them] for who, them in got.items()} for name, got in measured.items()}
    results = {"facts": facts, "rows": [asdict(row) for row in rows], "runs": runs}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    (folder / "results.md").write_text(text)
    print(text)


def others(measured: Mapping[str, Runs]) -> float:
    """The share of the processors that other work took, over all runs; a proxy would count as such."""
    near = (each for case in cases.CASES if not case.far and (each := measured.get(case.name)))
    runs = [run for each in near for them in each.values() for run in them]
    return statistics.mean(run.others for run in runs) if runs else 0.0


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    processors = str(sum(line.startswith("processor") for line in lines))
    return {"cpu": model, "processors": processors, "kernel": platform.release(), "python": platform.python_version()}


def say(line: str) -> None:
    """Tell how it goes."""
    print(line, file=sys.stderr, flush=True)


def stop(*_: object) -> NoReturn:
    """End as Ctrl-C does: the server goes, and its copies in memory with it."""
    raise KeyboardInterrupt


def main() -> int:
    """Make the data, then serve it or measure."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)  # which shells switch off for what runs in the background
    asked = arguments()
    server.install()
    made = asked.data.resolve() / ("quick" if asked.quick else "full")
    say(f"data: {made}")
    objects = data.make(made, data.QUICK if asked.quick else data.Sizes())
    (serve(made, objects, asked.port) if asked.what == "serve" else run(asked, made, objects))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except server.NoServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)

"""Fuzz one target or all: `python -m tests.fuzz [TARGET...] [--seconds N] [--findings DIR] [--plain]`.

With atheris (the extra `fuzz`) the search is guided by coverage, otherwise (or with --plain) random. Each finding is a
file in the findings directory; a fix adds the file to corpus/TARGET. Exit code 1 if anything was found.
"""

import argparse
import importlib.util
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn

MAX_INPUT_BYTES = 1 << 16  # bytes per input
MAX_CPU_SECONDS = 30  # CPU seconds per input


class _EndlessError(BaseException):
    """Raised after too much CPU time; no target can mistake the class for an error of its own."""


def _raise_endless(*_: object) -> NoReturn:
    raise _EndlessError(f"no end within {MAX_CPU_SECONDS} s")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description="Feed hostile input to the code that reads it.")
    parser.add_argument("targets", nargs="*", help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where findings go")
    parser.add_argument("--seed", default="", help="of chance; default: the time")
    parser.add_argument("--plain", action="store_true", help="without coverage")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)  # in the process of one target
    return parser.parse_args()


def fuzz_by_chance(name: str, seconds: int, findings: Path, seed: str) -> tuple[int, int]:
    """Run mutations of the seeds; return the number of runs, and of findings at different places in the code."""
    from tests.fuzz import mutations, seeds  # noqa: PLC0415  atheris wants to see every import
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    rng, begun, runs, places = random.Random(seed or time.time_ns()), time.monotonic(), 0, set()
    inputs = seeds.load_seeds(name)
    signal.signal(signal.SIGPROF, _raise_endless)
    while time.monotonic() - begun < seconds:
        data = mutations.mutate(inputs, rng)[:MAX_INPUT_BYTES]
        runs += 1
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
        try:
            TARGETS[name](data)
        except (Exception, _EndlessError) as error:  # noqa: BLE001  any other exception is a finding
            where = traceback.extract_tb(error.__traceback__)[-1]
            if (where.filename, where.lineno) not in places:
                places.add((where.filename, where.lineno))
                _save_finding(findings, name, data, error)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return runs, len(places)


def _save_finding(findings: Path, name: str, data: bytes, error: BaseException) -> None:
    path = findings / name / f"{abs(hash(data)):016x}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    sys.stderr.write(f"{path}: {type(error).__name__}: {str(error)[:200]}\n")


def fuzz_by_coverage(name: str, seconds: int, findings: Path, seed: str) -> tuple[int, int]:
    """Let atheris search for inputs that reach new code, in a subprocess ending with the first finding."""
    folder = findings / name
    folder.mkdir(parents=True, exist_ok=True)
    before, runs, deadline = len(list(folder.iterdir())), 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as corpus:
        while (left := int(deadline - time.monotonic())) > 0:
            command = [sys.executable, "-m", "tests.fuzz", name, "--guided", "--findings", corpus, "--seed", seed]
            output = subprocess.run(
                [*command, "--seconds", str(left)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            ).stdout.decode(errors="replace")
            runs += _read_statistic(output, "stat::number_of_executed_units:")
            for crash in Path().glob(f"{name}-crash-*"):
                crash.replace(folder / crash.name)
                sys.stderr.write(output[-3000:])
    return runs, len(list(folder.iterdir())) - before


def _read_statistic(text: str, label: str) -> int:
    return int(text.partition(label)[2].split()[0]) if label in text else 0


def _run_atheris(name: str, seconds: int, corpus: Path, seed: str) -> None:
    """Run atheris in this process."""
    import atheris  # noqa: PLC0415  an extra

    with atheris.instrument_imports(include=["modelfetch"]):
        from tests.fuzz import seeds  # noqa: PLC0415
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    for number, data in enumerate(seeds.load_seeds(name)):
        (corpus / str(number)).write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        "-print_final_stats=1",
        f"-artifact_prefix={name}-",
    ]
    options += [f"-seed={abs(hash(seed)) % 2**31}"] if seed else []
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz every target and print the numbers of runs and findings."""
    arguments = _parse_arguments()
    if arguments.guided:
        _run_atheris(arguments.targets[0], arguments.seconds, arguments.findings, arguments.seed)
        return 0
    engine = fuzz_by_chance if arguments.plain or importlib.util.find_spec("atheris") is None else fuzz_by_coverage
    names = arguments.targets
    if not names:
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

        names = list(TARGETS)
    findings = 0
    for name in names:
        runs, new = engine(name, arguments.seconds, arguments.findings, arguments.seed)
        findings += new
        sys.stdout.write(f"{name:<22} {runs:>10} runs  {new} findings\n")
        sys.stdout.flush()
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

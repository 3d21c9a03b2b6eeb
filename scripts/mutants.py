"""Switch off one safeguard at a time and see that the tests notice; `make mutants` calls it.

Each mutant is a copy of the source with one line changed. Every test named for it must fail; a test that passes would
not have noticed the loss. Arguments: names of mutants, to try only those.
"""
# ruff: noqa: INP001, S603, T201  a script: it prints, and runs what it wrote itself

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAILED = 1  # pytest's exit code for tests that ran and failed; every other one means that nothing was learnt


@dataclass(frozen=True)
class Mutant:
    """A safeguard that is switched off.

    Attributes:
        name: what is off.
        module: the file below src/modelfetch.
        old: a text that occurs in it once.
        new: what stands there instead.
        tests: which must fail, as `file::test` below tests/.
    """

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "checksum comparison",
        "integrity.py",
        "if came.checksums[name] != expected[name]:",
        "if False:",
        (
            "modelfetch/test_cli_validation.py::test_a_flipped_byte_fails_every_checksum_of_s3",
            "modelfetch/test_cli_validation.py::test_a_flipped_byte_fails_the_checksum_of_gcs",
            "faults/test_campaign.py::test_the_model_is_right_or_the_failure_clean[flipped byte in each part]",
        ),
    ),
)


def survivors(mutant: Mutant) -> list[str]:
    """The tests that do not notice.

    Raises:
        SystemExit: the source no longer has the line, or a test could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        source = shutil.copytree(ROOT / "src", Path(scratch) / "src")
        module = source / "modelfetch" / mutant.module
        text = module.read_text()
        if text.count(mutant.old) != 1:
            sys.exit(f"{mutant.module} has {text.count(mutant.old)} times: {mutant.old}")
        module.write_text(text.replace(mutant.old, mutant.new))
        return [test for test in mutant.tests if not _fails(test, source)]


def _fails(test: str, source: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{test}"]
    env = {**os.environ, "PYTHONPATH": str(source)}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if run.returncode not in (0, FAILED):
        sys.exit(f"{test} could not be run:\n{run.stdout}{run.stderr}")
    return run.returncode == FAILED


def main() -> None:
    """Try every mutant, or those named; exit 1 if a test did not notice one."""
    wanted = [m for m in MUTANTS if not sys.argv[1:] or m.name in sys.argv[1:]]
    missed = 0
    for mutant in wanted:
        alive = survivors(mutant)
        missed += len(alive)
        for test in mutant.tests:
            print(f"{mutant.name:30} {'NOT NOTICED by' if test in alive else 'noticed by'} {test}", flush=True)
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()

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


_CRASHES = "modelfetch/test_publish.py::test_a_crash_anywhere_leaves_a_whole_model_or_none_and_the_next_run_mends_it"

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
    Mutant(
        "flush before publishing",
        "publish.py",
        "flush([*files, *(here for here, _, _ in walk(tree))], tree)",
        "flush([], tree)",
        ("faults/test_power_loss.py::test_every_byte_is_flushed_before_it_is_published",),
    ),
    Mutant(
        "flush before the receipt",
        "publish.py",
        "flush(_changed(base, ours | new, folders), base)",
        "pass",
        ("faults/test_power_loss.py::test_what_was_published_is_on_the_disk_before_its_receipt",),
    ),
    Mutant(
        "new receipt last",
        "publish.py",
        "_change(stage, dest, moves, ours, new, folders)\n        moves.put(staged, dest.receipt)",
        "moves.put(staged, dest.receipt)\n        _change(stage, dest, moves, ours, new, folders)",
        ("faults/test_power_loss.py::test_the_receipt_is_published_last", _CRASHES),
    ),
    Mutant(
        "old receipt first",
        "publish.py",
        "_withdraw(dest, moves, new)\n    for path",
        "for path",
        ("faults/test_power_loss.py::test_the_receipt_is_published_last", _CRASHES),
    ),
    Mutant(
        "lock",
        "stage.py",
        "if fcntl is not None:\n        try:",
        "if False:\n        try:",
        ("modelfetch/test_stage.py::test_a_second_pull_waits_for_the_first",),
    ),
    Mutant(
        "version of each reply",
        "wire.py",
        "if name in headers and _bare(headers[name]) != _bare(value):",
        "if False:",
        ("modelfetch/test_wire.py::test_another_version_is_noticed_and_not_asked_for_again",),
    ),
    Mutant(
        "Content-Range of each reply",
        "wire.py",
        'if "content-range" in headers:',
        "if False:",
        ("modelfetch/test_wire.py::test_a_reply_that_does_not_fit_is_asked_for_again",),
    ),
    Mutant(
        "CRC of what is resumed",
        "landing.py",
        "if crc == noted and length:",
        "if length:",
        ("modelfetch/test_landing.py::test_only_bytes_with_the_crc_noted_are_believed",),
    ),
    Mutant(
        "version of what is resumed",
        "journal.py",
        'self.resumable = json.loads(head) == {"plan": self._plan}',
        "self.resumable = bool(head)",
        (
            "modelfetch/test_journal.py::test_another_plan_is_forgotten",
            "faults/test_kills.py::test_an_object_that_changed_after_a_kill_is_fetched_from_its_start",
        ),
    ),
    Mutant(
        "vetting of names",
        "names.py",
        "if flaw:",
        "if False:",
        ("modelfetch/test_names.py::test_refuses_names_that_do_not", "faults/test_hostile.py"),
    ),
    Mutant(
        "budget of bytes",
        "archive/base.py",
        "if size <= self.max_bytes:",
        "if True:",
        ("modelfetch/archive/test_extract.py::test_bytes_over_budget_are_refused_before_writing",),
    ),
    Mutant(
        "manifest of a push under way",
        "declared.py",
        "if not manifest.complete:",
        "if False:",
        ("modelfetch/test_cli_manifest.py::test_an_older_version_that_is_half_overwritten_is_no_model_either",),
    ),
    Mutant(
        "sha256 of the manifest",
        "fetch.py",
        "if obj.key in wanted.stated:",
        "if False:",
        ("modelfetch/test_cli_manifest.py::test_an_object_that_was_replaced_without_a_push_is_refused",),
    ),
    Mutant(
        "sha256 of the signature",
        "fetch.py",
        "require(str(wanted.uri), wanted.signed, {key: came_as[key] for key in wanted.signed}, lambda _: True)",
        "pass",
        ("modelfetch/test_signed.py::test_what_was_changed_after_it_was_signed_is_refused",),
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

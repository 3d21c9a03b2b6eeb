"""Switch off one safeguard at a time and check that the tests notice; `make mutants` calls this script.

Each mutant is a copy of the source with one function changed (see mutation.py). Every test named for a mutant must
fail: a passing test has not noticed the loss. Arguments: names of mutants to try; default: all.
"""
# ruff: noqa: INP001, S603, T201  a script: prints, and runs its own commands

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.mutation import Decide, DropCall, MoveBefore, Mutation, MutationError, ReplaceBody, mutate_function

ROOT = Path(__file__).parent.parent
FAILED = 1  # pytest's exit code for tests that ran and failed; any other code proves nothing


@dataclass(frozen=True)
class Mutant:
    """A safeguard that is switched off.

    Attributes:
        name: of the safeguard.
        module: path of the file below src/modelfetch.
        function: `function` or `Class.method` in the module.
        mutation: change of the function.
        tests: tests that must fail, as `file::test` below tests/.
    """

    name: str
    module: str
    function: str
    mutation: Mutation
    tests: tuple[str, ...]

    def mutate_source(self, package: Path) -> None:
        """Rewrite the mutant's module in a copy of src/modelfetch.

        Raises:
            MutationError: the source no longer has the function, or no place for the change.
        """
        path = package / self.module
        try:
            path.write_text(mutate_function(path.read_text(), self.function, self.mutation))
        except (MutationError, FileNotFoundError) as error:
            place = f"src/modelfetch/{self.module}"
            raise MutationError(f"mutant {self.name!r}: {place}: {error}. Correct scripts/mutants.py.") from error


_CRASHES = "modelfetch/volume/test_publish.py::test_crash_at_any_step_leaves_a_whole_model_or_no_receipt"
_RECEIPT_LAST = "faults/test_power_loss.py::test_the_receipt_is_published_last"

MUTANTS = (
    Mutant(
        "checksum comparison",
        "checksums.py",
        "compare_checksums",
        Decide("expected", value=False),
        (
            "modelfetch/cli/test_validation.py::test_flipped_byte_fails_every_s3_checksum",
            "modelfetch/cli/test_validation.py::test_flipped_byte_fails_the_gcs_checksum",
            "faults/test_campaign.py::test_the_model_is_right_or_the_failure_clean[flipped byte in each part]",
        ),
    ),
    Mutant(
        "flush before publishing",
        "volume/publish.py",
        "_set_modes_and_flush",
        DropCall("flush_paths"),
        ("faults/test_power_loss.py::test_every_byte_is_flushed_before_it_is_published",),
    ),
    Mutant(
        "flush before the receipt",
        "volume/publish.py",
        "_apply_changes",
        DropCall("flush_paths"),
        ("faults/test_power_loss.py::test_what_was_published_is_on_the_disk_before_its_receipt",),
    ),
    Mutant(
        "new receipt last",
        "volume/publish.py",
        "_move_entries",
        MoveBefore("put", "_apply_changes"),
        (_RECEIPT_LAST, _CRASHES),
    ),
    Mutant(
        "old receipt first",
        "volume/publish.py",
        "_apply_changes",
        DropCall("_remove_old_receipts"),
        (_RECEIPT_LAST, _CRASHES),
    ),
    Mutant(
        "fallocate(2) itself",
        "volume/filesystem.py",
        "reserve_space",
        ReplaceBody("os.posix_fallocate(fd, 0, size)"),
        ("modelfetch/volume/test_filesystem.py::test_reserved_space_is_a_file_size_alone_where_fallocate_is_refused",),
    ),
    Mutant(
        "plan after the wait",
        "pull/pull.py",
        "pull_plan",
        Decide("waited", value=False),
        ("modelfetch/pull/test_pull_turns.py::test_pull_that_waited_publishes_the_version_stored_meanwhile",),
    ),
    Mutant(
        "receipt unchanged since the plan",
        "pull/pull.py",
        "_require_same_receipt",
        ReplaceBody("pass"),
        ("modelfetch/pull/test_pull_turns.py::test_pull_begins_again_when_another_published_meanwhile",),
    ),
    Mutant(
        "directories opened without following symlinks",
        "volume/staged_tree.py",
        "_open_below",
        ReplaceBody("return os.open(path, os.O_RDONLY, dir_fd=root_fd)"),
        (
            "modelfetch/volume/test_staged_tree.py::test_no_file_is_created_below_a_directory_swapped_for_a_symlink",
            "modelfetch/pull/test_fetch.py::test_staged_directory_swapped_for_a_symlink_writes_nothing_outside",
        ),
    ),
    Mutant(
        "inodes of staged files",
        "volume/staged_tree.py",
        "StagedTree.check_written",
        ReplaceBody("pass"),
        ("modelfetch/volume/test_staged_tree.py::test_replaced_file_is_noticed_before_publishing",),
    ),
    Mutant(
        "objects below an archive's symlink",
        "pull/fetch.py",
        "_refuse_linked_paths",
        ReplaceBody("pass"),
        ("modelfetch/pull/test_fetch.py::test_object_below_a_symlink_of_an_archive_is_refused",),
    ),
    Mutant(
        "lock file of the sweep",
        "volume/staging.py",
        "_sweep_area",
        Decide("samestat", value=False),
        ("modelfetch/volume/test_staging.py::test_sweep_spares_the_area_of_a_pull_whose_lock_file_was_replaced",),
    ),
    Mutant(
        "lock",
        "volume/staging.py",
        "_wait_for_lock",
        ReplaceBody("pass"),
        ("modelfetch/volume/test_staging.py::test_second_pull_waits_for_the_first",),
    ),
    Mutant(
        "version of each reply",
        "transfer/range_reader.py",
        "check_response",
        Decide("_strip_validator", value=False),
        ("modelfetch/transfer/test_range_reader.py::test_response_of_another_version_is_refused_without_a_retry",),
    ),
    Mutant(
        "Content-Range of each reply",
        "transfer/range_reader.py",
        "_check_range",
        ReplaceBody("pass"),
        ("modelfetch/transfer/test_range_reader.py::test_response_of_another_range_is_requested_again",),
    ),
    Mutant(
        "CRC of what is resumed",
        "transfer/part_file.py",
        "PartFile._load_resumable_blocks",
        Decide("crc", value=True),
        ("modelfetch/transfer/test_part_file.py::test_blocks_with_another_crc_are_fetched_again",),
    ),
    Mutant(
        "version of what is resumed",
        "volume/resume_journal.py",
        "ResumeJournal._load_lines",
        Decide("head", value=True),
        (
            "modelfetch/volume/test_resume_journal.py::test_journal_of_another_plan_is_overwritten",
            "faults/test_kills.py::test_an_object_that_changed_after_a_kill_is_fetched_from_its_start",
        ),
    ),
    Mutant(
        "vetting of names",
        "safe_paths.py",
        "_find_flaw",
        ReplaceBody("return ''"),
        ("modelfetch/test_safe_paths.py::test_unsafe_names_are_refused_with_a_hint", "faults/test_hostile.py"),
    ),
    Mutant(
        "budget of bytes",
        "archive/base.py",
        "Budget.check_bytes",
        ReplaceBody("pass"),
        ("modelfetch/archive/test_extract.py::test_bytes_over_budget_are_refused_before_writing",),
    ),
    Mutant(
        "manifest of a push under way",
        "provenance/manifest_check.py",
        "_read_manifest",
        Decide("complete", value=False),
        ("modelfetch/cli/test_manifest.py::test_half_overwritten_model_is_not_pulled",),
    ),
    Mutant(
        "sha256 of the manifest",
        "pull/fetch.py",
        "_Fetch._verify",
        Decide("manifest_sha256", value=False),
        ("modelfetch/cli/test_manifest.py::test_object_replaced_without_a_push_is_refused",),
    ),
    Mutant(
        "sha256 of the signature",
        "pull/fetch.py",
        "_Fetch._check_signed",
        DropCall("check_signed_files"),
        ("modelfetch/provenance/test_signature_check.py::test_model_changed_after_signing_is_refused",),
    ),
    Mutant(
        "pending signals unblocked",
        "signals.py",
        "SignalGuard.__enter__",
        DropCall("pthread_sigmask"),
        ("modelfetch/test_main.py::test_signal_before_the_handlers_is_heard_when_the_entry_point_blocks_signals",),
    ),
    Mutant(
        "wait for a stuck stderr",
        "cli/standard_streams.py",
        "StderrStream._wait_writable",
        ReplaceBody("return True"),
        ("modelfetch/cli/test_standard_streams.py::test_deadline_ends_a_pull_whose_stderr_is_a_full_pipe",),
    ),
    Mutant(
        "closed descriptors occupied",
        "cli/standard_streams.py",
        "_occupy_closed_descriptors",
        ReplaceBody("return set()"),
        ("modelfetch/cli/test_standard_streams.py::test_closed_standard_descriptors_are_occupied",),
    ),
    Mutant(
        "reserved names at every depth",
        "safe_paths.py",
        "is_reserved_path",
        ReplaceBody("return path.startswith('.modelfetch')"),
        (
            "modelfetch/cli/test_reserved_names.py::test_reserved_names_are_left_out_of_a_pull_and_counted_in_one_line",
            "modelfetch/cli/test_reserved_names.py::test_push_leaves_out_nested_pulls_and_counts_them_in_one_line",
        ),
    ),
    Mutant(
        "foreign file at the receipt's place",
        "volume/receipt.py",
        "is_receipt_file",
        ReplaceBody("return os.path.lexists(path)"),
        (
            "modelfetch/cli/test_reserved_names.py::test_foreign_file_named_like_a_receipt_is_neither_replaced_nor_deleted",
        ),
    ),
    Mutant(
        "receipt inside a model",
        "volume/receipt.py",
        "_is_part_of_model",
        ReplaceBody("return False"),
        ("modelfetch/cli/test_reserved_names.py::test_verify_does_not_believe_a_receipt_that_is_a_file_of_the_model",),
    ),
    Mutant(
        "version confirmed by the store",
        "sources/s3/source.py",
        "S3Source._confirm_version",
        Decide("answered", value=False),
        ("modelfetch/cli/test_one_version.py::test_store_that_ignores_the_pin_is_refused[s3]",),
    ),
    Mutant(
        "one stream without validators",
        "transfer/range_reader.py",
        "RangeReader.read_range",
        Decide("pins", value=False),
        ("modelfetch/cli/test_one_version.py::test_broken_stream_without_validators_begins_again_at_the_first_byte",),
    ),
    Mutant(
        "TLS ended by close_notify",
        "net/tls.py",
        "BulkReadSocket.read",
        ReplaceBody("return super().read(len, buffer)"),
        ("modelfetch/net/test_tls.py::test_open_body_without_close_notify_is_an_error[record by record]",),
    ),
    Mutant(
        "leftover bytes of TLS",
        "net/connection_pool.py",
        "LeftoverCheckingConnection.is_connected",
        ReplaceBody("return super().is_connected"),
        ("modelfetch/cli/test_one_version.py::test_bytes_behind_a_tls_response_do_not_become_the_next_response",),
    ),
    Mutant(
        "empty model",
        "pull/content_check.py",
        "_refuse_nothing",
        ReplaceBody("pass"),
        ("modelfetch/cli/test_content.py::test_empty_model_is_refused[s3-directory-files0-65]",),
    ),
    Mutant(
        "web page in place of a model",
        "pull/content_check.py",
        "_refuse_page",
        ReplaceBody("pass"),
        ("modelfetch/cli/test_content.py::test_web_page_in_place_of_a_model_is_refused[comment]",),
    ),
    Mutant(
        "Git LFS pointer",
        "pull/content_check.py",
        "_refuse_pointers",
        ReplaceBody("pass"),
        ("modelfetch/cli/test_content.py::test_git_lfs_pointer_is_refused_with_the_true_size",),
    ),
    Mutant(
        "form that was vouched for",
        "pull/fetch.py",
        "_Fetch._vouched_as_stored",
        ReplaceBody("return False"),
        ("modelfetch/cli/test_content.py::test_published_form_of_an_encoded_object_is_the_signed_one[stored]",),
    ),
    Mutant(
        "volume mounted inside the destination",
        "volume/filesystem.py",
        "list_mounts_below",
        ReplaceBody("return []"),
        ("modelfetch/cli/test_publish_modes.py::test_volume_mounted_inside_the_destination_stays",),
    ),
    Mutant(
        "attributes of the destination",
        "volume/publish.py",
        "_take_over_attributes",
        ReplaceBody("return True"),
        ("modelfetch/cli/test_publish_modes.py::test_mode_and_owner_of_the_destination_stay",),
    ),
    Mutant(
        "old model put back",
        "volume/publish.py",
        "restore_swapped_directory",
        ReplaceBody("pass"),
        ("modelfetch/cli/test_publish_modes.py::test_old_model_is_put_back_after_a_kill_between_two_renames",),
    ),
    Mutant(
        "raw names bounded",
        "archive/extraction_dir.py",
        "_strip_leading_dots",
        Decide("MAX_RAW_NAME_CHARS", value=False),
        ("modelfetch/archive/test_tar.py::test_raw_name_is_bounded_before_it_is_normalised",),
    ),
    Mutant(
        "manifest stored on condition",
        "push/push.py",
        "_require_own_versions",
        ReplaceBody("pass"),
        ("modelfetch/push/test_push.py::test_object_overwritten_after_its_upload_fails_the_push",),
    ),
    Mutant(
        "https kept over redirects",
        "net/redirects.py",
        "_loses_protection",
        ReplaceBody("return False"),
        ("modelfetch/cli/test_network.py::test_redirect_of_an_https_source_to_http_exits_69_and_sends_no_token",),
    ),
    Mutant(
        "secret in place of a path",
        "safe_paths.py",
        "is_path_like",
        ReplaceBody("return True"),
        ("modelfetch/cli/test_secrets.py::test_secret_in_place_of_its_path_is_exit_78_and_never_shown",),
    ),
)


def find_survivors(mutant: Mutant) -> list[str]:
    """Return the tests that pass on a mutant.

    Raises:
        MutationError: the source no longer has the function.
        SystemExit: a test could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        source = shutil.copytree(ROOT / "src", Path(scratch) / "src")
        mutant.mutate_source(source / "modelfetch")
        return [test for test in mutant.tests if not _test_fails(test, source)]


def _test_fails(test: str, source: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{test}"]
    env = {**os.environ, "PYTHONPATH": str(source)}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if run.returncode not in (0, FAILED):
        sys.exit(f"{test} could not be run:\n{run.stdout}{run.stderr}")
    return run.returncode == FAILED


def main() -> None:
    """Try every mutant, or the named mutants; exit 1 if a test passed on any."""
    selected = [mutant for mutant in MUTANTS if not sys.argv[1:] or mutant.name in sys.argv[1:]]
    missed = 0
    for mutant in selected:
        try:
            survivors = find_survivors(mutant)
        except MutationError as error:
            sys.exit(str(error))
        missed += len(survivors)
        for test in mutant.tests:
            print(f"{mutant.name:30} {'NOT NOTICED by' if test in survivors else 'noticed by'} {test}", flush=True)
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()

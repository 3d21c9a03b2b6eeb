"""Resume journal: blocks recorded before a crash are found by the next run."""

from pathlib import Path

import pytest

from modelfetch.volume.resume_journal import ResumeJournal


def record_run(path: Path, plan: str, *parts: tuple[str, int, int]) -> None:
    """Record the blocks of a single run."""
    journal = ResumeJournal(path, plan)
    journal.open()
    for part in parts:
        journal.record_block(*part)
    journal.close()


def test_next_run_of_the_same_plan_reads_all_blocks(tmp_path: Path) -> None:
    """Any name is kept, also over several runs."""
    path = tmp_path / "j"
    record_run(path, "p", ("a", 0, 1), ("ü\u2028\n", 7, 2**64 - 1))
    record_run(path, "p", ("b", 0, 3))

    journal = ResumeJournal(path, "p")

    assert journal.resumable
    assert journal.block_crcs == {("a", 0): 1, ("ü\u2028\n", 7): 2**64 - 1, ("b", 0): 3}
    assert journal.files == {"a", "ü\u2028\n", "b"}


def test_journal_of_another_plan_is_overwritten(tmp_path: Path) -> None:
    """A journal with another resume key is not read, and is overwritten when opened."""
    path = tmp_path / "j"
    record_run(path, "p", ("a", 0, 1))

    other = ResumeJournal(path, "q")
    assert (other.resumable, other.block_crcs) == (False, {})
    record_run(path, "q", ("b", 0, 2))

    assert ResumeJournal(path, "q").block_crcs == {("b", 0): 2}
    assert not ResumeJournal(path, "p").resumable


@pytest.mark.parametrize("torn", ['["b", 0, 5, {"crc32": "A', '["b", 0, 5, null]', '["b", 5]', '["b"]', "[" * 100_000])
def test_stated_checksums_are_kept_despite_a_torn_line(tmp_path: Path, torn: str) -> None:
    """A line torn by a crash is ignored."""
    journal = ResumeJournal(tmp_path / "j", "p")
    journal.open()
    journal.record_checksums("a", {"crc32": "AAAA"})
    journal.record_block("a", 0, 1)
    journal.close()
    with (tmp_path / "j").open("a") as file:
        file.write(torn)

    reloaded = ResumeJournal(tmp_path / "j", "p")

    assert reloaded.stated_checksums == {"a": {"crc32": "AAAA"}}
    assert (reloaded.block_crcs, reloaded.files) == ({("a", 0): 1}, {"a"})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]\n", b"\0\0\0", b"[" * 100_000, b"9" * 5000])
def test_journal_without_a_header_is_not_resumable(tmp_path: Path, content: bytes) -> None:
    """A missing journal is not resumable either."""
    (tmp_path / "j").write_bytes(content)

    assert not ResumeJournal(tmp_path / "j", "p").resumable
    assert not ResumeJournal(tmp_path / "none", "p").resumable


@pytest.mark.parametrize("torn", ['["b", 0, 1', '["b"', "\0\0", "5", "[[], 0, 1]", '["b", 0, 12]\n'])
def test_torn_line_loses_no_other_line(tmp_path: Path, torn: str) -> None:
    """Lines before a torn line and lines of later runs are kept."""
    path = tmp_path / "j"
    record_run(path, "p", ("a", 0, 1))
    with path.open("a") as file:
        file.write(torn)
    record_run(path, "p", ("c", 0, 3))

    block_crcs = ResumeJournal(path, "p").block_crcs

    assert block_crcs.pop(("b", 0), 12) == 12
    assert block_crcs == {("a", 0): 1, ("c", 0): 3}

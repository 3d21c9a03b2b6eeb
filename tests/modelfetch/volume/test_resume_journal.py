"""What a crash leaves for the next run."""

from pathlib import Path

import pytest

from modelfetch.volume.resume_journal import ResumeJournal


def write(path: Path, plan: str, *parts: tuple[str, int, int]) -> None:
    """One run's notes."""
    journal = ResumeJournal(path, plan)
    journal.open()
    for part in parts:
        journal.record_block(*part)
    journal.close()


def test_the_next_run_of_the_same_plan_finds_what_is_noted(tmp_path: Path) -> None:
    """Whatever the names are, and after several runs."""
    path = tmp_path / "j"
    write(path, "p", ("a", 0, 1), ("ü\u2028\n", 7, 2**64 - 1))
    write(path, "p", ("b", 0, 3))

    journal = ResumeJournal(path, "p")

    assert journal.resumable
    assert journal.block_crcs == {("a", 0): 1, ("ü\u2028\n", 7): 2**64 - 1, ("b", 0): 3}
    assert journal.files == {"a", "ü\u2028\n", "b"}


def test_another_plan_is_forgotten(tmp_path: Path) -> None:
    """Its notes are overwritten."""
    path = tmp_path / "j"
    write(path, "p", ("a", 0, 1))

    other = ResumeJournal(path, "q")
    assert (other.resumable, other.block_crcs) == (False, {})
    write(path, "q", ("b", 0, 2))

    assert ResumeJournal(path, "q").block_crcs == {("b", 0): 2}
    assert not ResumeJournal(path, "p").resumable


@pytest.mark.parametrize("torn", ['["b", 0, 5, {"crc32": "A', '["b", 0, 5, null]', '["b", 5]', '["b"]', "[" * 100_000])
def test_checksums_that_were_stated_are_kept(tmp_path: Path, torn: str) -> None:
    """Unless a crash cut their line short."""
    journal = ResumeJournal(tmp_path / "j", "p")
    journal.open()
    journal.record_checksums("a", {"crc32": "AAAA"})
    journal.record_block("a", 0, 1)
    journal.close()
    with (tmp_path / "j").open("a") as file:
        file.write(torn)

    again = ResumeJournal(tmp_path / "j", "p")

    assert again.stated_checksums == {"a": {"crc32": "AAAA"}}
    assert (again.block_crcs, again.files) == ({("a", 0): 1}, {"a"})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]\n", b"\0\0\0", b"[" * 100_000, b"9" * 5000])
def test_a_journal_without_its_head_is_none(tmp_path: Path, content: bytes) -> None:
    """Nor is one that is not there."""
    (tmp_path / "j").write_bytes(content)

    assert not ResumeJournal(tmp_path / "j", "p").resumable
    assert not ResumeJournal(tmp_path / "none", "p").resumable


@pytest.mark.parametrize("torn", ['["b", 0, 1', '["b"', "\0\0", "5", "[[], 0, 1]", '["b", 0, 12]\n'])
def test_a_line_that_a_crash_cut_short_costs_no_other(tmp_path: Path, torn: str) -> None:
    """Neither those before it nor those of the runs after it."""
    path = tmp_path / "j"
    write(path, "p", ("a", 0, 1))
    with path.open("a") as file:
        file.write(torn)
    write(path, "p", ("c", 0, 3))

    done = ResumeJournal(path, "p").block_crcs

    assert done.pop(("b", 0), 12) == 12
    assert done == {("a", 0): 1, ("c", 0): 3}

"""The staging area: locked, kept after a crash for whoever can use it, swept for the rest."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from modelfetch.errors import DestinationError
from modelfetch.volume.staging import STAGING_ROOT, StagingArea, has_leftovers, lock_directory, lock_staging_area


def nobody() -> None:
    """Nobody has to wait."""
    raise AssertionError("nothing to wait for")


def begin(home: Path, name: str, waiting: Callable[[], None] = nobody) -> AbstractContextManager[StagingArea]:
    """The stage of a destination."""
    return lock_staging_area(lambda: home, name, waiting)


def crashed(home: Path, name: str, *files: str) -> Path:
    """What a pull that was killed left: its files, with no lock held."""
    with begin(home, name) as stage:
        work = stage.work_directory
        kept = dict.fromkeys(files, b"x")
    work.mkdir(parents=True)
    for file, data in kept.items():
        (work / file).parent.mkdir(exist_ok=True)
        (work / file).write_bytes(data)
    (work.parent / f"{work.name}.lock").touch()
    return work


def test_nothing_is_left_of_a_pull_that_is_done(tmp_path: Path) -> None:
    """Neither files nor lock nor area."""
    with begin(tmp_path / "new", "m") as stage:
        stage.tree.mkdir()
        (stage.tree / "a").touch()
        assert stage.work_directory.parent == tmp_path / "new" / STAGING_ROOT

    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("file", "kept"), [("parts.jsonl", True), ("ours.json", True), ("scratch", False), ("tree/a", False)]
)
def test_after_a_failure_only_what_the_next_run_can_use_is_kept(tmp_path: Path, file: str, kept: object) -> None:
    """A journal, or the list of what is ours."""
    with pytest.raises(FileNotFoundError), begin(tmp_path, "m") as stage:  # noqa: PT012  the stage is needed
        stage.tree.mkdir()
        (stage.work_directory / file).touch()
        (stage.work_directory / "none").unlink()

    assert stage.work_directory.exists() == kept
    assert (tmp_path / STAGING_ROOT).exists() == kept


def test_a_second_pull_waits_for_the_first(tmp_path: Path) -> None:
    """It is told that it waits; then the place is its own."""
    events: list[str] = []
    waits = threading.Event()

    def waiting() -> None:
        events.append("waits")
        waits.set()

    def second() -> None:
        with begin(tmp_path, "m", waiting) as stage:
            events.append(f"second, {sorted(path.name for path in stage.work_directory.iterdir())}")

    thread = threading.Thread(target=second)
    with begin(tmp_path, "m") as stage:
        (stage.work_directory / "scratch").touch()
        thread.start()
        assert waits.wait(30)
        events.append("first")
    thread.join(30)

    assert events == ["waits", "first", "second, []"]
    assert list(tmp_path.iterdir()) == []


def test_pulls_to_other_destinations_do_not_wait(tmp_path: Path) -> None:
    """Nor do they disturb each other."""
    with begin(tmp_path, "a") as one:
        (one.work_directory / "scratch").touch()
        with begin(tmp_path, "b") as other:
            assert other.work_directory != one.work_directory
        assert (one.work_directory / "scratch").exists()


def test_the_home_is_chosen_again_once_the_lock_is_held(tmp_path: Path) -> None:
    """The pull before may have changed where things can go; no trace is left in the first."""
    homes = iter([tmp_path / "a", tmp_path / "b", tmp_path / "b", tmp_path / "b"])
    with lock_staging_area(lambda: next(homes), "m", nobody) as stage:
        assert stage.work_directory.parent.parent == tmp_path / "b"

    assert [list(path.iterdir()) for path in sorted(tmp_path.iterdir())] == [[], []]


def test_what_other_crashed_pulls_left_is_swept(tmp_path: Path) -> None:
    """Unless one has moved some of its files already: its list says which are ours."""
    useless = crashed(tmp_path, "a", "tree/a", "parts.jsonl")
    needed = crashed(tmp_path, "b", "ours.json")

    with begin(tmp_path, "c"):
        pass

    assert not useless.exists()
    assert (needed / "ours.json").exists()


def test_what_a_crash_left_at_the_other_home_is_swept(tmp_path: Path) -> None:
    """Where staging goes depends on what is at the destination, and that may have changed since."""
    homes = [tmp_path / "a", tmp_path / "b"]
    left = crashed(homes[1], "m", "tree/a", "parts.jsonl", "ours.json")
    other = crashed(homes[1], "n", "tree/a", "parts.jsonl")

    before = has_leftovers(homes, "m")
    with lock_staging_area(lambda: homes[0], "m", nobody, homes):
        pass

    assert (before, has_leftovers(homes, "m")) == (True, False)
    assert not left.exists()
    assert other.exists()


def test_the_other_home_is_left_alone_while_a_pull_is_at_it(tmp_path: Path) -> None:
    """Its lock tells."""
    homes = [tmp_path / "a", tmp_path / "b"]
    with begin(homes[1], "m") as busy:
        with lock_staging_area(lambda: homes[0], "m", nobody, homes):
            pass
        assert busy.work_directory.exists()


def test_what_was_not_pulled_to_has_no_leftovers(tmp_path: Path) -> None:
    """A destination that is not there, or an area that may not be looked into, is none of ours to sweep."""
    (tmp_path / "b").touch()

    assert not has_leftovers([tmp_path / "a", tmp_path / "b"], "m")


def test_what_another_pull_is_at_is_not_swept(tmp_path: Path) -> None:
    """Its lock tells."""
    with begin(tmp_path, "a") as busy:
        (busy.work_directory / "parts.jsonl").touch()
        with begin(tmp_path, "b"):
            pass
        assert (busy.work_directory / "parts.jsonl").exists()


def test_a_link_in_place_of_the_area_is_refused(tmp_path: Path) -> None:
    """Nothing is written through it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / STAGING_ROOT).symlink_to("elsewhere")

    with pytest.raises(DestinationError, match="is a link"), begin(tmp_path, "m"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("below", ["file", "file/below"])
def test_an_area_that_cannot_be_made_is_a_matter_of_the_destination(tmp_path: Path, below: str) -> None:
    """73."""
    (tmp_path / "file").touch()

    with pytest.raises(DestinationError), begin(tmp_path / below, "m"):
        pass


def test_a_home_that_cannot_be_looked_at_is_a_matter_of_the_destination() -> None:
    """As where a directory may not be listed."""

    def home() -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/secret")

    with pytest.raises(DestinationError, match="/secret"), lock_staging_area(home, "m", nobody):
        pass


def noted(stage: StagingArea, plan: str, *names: str) -> None:
    """A run of this plan that wrote and noted these files, and one more that it did not note."""
    journal = stage.open_journal(plan)
    for name in (*names, "new"):
        (stage.tree / name).parent.mkdir(exist_ok=True, parents=True)
        (stage.tree / name).write_bytes(b"x")
    for name in names:
        journal.record_block(name, 0, 1)
    journal.close()


@pytest.mark.parametrize(
    ("plan", "left"), [("p", ["a", "d/b"]), ("q", []), ("", [])], ids=["the same", "another", "uncertain"]
)
def test_the_next_run_finds_the_files_that_its_plan_had_noted(tmp_path: Path, plan: str, left: list[str]) -> None:
    """Of another plan, or one that nothing identifies, nothing stays; what is not noted never does."""
    with begin(tmp_path, "m") as stage:
        noted(stage, "p", "a", "d/b")
        stage.claims.touch()

        stage.open_journal(plan).close()

        files = sorted(path.relative_to(stage.tree).as_posix() for path in stage.tree.rglob("*") if path.is_file())
        assert files == left
        assert stage.claims.exists()


def test_links_in_a_left_over_tree_are_removed_and_not_followed(tmp_path: Path) -> None:
    """Somebody may have put them there."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with begin(tmp_path / "home", "m") as stage:
        noted(stage, "p", "a")
        (stage.tree / "link").symlink_to(tmp_path / "precious")

        stage.open_journal("p").close()

        assert [path.name for path in stage.tree.iterdir()] == ["a"]
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.parametrize("name", ["", "tree", "parts.jsonl", "ours.json", "ours.new", "receipt.json", "scratch"])
def test_links_in_a_left_over_staging_area_are_removed_and_not_followed(tmp_path: Path, name: str) -> None:
    """Whoever may write to the volume may have put them there: nothing is written or removed where they lead."""
    outside = tmp_path / "outside"
    (outside / "tree").mkdir(parents=True)
    (outside / "tree" / "precious").write_text("1")
    work = crashed(tmp_path, "m", "old")
    shutil.rmtree(work)
    at = work / name if name else work
    at.parent.mkdir(exist_ok=True)
    at.symlink_to(outside if name in ("", "tree") else outside / "new")

    with begin(tmp_path, "m") as stage:
        noted(stage, "p", "a")
        (stage.work_directory / "ours.new").write_text("[]")
        stage.clear()

    assert sorted(path.name for path in outside.rglob("*")) == ["precious", "tree"]


def test_a_staged_file_that_has_another_name_elsewhere_is_not_written_to(tmp_path: Path) -> None:
    """Although a journal tells of it."""
    (tmp_path / "precious").write_text("1")
    with begin(tmp_path / "home", "m") as stage:
        noted(stage, "p", "a")
        (stage.tree / "a").unlink()
        (stage.tree / "a").hardlink_to(tmp_path / "precious")

        stage.open_journal("p").close()

        assert list(stage.tree.iterdir()) == []
    assert (tmp_path / "precious").read_text() == "1"


@pytest.mark.parametrize("name", ["m", "other"], ids=["its own", "another's"])
def test_a_link_in_place_of_a_lock_makes_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    """It is none of ours, and goes."""
    work = crashed(tmp_path, name, "parts.jsonl")
    lock = work.parent / f"{work.name}.lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "new")

    with begin(tmp_path, "m"):
        pass

    assert not (tmp_path / "new").exists()
    assert not (tmp_path / STAGING_ROOT).exists()


def test_an_area_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    """Who could write there could change what has been verified."""
    before = os.umask(0)
    try:
        with begin(tmp_path, "m") as stage:
            mode = stage.work_directory.parent.stat().st_mode & 0o777
    finally:
        os.umask(before)

    assert mode == 0o755


def test_a_directory_is_held_by_one_who_publishes_into_it(tmp_path: Path) -> None:
    """The other waits; one that is not there holds nobody up."""
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with lock_directory(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    with lock_directory(tmp_path), lock_directory(tmp_path / "none"):
        thread.start()
        begun.wait(30)
        order.append("first")
    thread.join(30)

    assert order == ["first", "second"]

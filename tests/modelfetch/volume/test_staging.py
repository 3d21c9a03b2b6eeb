"""Staging area: locked, kept after a crash while resumable, otherwise swept."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from modelfetch.errors import DestinationError
from modelfetch.volume import staging as staging_module
from modelfetch.volume.staging import STAGING_ROOT, StagingArea, has_leftovers, lock_directory, lock_staging_area


def refuse_wait() -> None:
    """Fail the test if a pull has to wait for a lock."""
    raise AssertionError("nothing to wait for")


def lock_area(
    parent: Path, name: str, on_wait: Callable[[], None] = refuse_wait
) -> AbstractContextManager[StagingArea]:
    """Lock the staging area of a destination."""
    return lock_staging_area(lambda: parent, name, on_wait)


def leave_crashed_area(parent: Path, name: str, *files: str) -> Path:
    """Create the area of a killed pull: files and a lock file that nobody holds."""
    with lock_area(parent, name) as staging:
        work = staging.work_directory
        kept = dict.fromkeys(files, b"x")
    work.mkdir(parents=True)
    for file, data in kept.items():
        (work / file).parent.mkdir(exist_ok=True)
        (work / file).write_bytes(data)
    (work.parent / f"{work.name}.lock").touch()
    return work


def test_completed_pull_leaves_nothing_behind(tmp_path: Path) -> None:
    """Files, lock and staging root are removed."""
    with lock_area(tmp_path / "new", "m") as staging:
        staging.tree.mkdir()
        (staging.tree / "a").touch()
        assert staging.work_directory.parent == tmp_path / "new" / STAGING_ROOT

    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("file", "kept"), [("parts.jsonl", True), ("ours.json", True), ("scratch", False), ("tree/a", False)]
)
def test_failed_pull_keeps_only_resumable_areas(tmp_path: Path, file: str, kept: object) -> None:
    """A journal or claims keep the area; other files do not."""
    with pytest.raises(FileNotFoundError), lock_area(tmp_path, "m") as staging:  # noqa: PT012  the area is needed
        staging.tree.mkdir()
        (staging.work_directory / file).touch()
        (staging.work_directory / "none").unlink()

    assert staging.work_directory.exists() == kept
    assert (tmp_path / STAGING_ROOT).exists() == kept


def test_second_pull_waits_for_the_first(tmp_path: Path) -> None:
    """The second pull calls `on_wait` once, then gets an empty area."""
    events: list[str] = []
    is_waiting = threading.Event()

    def on_wait() -> None:
        events.append("waits")
        is_waiting.set()

    def pull_second() -> None:
        with lock_area(tmp_path, "m", on_wait) as staging:
            events.append(f"second, {sorted(path.name for path in staging.work_directory.iterdir())}")

    thread = threading.Thread(target=pull_second)
    with lock_area(tmp_path, "m") as staging:
        (staging.work_directory / "scratch").touch()
        thread.start()
        assert is_waiting.wait(30)
        events.append("first")
    thread.join(30)

    assert events == ["waits", "first", "second, []"]
    assert list(tmp_path.iterdir()) == []


def test_pulls_to_different_destinations_do_not_wait(tmp_path: Path) -> None:
    """Areas of different destinations do not disturb each other."""
    with lock_area(tmp_path, "a") as first:
        (first.work_directory / "scratch").touch()
        with lock_area(tmp_path, "b") as second:
            assert second.work_directory != first.work_directory
        assert (first.work_directory / "scratch").exists()


def test_staging_parent_is_chosen_again_under_the_lock(tmp_path: Path) -> None:
    """An earlier pull may have changed the answer; the first parent is left empty."""
    parents = iter([tmp_path / "a", tmp_path / "b", tmp_path / "b", tmp_path / "b"])
    with lock_staging_area(lambda: next(parents), "m", refuse_wait) as staging:
        assert staging.work_directory.parent.parent == tmp_path / "b"

    assert [list(path.iterdir()) for path in sorted(tmp_path.iterdir())] == [[], []]


def test_areas_of_other_crashed_pulls_are_swept(tmp_path: Path) -> None:
    """An area with claims is kept, because the claims tell owned files from foreign files."""
    swept = leave_crashed_area(tmp_path, "a", "tree/a", "parts.jsonl")
    claimed = leave_crashed_area(tmp_path, "b", "ours.json")

    with lock_area(tmp_path, "c"):
        pass

    assert not swept.exists()
    assert (claimed / "ours.json").exists()


def test_area_in_another_staging_parent_is_swept(tmp_path: Path) -> None:
    """The staging parent depends on the destination's content, and may have changed since the crash."""
    parents = [tmp_path / "a", tmp_path / "b"]
    leftover = leave_crashed_area(parents[1], "m", "tree/a", "parts.jsonl", "ours.json")
    other = leave_crashed_area(parents[1], "n", "tree/a", "parts.jsonl")

    before = has_leftovers(parents, "m")
    with lock_staging_area(lambda: parents[0], "m", refuse_wait, parents):
        pass

    assert (before, has_leftovers(parents, "m")) == (True, False)
    assert not leftover.exists()
    assert other.exists()


def test_locked_area_in_another_staging_parent_is_kept(tmp_path: Path) -> None:
    """A held lock protects an area from the sweep."""
    parents = [tmp_path / "a", tmp_path / "b"]
    with lock_area(parents[1], "m") as locked:
        with lock_staging_area(lambda: parents[0], "m", refuse_wait, parents):
            pass
        assert locked.work_directory.exists()


def test_missing_or_unusable_parent_has_no_leftovers(tmp_path: Path) -> None:
    """A missing parent, or a file in place of a parent, holds no area to sweep."""
    (tmp_path / "b").touch()

    assert not has_leftovers([tmp_path / "a", tmp_path / "b"], "m")


def test_locked_area_of_another_pull_is_not_swept(tmp_path: Path) -> None:
    """A held lock protects an area under the same root."""
    with lock_area(tmp_path, "a") as locked:
        (locked.work_directory / "parts.jsonl").touch()
        with lock_area(tmp_path, "b"):
            pass
        assert (locked.work_directory / "parts.jsonl").exists()


def test_symlink_at_the_staging_root_is_refused(tmp_path: Path) -> None:
    """Nothing is written through the symlink."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / STAGING_ROOT).symlink_to("elsewhere")

    with pytest.raises(DestinationError, match="is a link"), lock_area(tmp_path, "m"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("below", ["file", "file/below"])
def test_staging_root_that_cannot_be_created_is_a_destination_error(tmp_path: Path, below: str) -> None:
    """A file in the path of the staging root exits 73."""
    (tmp_path / "file").touch()

    with pytest.raises(DestinationError), lock_area(tmp_path / below, "m"):
        pass


def test_unreadable_staging_parent_is_a_destination_error() -> None:
    """A directory that may not be listed exits 73."""

    def choose_parent() -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/secret")

    with pytest.raises(DestinationError, match="/secret"), lock_staging_area(choose_parent, "m", refuse_wait):
        pass


def record_files(staging: StagingArea, plan: str, *names: str) -> None:
    """Write and record files for a plan, and write another file without a record."""
    journal = staging.open_journal(plan)
    for name in (*names, "new"):
        (staging.tree / name).parent.mkdir(exist_ok=True, parents=True)
        (staging.tree / name).write_bytes(b"x")
    for name in names:
        journal.record_block(name, 0, 1)
    journal.close()


@pytest.mark.parametrize(
    ("plan", "left"), [("p", ["a", "d/b"]), ("q", []), ("", [])], ids=["the same", "another", "uncertain"]
)
def test_next_run_keeps_the_files_recorded_for_its_plan(tmp_path: Path, plan: str, left: list[str]) -> None:
    """Files of another plan or of an unidentified plan are removed, and so are files without a record."""
    with lock_area(tmp_path, "m") as staging:
        record_files(staging, "p", "a", "d/b")
        staging.claims.touch()

        staging.open_journal(plan).close()

        files = sorted(path.relative_to(staging.tree).as_posix() for path in staging.tree.rglob("*") if path.is_file())
        assert files == left
        assert staging.claims.exists()


def test_clear_removes_all_but_the_claims(tmp_path: Path) -> None:
    """A second attempt in the same area finds no directory of the first."""
    with lock_area(tmp_path, "m") as staging:
        record_files(staging, "p", "a")
        for directory in (staging.layer, staging.scratch, staging.replaced_files):
            directory.mkdir()
        staging.claims.touch()

        staging.clear()

        assert list(staging.work_directory.iterdir()) == [staging.claims]


def test_symlinks_in_a_leftover_tree_are_removed_and_not_followed(tmp_path: Path) -> None:
    """Another user of the volume may have created the symlinks."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with lock_area(tmp_path / "home", "m") as staging:
        record_files(staging, "p", "a")
        (staging.tree / "link").symlink_to(tmp_path / "precious")

        staging.open_journal("p").close()

        assert [path.name for path in staging.tree.iterdir()] == ["a"]
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.parametrize("name", ["", "tree", "parts.jsonl", "ours.json", "ours.new", "receipt.json", "scratch"])
def test_symlinks_in_a_leftover_staging_area_are_removed_and_not_followed(tmp_path: Path, name: str) -> None:
    """Nothing is written or removed at the target of a foreign symlink."""
    outside = tmp_path / "outside"
    (outside / "tree").mkdir(parents=True)
    (outside / "tree" / "precious").write_text("1")
    work = leave_crashed_area(tmp_path, "m", "old")
    shutil.rmtree(work)
    link = work / name if name else work
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if name in ("", "tree") else outside / "new")

    with lock_area(tmp_path, "m") as staging:
        record_files(staging, "p", "a")
        (staging.work_directory / "ours.new").write_text("[]")
        staging.clear()

    assert sorted(path.name for path in outside.rglob("*")) == ["precious", "tree"]


def test_staged_file_with_a_second_hard_link_is_not_resumed(tmp_path: Path) -> None:
    """The file is removed from the tree although the journal lists its name."""
    (tmp_path / "precious").write_text("1")
    with lock_area(tmp_path / "home", "m") as staging:
        record_files(staging, "p", "a")
        (staging.tree / "a").unlink()
        (staging.tree / "a").hardlink_to(tmp_path / "precious")

        staging.open_journal("p").close()

        assert list(staging.tree.iterdir()) == []
    assert (tmp_path / "precious").read_text() == "1"


@pytest.mark.parametrize("name", ["m", "other"], ids=["its own", "another's"])
def test_symlink_at_a_lock_files_path_is_removed_and_not_followed(tmp_path: Path, name: str) -> None:
    """A foreign symlink creates no file at its target."""
    work = leave_crashed_area(tmp_path, name, "parts.jsonl")
    lock = work.parent / f"{work.name}.lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "new")

    with lock_area(tmp_path, "m"):
        pass

    assert not (tmp_path / "new").exists()
    assert not (tmp_path / STAGING_ROOT).exists()


def test_staging_root_has_mode_0755_despite_the_umask(tmp_path: Path) -> None:
    """Other users could alter verified files in a writable area."""
    before = os.umask(0)
    try:
        with lock_area(tmp_path, "m") as staging:
            mode = staging.work_directory.parent.stat().st_mode & 0o777
    finally:
        os.umask(before)

    assert mode == 0o755


def test_directory_lock_excludes_a_second_publish(tmp_path: Path) -> None:
    """The second publish waits; a missing directory blocks nobody."""
    events: list[str] = []
    has_started = threading.Event()

    def publish_second() -> None:
        has_started.set()
        with lock_directory(tmp_path):
            events.append("second")

    thread = threading.Thread(target=publish_second)
    with lock_directory(tmp_path), lock_directory(tmp_path / "none"):
        thread.start()
        has_started.wait(30)
        events.append("first")
    thread.join(30)

    assert events == ["first", "second"]


def test_sweep_spares_the_area_of_a_pull_whose_lock_file_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sweep's open and flock, the lock file is removed by its holder and made again by a third pull."""
    open_lock_file = staging_module._open_lock_file
    with ExitStack() as pulls:
        pulls.enter_context(lock_area(tmp_path, "sweeper", refuse_wait))
        other = pulls.enter_context(ExitStack())
        first = pulls.enter_context(ExitStack())
        first.enter_context(lock_area(tmp_path, "other", refuse_wait))
        live: list[StagingArea] = []

        def open_and_replace(path: Path) -> int:
            fd = open_lock_file(path)
            monkeypatch.setattr(staging_module, "_open_lock_file", open_lock_file)
            first.close()
            live.append(other.enter_context(lock_area(tmp_path, "other", refuse_wait)))
            live[0].tree.mkdir()
            return fd

        monkeypatch.setattr(staging_module, "_open_lock_file", open_and_replace)
        staging_module._sweep_area(tmp_path / STAGING_ROOT, staging_module._make_area_id("other"))

        assert live[0].tree.is_dir()

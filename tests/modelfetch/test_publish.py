"""A staged model is put in place: whole, the receipt last; what we did not write stays."""

import errno
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelfetch import publish
from modelfetch import receipt as receipts
from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError
from modelfetch.publish import Destination
from modelfetch.receipt import FileEntry, Receipt
from modelfetch.stage import Stage, staging
from rigs import tree

Files = dict[str, bytes]


def receipt_of(files: Files, *, directory: bool = True) -> Receipt:
    """The receipt of these files."""
    listed = tuple(FileEntry(name, len(data), tree.sha256(data)) for name, data in sorted(files.items()))
    digest = receipts.digest(listed, directory=directory)
    now = receipts.now()
    return Receipt("s3://b/m", "v", digest, listed, ("size",), 0, 0, 0.0, 0, now, now)


@contextmanager
def staged(place: Destination, files: Files, folders: tuple[str, ...] = ()) -> Iterator[Stage]:
    """A stage that holds these files."""
    with staging(place.home, place.name, lambda: None) as stage:
        stage.clear()
        stage.tree.mkdir()
        tree.write(stage.tree, files)
        for folder in folders:
            (stage.tree / folder).mkdir(parents=True, exist_ok=True)
        yield stage


def put(dest: Path, files: Files, folders: tuple[str, ...] = ()) -> Receipt:
    """Publish a directory."""
    place = publish.locate(str(dest), "", directory=True, archive=False)
    with staged(place, files, folders) as stage:
        publish.publish(stage, place, receipt := receipt_of(files))
    return receipt


def put_file(dest: str, data: bytes, name: str = "m.bin") -> Path:
    """Publish a single file."""
    place = publish.locate(dest, name, directory=False, archive=False)
    files = {place.path.name: data}
    with staged(place, files) as stage:
        publish.publish(stage, place, receipt_of(files, directory=False))
    return place.path


def whole(dest: Path, files: Files, strangers: Files | None = None) -> None:
    """The directory holds these and nothing else, as its receipt says."""
    receipt = receipts.read(dest / tree.RECEIPT)
    assert tree.read(dest) == {**files, **(strangers or {})}
    assert [entry.path for entry in receipt.files] == sorted(files)
    assert receipts.intact(receipt, dest)
    assert not (dest / tree.STAGING).exists()
    assert not (dest.parent / tree.STAGING).exists()


OLD = {"a": b"old", "d/b": b"old", "gone/x": b"old", "f": b"was a file", "g/y/z": b"was a directory"}
NEW = {"a": b"new", "d/b": b"new", "d/c": b"new", "f/x": b"new", "g": b"is a file", "n/m/o": b"new"}
MINE = {"mine.txt": b"mine", "d/mine": b"mine"}


@pytest.mark.parametrize("mine", [{}, MINE], ids=["ours alone", "with strangers"])
def test_a_new_model_replaces_the_old_one_and_strangers_stay(tmp_path: Path, mine: Files) -> None:
    """Files become directories, directories files, and what the new model lacks goes."""
    dest = tmp_path / "m"
    put(dest, OLD)
    tree.write(dest, mine)
    inode = dest.stat().st_ino

    put(dest, NEW)

    whole(dest, NEW, mine)
    assert not (dest / "gone").exists()
    assert (dest.stat().st_ino == inode) == bool(mine)  # exchanged if it holds ours alone


def test_an_empty_folder_is_part_of_the_model(tmp_path: Path) -> None:
    """As in the bucket; twice too."""
    for _ in range(2):
        put(tmp_path / "m", {"a": b"1"}, ("logs/old",))

    assert (tmp_path / "m" / "logs" / "old").is_dir()


def test_a_directory_in_use_as_working_directory_is_not_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell in it sees the new model."""
    put(tmp_path / "m", OLD)
    monkeypatch.chdir(tmp_path / "m")

    put(tmp_path / "m", NEW)

    assert Path("g").read_bytes() == NEW["g"]


def snapshot(root: Path) -> dict[str, Any]:
    """All there is below a directory, links as such."""
    found = sorted(root.rglob("*"))
    return {
        path.relative_to(root).as_posix(): path.readlink()
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in found
    }


@pytest.mark.parametrize(
    ("stranger", "files", "folders"),
    [
        ("a", {"a": b"new"}, ()),
        ("d", {"d/b": b"new"}, ()),
        ("g/x", {"g": b"new"}, ()),
        ("e", {"a2": b"new"}, ("e",)),
        ("e", {"a2": b"new"}, ("e/f",)),
        ("->d", {"d/b": b"new"}, ()),
        ("->d", {"d/e/b": b"new"}, ()),
        ("->d", {"a2": b"new"}, ("d",)),
        ("->d", {"a2": b"new"}, ("d/e",)),
        ("->a", {"a": b"new"}, ()),
    ],
)
def test_a_stranger_in_the_way_is_left_there_and_so_is_the_old_model(
    tmp_path: Path, stranger: str, files: Files, folders: tuple[str, ...]
) -> None:
    """73; nothing is written through a link, not even an empty folder."""
    dest = tmp_path / "m"
    (tmp_path / "outside").mkdir()
    put(dest, {"old": b"old"})
    tree.write(dest, {"mine.txt": b"mine"})
    if stranger.startswith("->"):
        (dest / stranger[2:]).symlink_to(tmp_path / "outside")
    else:
        tree.write(dest, {stranger: b"mine"})
    before = snapshot(tmp_path)

    with pytest.raises(DestinationError) as caught:
        put(dest, files, folders)

    assert caught.value.code == 73
    assert snapshot(tmp_path) == before


def crash_at(step: int, dest: Path, files: Files) -> bool:
    """Publish in a process that dies at its n-th change of the disk; whether it did."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, _: tuple[Any, ...]) -> None:
            nonlocal left
            left -= event in (
                "os.link",
                "os.rename",
                "os.remove",
                "os.mkdir",
                "os.rmdir",
                "os.chmod",
                "ctypes.get_errno",
            )
            if left == 0:
                os._exit(9)

        try:
            sys.addaudithook(count)
            put(dest, files)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("mine", [{}, MINE], ids=["exchanged", "entry by entry"])
def test_a_crash_anywhere_leaves_a_whole_model_or_none_and_the_next_run_mends_it(tmp_path: Path, mine: Files) -> None:
    """Nothing of the old model is orphaned, nothing of a stranger's is lost."""
    base, step = tmp_path / "base", 0
    put(base / "m", OLD)
    tree.write(base / "m", mine)
    while True:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(base, root, copy_function=shutil.copy2, symlinks=True)
        died = crash_at(step, root / "m", NEW)

        there = publish.published(Destination(root / "m", directory=True))
        if there is not None:
            assert receipts.intact(there, root / "m")
        assert {name: (root / "m" / name).read_bytes() for name in mine} == mine
        put(root / "m", NEW)
        whole(root / "m", NEW, mine)
        if not died:
            break
    assert step > len(NEW)


def test_a_crash_anywhere_leaves_no_single_files_receipt_that_is_not_so(tmp_path: Path) -> None:
    """A directory that replaces a file which was pulled alone withdraws its receipt first."""
    base, step, died = tmp_path / "base", 0, True
    put_file(f"{base}/m/a", b"alone")
    put_file(f"{base}/m/d/b", b"alone")
    while died:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(base, root, copy_function=shutil.copy2)
        died = crash_at(step, root / "m", NEW)

        for path in root.rglob(f"*{tree.RECEIPT}"):
            assert receipts.intact(receipts.read(path), path.parent), f"at step {step}"
        put(root / "m", NEW)
        whole(root / "m", NEW)
        assert len(list(root.rglob(f"*{tree.RECEIPT}"))) == 1
    assert step > len(NEW)


def cut_short(dest: Path, moved: Files, left: Files, plan: str = "plan") -> Stage:
    """What a crash leaves that came between the moves of two files."""
    tree.write(dest, moved)
    stage = Stage(dest / tree.STAGING / "id")
    stage.tree.mkdir(parents=True)
    tree.write(stage.tree, left)
    lines = [json.dumps(line) for line in ({"plan": plan}, *([name, 0, 0] for name in {**moved, **left}))]
    (stage.work / "parts.jsonl").write_text("\n".join(lines))
    stage.intent.write_text(json.dumps(sorted({**moved, **left, "old": b""})))
    return stage


def test_what_was_moved_before_a_crash_is_taken_back(tmp_path: Path) -> None:
    """It need not be fetched again; what is not of this pull stays."""
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {"a": b"1", "d/b": b"2"}, {"c": b"3"})
    others = tree.write(dest.path, {"old": b"ours", "mine": b"a stranger's", "c": b"not replaced yet"})

    publish.take_back(stage, dest, "plan")

    assert tree.read(stage.tree) == {"a": b"1", "d/b": b"2", "c": b"3"}
    assert sorted(path.name for path in others.iterdir() if path.is_file()) == ["c", "mine", "old"]


@pytest.mark.parametrize("plan", ["another plan", ""])
def test_of_another_plan_nothing_is_taken_back(tmp_path: Path, plan: str) -> None:
    """It is of no use, and it is ours to remove when the time comes."""
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {"a": b"1"}, {}, "plan")

    publish.take_back(stage, dest, plan)

    assert (dest.path / "a").exists()


def test_a_published_model_is_not_taken_back(tmp_path: Path) -> None:
    """The crash came before the first move, or after the last."""
    put(tmp_path / "m", {"a": b"1"})
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {}, {"a": b"2"})

    publish.take_back(stage, dest, "plan")

    assert (dest.path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("hostile", ["../outside", "link/file", "link", "folder"])
def test_nothing_is_taken_back_through_a_link_or_from_outside(tmp_path: Path, hostile: str) -> None:
    """The lists are on a volume, where anyone may have written them."""
    (outside := tmp_path / "outside").write_text("0")
    dest = Destination(tmp_path / "m", directory=True)
    tree.write(tmp_path, {"elsewhere/file": b"0", "m/folder/file": b"0"})
    (dest.path / "link").symlink_to(tmp_path / "elsewhere")
    stage = cut_short(dest.path, {}, {})
    (stage.work / "parts.jsonl").write_text(f'{{"plan": "plan"}}\n{json.dumps([hostile, 0, 0])}\n')
    stage.intent.write_text(json.dumps([hostile]))

    publish.take_back(stage, dest, "plan")

    assert outside.exists()
    assert (tmp_path / "elsewhere" / "file").exists()
    assert (dest.path / "folder" / "file").exists()


@pytest.mark.parametrize("text", ["", "7", "[7, [], null]", '{"a": 1}'])
def test_a_list_that_is_none_takes_nothing_back(tmp_path: Path, text: str) -> None:
    """A crash may have cut it short, or anyone have written it."""
    dest = Destination(tmp_path / "m", directory=True)
    stage = cut_short(dest.path, {"a": b"1"}, {})
    stage.intent.write_text(text)

    publish.take_back(stage, dest, "plan")

    assert (dest.path / "a").exists()


def test_a_list_of_a_pull_that_was_done_is_not_believed(tmp_path: Path) -> None:
    """It crashed after its receipt: a file that is there since then under an old name is a stranger's."""
    dest = tmp_path / "m"
    put(dest, {"a": b"1"})
    tree.write(dest, {"old": b"mine"})
    place = publish.locate(str(dest), "", directory=True, archive=False)
    with staged(place, {"a": b"2"}) as stage:
        stage.intent.write_text(json.dumps(["a", "old"]))
        publish.publish(stage, place, receipt_of({"a": b"2"}))

    whole(dest, {"a": b"2"}, {"old": b"mine"})


@pytest.mark.parametrize("hostile", ["../precious", "d/../../precious", "/precious", "link/file", "a/../../precious"])
def test_an_old_receipt_removes_nothing_outside(tmp_path: Path, hostile: str) -> None:
    """Whoever wrote it."""
    dest = tmp_path / "m"
    tree.write(tmp_path, {"precious": b"1", "elsewhere/file": b"2"})
    tree.write(dest, {"mine.txt": b"mine", "a": b"1"})
    (dest / "link").symlink_to(tmp_path / "elsewhere")
    old = receipt_of({"a": b"1", hostile: b"x"})
    (dest / tree.RECEIPT).write_text(old.to_json())

    put(dest, {"b": b"2"})

    assert (tmp_path / "precious").read_bytes() == b"1"
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"2"
    assert tree.read(dest) == {"mine.txt": b"mine", "b": b"2", "link/file": b"2"} or (dest / "link").is_symlink()
    assert not (dest / "a").exists()


@pytest.mark.parametrize("mine", [{}, {"mine.txt": b"1"}], ids=["exchanged", "entry by entry"])
def test_modes_and_times_are_the_same_whatever_the_umask(tmp_path: Path, mine: Files) -> None:
    """0644 and 0755; an executable stays one, and gets no other bits."""
    dest = tree.write(tmp_path / "m", mine) if mine else tmp_path / "m"
    files = {"a": b"1", "d/run.sh": b"2"}
    before = os.umask(0o077)
    try:
        place = publish.locate(str(dest), "", directory=True, archive=False)
        with staged(place, files) as stage:
            (stage.tree / "d" / "run.sh").chmod(0o4700)
            publish.publish(stage, place, receipt := receipt_of(files))
    finally:
        os.umask(before)

    modes = {name: stat.S_IMODE((dest / name).stat().st_mode) for name in ("a", "d", "d/run.sh", tree.RECEIPT)}
    assert modes == {"a": 0o644, "d": 0o755, "d/run.sh": 0o755, tree.RECEIPT: 0o644}
    assert {(dest / name).stat().st_mtime for name in files} == {receipt.finished.timestamp()}


@pytest.mark.parametrize("mine", [{}, {"mine.txt": b"1"}], ids=["exchanged", "entry by entry"])
def test_the_longest_names_can_be_published_twice(tmp_path: Path, mine: Files) -> None:
    """255 bytes, although a receipt of their own would not fit beside them."""
    dest = tmp_path / "m"
    files = {"n" * 255: b"1", "d" * 255 + "/" + "ü" * 127: b"2"}
    put(dest, files)
    tree.write(dest, mine)

    put(dest, files)

    whole(dest, files, mine)


def test_many_files_are_flushed_at_once(tmp_path: Path) -> None:
    """By another call, with the same result."""
    files = {f"{n:03}": b"x" for n in range(40)}
    put(tmp_path / "m", files)

    whole(tmp_path / "m", files)


def test_single_files_share_a_directory(tmp_path: Path) -> None:
    """Each with its receipt; a stranger's is not replaced."""
    tree.write(tmp_path, {"mine": b"0"})
    for data in (b"1", b"2"):
        put_file(f"{tmp_path}/", data, "a")
        put_file(f"{tmp_path}/b", data)
    with pytest.raises(DestinationError, match="in the way"):
        put_file(f"{tmp_path}/mine", b"3")

    assert tree.read(tmp_path) == {"mine": b"0", "a": b"2", "b": b"2"}
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.modelfetch.json", "b.modelfetch.json"]


def test_a_directory_takes_over_the_single_files_of_earlier_pulls(tmp_path: Path) -> None:
    """Their receipts would be of what is no longer there."""
    put_file(f"{tmp_path}/a", b"1")
    tree.write(tmp_path, {"mine": b"0"})

    put(tmp_path, {"a": b"2"})

    assert sorted(path.name for path in tmp_path.iterdir()) == [".modelfetch.json", "a", "mine"]


def place(dest: str, *, directory: bool = False, archive: bool = False, name: str = "m.bin") -> Destination:
    """Where a model goes."""
    return publish.locate(dest, name, directory=directory, archive=archive)


def test_a_model_goes_where_cp_would_put_it(tmp_path: Path) -> None:
    """A file into a directory or to a name; an archive's content into the directory, or beside its name."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    at = str(tmp_path)

    assert place(f"{at}/dir").path == tmp_path / "dir" / "m.bin"
    assert place(f"{at}/link").path == tmp_path / "dir" / "m.bin"
    assert place(f"{at}/new/").path == tmp_path / "new" / "m.bin"
    assert place(f"{at}/new/x").path == tmp_path / "new" / "x"
    assert place(f"{at}/new", directory=True) == Destination(tmp_path / "new", directory=True)
    assert place(f"{at}/new", archive=True) == Destination(tmp_path / "new", directory=True)
    assert place(f"{at}/new/m.tar.gz", archive=True) == Destination(tmp_path / "new", directory=True)
    assert place(f"{at}/new/m.tar.gz/", archive=True) == Destination(tmp_path / "new" / "m.tar.gz", directory=True)


def test_a_destination_may_be_in_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~` of nobody's is a name like any other."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert place("~/m").path == tmp_path / "m"
    assert place("~nobody-of-this-name/m").path == tmp_path / "~nobody-of-this-name" / "m"


@pytest.mark.parametrize(
    ("dest", "options", "error", "said"),
    [
        ("file", {"directory": True}, DestinationError, "file where a directory"),
        ("file", {"archive": True}, DestinationError, "file where a directory"),
        ("file/", {}, DestinationError, "file where a directory"),
        ("dir/", {"name": "sub"}, DestinationError, "directory where a file"),
        ("n" * 239, {}, None, ""),
        ("n" * 240, {}, UnsafeNameError, "receipt"),
        ("n" * 256, {}, UnsafeNameError, "too long"),
        ("n" * 256, {"directory": True}, UnsafeNameError, "too long"),
        ("m\udcff", {}, UnsafeNameError, "UTF-8"),
        ("dir/", {"name": ".modelfetch.json"}, UnsafeNameError, "one of modelfetch's own"),
        ("dir/", {"name": ".modelfetch"}, UnsafeNameError, "one of modelfetch's own"),
        ("m.bin.modelfetch.json", {}, UnsafeNameError, "one of modelfetch's own"),
        (".modelfetch", {"directory": True}, UnsafeNameError, "one of modelfetch's own"),
        (".modelfetch/", {"archive": True}, UnsafeNameError, "one of modelfetch's own"),
    ],
)
def test_a_destination_that_cannot_be_is_refused(
    tmp_path: Path, dest: str, options: Any, error: type[ModelfetchError] | None, said: str
) -> None:
    """Before anything is fetched."""
    (tmp_path / "file").touch()
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    if error is None:
        assert place(f"{tmp_path}/{dest}", **options).path.name == dest
        return

    with pytest.raises(error, match=said):
        place(f"{tmp_path}/{dest}", **options)


@pytest.mark.parametrize("mine", [{}, MINE], ids=["exchanged", "entry by entry"])
def test_a_flush_that_fails_at_the_very_end_brings_the_old_model_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Files
) -> None:
    """Nothing is published that may not be on the disk."""
    dest = tmp_path / "m"
    put(dest, OLD)
    tree.write(dest, mine)
    before = snapshot(tmp_path)

    def fail(path: Path) -> None:
        new = dest / tree.RECEIPT
        if path in (dest, dest.parent) and new.exists() and receipts.read(new).files == receipt_of(NEW).files:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(publish, "fsync", fail)
    with pytest.raises(DestinationError, match="Input/output error"):
        put(dest, NEW)

    assert snapshot(tmp_path) == before


def test_a_directory_that_cannot_be_exchanged_is_changed_entry_by_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an image's layer, say."""

    def fail(one: Path, other: Path) -> bool:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(other))

    dest = tmp_path / "m"
    put(dest, OLD)
    inode = dest.stat().st_ino
    monkeypatch.setattr(publish, "_rename_exchange", fail)

    put(dest, NEW)

    whole(dest, NEW)
    assert dest.stat().st_ino == inode


def test_what_another_pull_put_there_meanwhile_is_not_exchanged_away(tmp_path: Path) -> None:
    """A file that was pulled into the directory while the new one was on its way."""
    dest = tmp_path / "m"
    put(dest, {"a": b"old"})
    place = publish.locate(str(dest), "", directory=True, archive=False)
    with staged(place, {"a": b"new"}) as stage:
        put_file(f"{dest}/", b"alone", "b")
        publish.publish(stage, place, receipt_of({"a": b"new"}))

    assert tree.read(dest) == {"a": b"new", "b": b"alone"}
    assert receipts.intact(receipts.read(dest / f"b{tree.RECEIPT}"), dest)


def test_a_directory_that_cannot_be_looked_into_is_a_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not moved away with ours."""
    dest = tmp_path / "m"
    put(dest, {"d/b": b"old"})
    (dest / "d" / "private").mkdir()
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if str(path).endswith("private"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    put(dest, {"d/b": b"new"})

    assert (dest / "d" / "private").is_dir()
    assert (dest / "d" / "b").read_bytes() == b"new"


def test_a_directory_in_place_of_the_receipt_is_left_there(tmp_path: Path) -> None:
    """It is a stranger's, with all that is in it."""
    dest = tree.write(tmp_path / "m", {f"{tree.RECEIPT}/mine": b"mine"})

    with pytest.raises(DestinationError, match="receipt"):
        put(dest, NEW)

    assert (dest / tree.RECEIPT / "mine").read_bytes() == b"mine"

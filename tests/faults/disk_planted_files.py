"""What whoever may write to the volume may have planted there: nothing outside is written or removed."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modelfetch import uri
from modelfetch.inspection import inspect_source
from modelfetch.pull.pull import PullOptions
from modelfetch.sources import Access
from modelfetch.volume import staging as stage
from testkit import tree
from tests.faults import destination_check
from tests.faults.disk_trial import DiskCase, TrialVolume

HUGE_BYTES = 2 << 30  # bytes of a sparse file
OUTSIDE_PATHS = ("../outside/precious", "m/../../outside/precious", "/precious", "more/../../../outside/precious")
WITH_OLD_MODEL = ("file", "mixed directory")
WITHOUT_OLD_MODEL = ("new file", "new directory")


def make_work_directory(place: TrialVolume) -> Path:
    """The directory in which this destination's files are staged."""
    path = place.staging_area / stage._ident("m")
    path.mkdir(parents=True)
    return path


def write_journal(place: TrialVolume, files: Iterable[str]) -> Path:
    """A staging area with a journal that a pull of this very model would go on with; it says these files have come."""
    place.lay_out()
    work = make_work_directory(place)
    plan = inspect_source(uri.parse_uri(place.prepared.uri), Access(), PullOptions()).plan.resume_key
    lines: list[object] = [{"plan": plan}, *([file, 0, 0] for file in files)]
    (work / "parts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return work


def plant_entry(path: Path, kind: str, outside: Path) -> None:
    """Put something where a file or a directory is expected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "link":
            path.symlink_to(outside)
        case "link to a file":
            path.symlink_to(outside / "precious")
        case "dangling link":
            path.symlink_to(outside / "new")
        case "second name":
            os.link(outside / "precious", path)
        case "FIFO":
            os.mkfifo(path)
        case "directory":
            tree.write(path, {"sub/file": b"theirs"})
        case "huge":
            with path.open("wb") as file:
                file.truncate(HUGE_BYTES)
        case _:
            path.write_bytes(kind.encode())


def remove_planted(path: Path) -> None:
    """Remove what was planted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_staging_area(kind: str, place: TrialVolume) -> None:
    """Let the staging area itself be something else."""
    place.lay_out()
    plant_entry(place.staging_area, kind, place.outside)
    place.heal = partial(remove_planted, place.staging_area)


def replace_work_directory(kind: str, place: TrialVolume) -> None:
    """Let this destination's part of it be something else."""
    place.lay_out()
    place.staging_area.mkdir()
    plant_entry(place.staging_area / stage._ident("m"), kind, place.outside)


def replace_staged_entry(name: str, kind: str, place: TrialVolume) -> None:
    """Let something in it be something else."""
    place.lay_out()
    plant_entry(make_work_directory(place) / name, kind, place.outside)


def replace_lock(kind: str, place: TrialVolume) -> None:
    """Let the lock be something else."""
    place.lay_out()
    place.staging_area.mkdir()
    lock = place.staging_area / f"{stage._ident('m')}.lock"
    plant_entry(lock, kind, place.outside)
    place.heal = partial(remove_planted, lock)


def link_neighbour_lock(place: TrialVolume) -> None:
    """Let the lock of another destination be a link to a name outside that is free."""
    place.lay_out()
    (place.staging_area / "0123456789abcdef").mkdir(parents=True)
    (place.staging_area / "0123456789abcdef.lock").symlink_to(place.outside / "new")


def hard_link_staged_files(place: TrialVolume) -> None:
    """Let the staged files be other names of a file outside."""
    files = place.prepared.scenario.new.files
    here = write_journal(place, files)
    for path in files:
        plant_entry(here / "tree" / path, "second name", place.outside)


def link_staged_tree(place: TrialVolume) -> None:
    """Let the staged tree be a link."""
    here = write_journal(place, ["precious", *place.prepared.scenario.new.files])
    plant_entry(here / "tree", "link", place.outside)


def link_staged_directories(place: TrialVolume) -> None:
    """Let directories of the staged tree be links, of which the journal tells as of files."""
    here = write_journal(place, ["m", "new", "weights"])
    for name in ("m", "new", "weights"):
        plant_entry(here / "tree" / name, "link", place.outside)


def list_outside_files(place: TrialVolume) -> None:
    """Let the list of what a crashed pull moved name files outside; there is no receipt that speaks against it."""
    place.path.mkdir()
    (make_work_directory(place) / "ours.json").write_text(json.dumps(OUTSIDE_PATHS))


def replace_receipt(kind: str, place: TrialVolume) -> None:
    """Let something else be where the receipt must go."""
    place.lay_out()
    plant_entry(locate_receipt(place, place.path), kind, place.outside)


def replace_receipt_by_directory(place: TrialVolume) -> None:
    """Let it be a directory, with files of somebody else's."""
    before = place.prepared
    place.replace_template(lambda template: plant_entry(locate_receipt(place, template), "directory", place.outside))

    def heal() -> None:
        place.prepared = before
        remove_planted(locate_receipt(place, place.path))

    place.heal = heal


def locate_receipt(place: TrialVolume, volume: Path) -> Path:
    """Where a volume's receipt must go."""
    return volume / f"m{tree.RECEIPT}" if place.prepared.scenario.kind == "file" else volume / "m" / tree.RECEIPT


def edit_receipt(change: Callable[[dict[str, Any]], object], place: TrialVolume) -> None:
    """Change what the receipt says."""
    place.lay_out()
    (receipt,) = place.path.rglob(f"*{tree.RECEIPT}")
    content = json.loads(receipt.read_text())
    change(content)
    receipt.write_text(json.dumps(content))


def claim_outside_files(content: dict[str, Any]) -> None:
    """Let it list files outside as ours."""
    content["files"] += [{"path": path, "size": 18, "sha256": "0" * 64} for path in OUTSIDE_PATHS]


def claim_new_version(files: Sequence[int], place: TrialVolume) -> None:
    """Let a receipt claim the version that is to be pulled, for some of the old files, or none."""
    plan = inspect_source(uri.parse_uri(place.prepared.uri), Access(), PullOptions()).plan

    def claim(said: dict[str, Any]) -> None:
        said["source"], said["version"] = str(plan.uri), plan.version
        said["files"] = [said["files"][number] for number in files]

    edit_receipt(claim, place)
    _, place.known_flaws = destination_check.check_destination(place.prepared, place.path)
    place.heal = partial(_empty_directory, place.path)


def _empty_directory(volume: Path) -> None:
    shutil.rmtree(volume)
    volume.mkdir()


def _harmless_case(fault: str, arrange: Callable[[TrialVolume], object], *names: str) -> DiskCase:
    """One that the pull is not disturbed by."""
    return DiskCase(fault, arrange, (0,), names or WITH_OLD_MODEL)


AREA_KINDS = ("link", "link to a file", "dangling link", "FIFO", "text")
WORK_KINDS = ("link", "link to a file", "dangling link", "FIFO", "text", "second name")
STAGED_NAMES = ("parts.jsonl", "ours.json", "ours.new", "receipt.json", "tree", "scratch", "aside", "archive", "other")
RECEIPT_KINDS = (
    "link to a file",
    "dangling link",
    "second name",
    "FIFO",
    "huge",
    "text",
    '{"schema": 2}',
    "[" * 100_000,
)
CASES = [
    *(
        DiskCase(
            "something in place of the staging area",
            partial(replace_staging_area, what),
            scenarios=WITH_OLD_MODEL,
            message_words=("Remove it",),
        )
        for what in AREA_KINDS
    ),
    *(
        _harmless_case("something in place of the staged model", partial(replace_work_directory, what))
        for what in WORK_KINDS
    ),
    *(
        _harmless_case("something in the staging area", partial(replace_staged_entry, name, what))
        for what in (*WORK_KINDS, "huge")
        for name in STAGED_NAMES
    ),
    _harmless_case("directories in the staging area", partial(replace_staged_entry, "old", "directory")),
    *(_harmless_case("a link in place of the lock", partial(replace_lock, what)) for what in ("link", "dangling link")),
    DiskCase(
        "a directory in place of the lock",
        partial(replace_lock, "directory"),
        scenarios=WITH_OLD_MODEL,
        message_words=("directory",),
    ),
    _harmless_case("a FIFO in place of the lock", partial(replace_lock, "FIFO")),
    _harmless_case("a link in place of another's lock", link_neighbour_lock),
    _harmless_case("staged files that are names of others", hard_link_staged_files, "directory", "file", "tar.gz"),
    _harmless_case("a staged tree that is a link", link_staged_tree, "directory", "file", "tar.gz"),
    _harmless_case("staged directories that are links", link_staged_directories, "directory", "file", "tar.gz"),
    _harmless_case("a list of our files that leads outside", list_outside_files, *WITHOUT_OLD_MODEL),
    *(
        _harmless_case("something in place of the receipt", partial(replace_receipt, what), *WITHOUT_OLD_MODEL)
        for what in RECEIPT_KINDS
    ),
    DiskCase(
        "a directory in place of the receipt",
        replace_receipt_by_directory,
        scenarios=WITHOUT_OLD_MODEL,
        message_words=("receipt",),
    ),
    _harmless_case(
        "a receipt that leads outside",
        partial(edit_receipt, claim_outside_files),
        "mixed directory",
        "directory",
        "file",
    ),
    DiskCase(
        "a receipt that claims too much", partial(claim_new_version, []), (0, 73), ("directory", "file", "tar.gz")
    ),
    DiskCase("a receipt that claims too much", partial(claim_new_version, [0]), (0, 73), ("directory", "tar.gz")),
]

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

HUGE = 2 << 30  # bytes of a sparse file
EVIL = ("../outside/precious", "m/../../outside/precious", "/precious", "more/../../../outside/precious")
BOTH = ("file", "mixed directory")
NEW = ("new file", "new directory")


def work(place: TrialVolume) -> Path:
    """The directory in which this destination's files are staged."""
    path = place.staging_area / stage._ident("m")
    path.mkdir(parents=True)
    return path


def journal(place: TrialVolume, files: Iterable[str]) -> Path:
    """A staging area with a journal that a pull of this very model would go on with; it says these files have come."""
    place.lay_out()
    here = work(place)
    plan = inspect_source(uri.parse_uri(place.prepared.uri), Access(), PullOptions()).plan.resume_key
    lines: list[object] = [{"plan": plan}, *([file, 0, 0] for file in files)]
    (here / "parts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return here


def plant(at: Path, what: str, outside: Path) -> None:
    """Put something where a file or a directory is expected."""
    at.parent.mkdir(parents=True, exist_ok=True)
    match what:
        case "link":
            at.symlink_to(outside)
        case "link to a file":
            at.symlink_to(outside / "precious")
        case "dangling link":
            at.symlink_to(outside / "new")
        case "second name":
            os.link(outside / "precious", at)
        case "FIFO":
            os.mkfifo(at)
        case "directory":
            tree.write(at, {"sub/file": b"theirs"})
        case "huge":
            with at.open("wb") as file:
                file.truncate(HUGE)
        case _:
            at.write_bytes(what.encode())


def away(path: Path) -> None:
    """Remove what was planted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def area_is(what: str, place: TrialVolume) -> None:
    """Let the staging area itself be something else."""
    place.lay_out()
    plant(place.staging_area, what, place.outside)
    place.heal = partial(away, place.staging_area)


def work_is(what: str, place: TrialVolume) -> None:
    """Let this destination's part of it be something else."""
    place.lay_out()
    place.staging_area.mkdir()
    plant(place.staging_area / stage._ident("m"), what, place.outside)


def part_is(name: str, what: str, place: TrialVolume) -> None:
    """Let something in it be something else."""
    place.lay_out()
    plant(work(place) / name, what, place.outside)


def lock_is(what: str, place: TrialVolume) -> None:
    """Let the lock be something else."""
    place.lay_out()
    place.staging_area.mkdir()
    lock = place.staging_area / f"{stage._ident('m')}.lock"
    plant(lock, what, place.outside)
    place.heal = partial(away, lock)


def neighbours_lock_is_a_link(place: TrialVolume) -> None:
    """Let the lock of another destination be a link to a name outside that is free."""
    place.lay_out()
    (place.staging_area / "0123456789abcdef").mkdir(parents=True)
    (place.staging_area / "0123456789abcdef.lock").symlink_to(place.outside / "new")


def files_lead_out(place: TrialVolume) -> None:
    """Let the staged files be other names of a file outside."""
    files = place.prepared.scenario.new.files
    here = journal(place, files)
    for path in files:
        plant(here / "tree" / path, "second name", place.outside)


def tree_leads_out(place: TrialVolume) -> None:
    """Let the staged tree be a link."""
    here = journal(place, ["precious", *place.prepared.scenario.new.files])
    plant(here / "tree", "link", place.outside)


def folders_lead_out(place: TrialVolume) -> None:
    """Let directories of the staged tree be links, of which the journal tells as of files."""
    here = journal(place, ["m", "new", "weights"])
    for name in ("m", "new", "weights"):
        plant(here / "tree" / name, "link", place.outside)


def list_leads_out(place: TrialVolume) -> None:
    """Let the list of what a crashed pull moved name files outside; there is no receipt that speaks against it."""
    place.volume.mkdir()
    (work(place) / "ours.json").write_text(json.dumps(EVIL))


def receipt_is(what: str, place: TrialVolume) -> None:
    """Let something else be where the receipt must go."""
    place.lay_out()
    plant(receipt_of(place, place.volume), what, place.outside)


def receipt_is_a_directory(place: TrialVolume) -> None:
    """Let it be a directory, with files of somebody else's."""
    before = place.prepared
    place.replace_template(lambda template: plant(receipt_of(place, template), "directory", place.outside))

    def heal() -> None:
        place.prepared = before
        away(receipt_of(place, place.volume))

    place.heal = heal


def receipt_of(place: TrialVolume, volume: Path) -> Path:
    """Where a volume's receipt must go."""
    return volume / f"m{tree.RECEIPT}" if place.prepared.scenario.kind == "file" else volume / "m" / tree.RECEIPT


def receipt_says(change: Callable[[dict[str, Any]], object], place: TrialVolume) -> None:
    """Change what the receipt says."""
    place.lay_out()
    (receipt,) = place.volume.rglob(f"*{tree.RECEIPT}")
    said = json.loads(receipt.read_text())
    change(said)
    receipt.write_text(json.dumps(said))


def more_files(said: dict[str, Any]) -> None:
    """Let it list files outside as ours."""
    said["files"] += [{"path": path, "size": 18, "sha256": "0" * 64} for path in EVIL]


def claims(files: Sequence[int], place: TrialVolume) -> None:
    """Let a receipt claim the version that is to be pulled, for some of the old files, or none."""
    seen = inspect_source(uri.parse_uri(place.prepared.uri), Access(), PullOptions()).plan

    def claim(said: dict[str, Any]) -> None:
        said["source"], said["version"] = str(seen.uri), seen.version
        said["files"] = [said["files"][number] for number in files]

    receipt_says(claim, place)
    _, place.known_flaws = destination_check.check_destination(place.prepared, place.volume)
    place.heal = partial(_empty, place.volume)


def _empty(volume: Path) -> None:
    shutil.rmtree(volume)
    volume.mkdir()


def _planted(fault: str, arrange: Callable[[TrialVolume], object], *names: str) -> DiskCase:
    """One that the pull is not disturbed by."""
    return DiskCase(fault, arrange, (0,), names or BOTH)


AREA = ("link", "link to a file", "dangling link", "FIFO", "text")
WORK = ("link", "link to a file", "dangling link", "FIFO", "text", "second name")
PARTS = ("parts.jsonl", "ours.json", "ours.new", "receipt.json", "tree", "scratch", "aside", "archive", "other")
RECEIPTS = ("link to a file", "dangling link", "second name", "FIFO", "huge", "text", '{"schema": 2}', "[" * 100_000)
CASES = [
    *(
        DiskCase(
            "something in place of the staging area",
            partial(area_is, what),
            scenarios=BOTH,
            message_words=("Remove it",),
        )
        for what in AREA
    ),
    *(_planted("something in place of the staged model", partial(work_is, what)) for what in WORK),
    *(
        _planted("something in the staging area", partial(part_is, name, what))
        for what in (*WORK, "huge")
        for name in PARTS
    ),
    _planted("directories in the staging area", partial(part_is, "old", "directory")),
    *(_planted("a link in place of the lock", partial(lock_is, what)) for what in ("link", "dangling link")),
    DiskCase(
        "a directory in place of the lock", partial(lock_is, "directory"), scenarios=BOTH, message_words=("directory",)
    ),
    _planted("a FIFO in place of the lock", partial(lock_is, "FIFO")),
    _planted("a link in place of another's lock", neighbours_lock_is_a_link),
    _planted("staged files that are names of others", files_lead_out, "directory", "file", "tar.gz"),
    _planted("a staged tree that is a link", tree_leads_out, "directory", "file", "tar.gz"),
    _planted("staged directories that are links", folders_lead_out, "directory", "file", "tar.gz"),
    _planted("a list of our files that leads outside", list_leads_out, *NEW),
    *(_planted("something in place of the receipt", partial(receipt_is, what), *NEW) for what in RECEIPTS),
    DiskCase(
        "a directory in place of the receipt",
        receipt_is_a_directory,
        scenarios=NEW,
        message_words=("receipt",),
    ),
    _planted("a receipt that leads outside", partial(receipt_says, more_files), "mixed directory", "directory", "file"),
    DiskCase("a receipt that claims too much", partial(claims, []), (0, 73), ("directory", "file", "tar.gz")),
    DiskCase("a receipt that claims too much", partial(claims, [0]), (0, 73), ("directory", "tar.gz")),
]

"""Entries planted on a volume by anybody with write access: no file outside is written or removed."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modelfetch.inspection import inspect_source
from modelfetch.pull.options import PullOptions
from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.volume import staging as stage
from testkit.file_tree import RECEIPT_NAME, write_files
from tests.faults import destination_check
from tests.faults.disk_trial import DiskCase, TrialVolume

HUGE_BYTES = 2 << 30  # bytes of a sparse file
OUTSIDE_PATHS = ("../outside/precious", "m/../../outside/precious", "/precious", "more/../../../outside/precious")
WITH_OLD_MODEL = ("file", "mixed directory")
WITHOUT_OLD_MODEL = ("new file", "new directory")


def make_work_directory(trial: TrialVolume) -> Path:
    """Make the directory in which this destination's files are staged, and return its path."""
    path = trial.staging_area / stage._make_area_id("m")
    path.mkdir(parents=True)
    return path


def write_journal(trial: TrialVolume, files: Iterable[str]) -> Path:
    """Make a staging area with a resume journal of this very model, in which `files` are complete."""
    trial.lay_out()
    work = make_work_directory(trial)
    plan = inspect_source(parse_uri(trial.prepared.uri), SourceOptions(), PullOptions()).plan.resume_key
    lines: list[object] = [{"plan": plan}, *([file, 0, 0] for file in files)]
    (work / "parts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return work


def plant_entry(path: Path, kind: str, outside: Path) -> None:
    """Put a link, FIFO, directory or file where `modelfetch` expects an entry of its own."""
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
            write_files(path, {"sub/file": b"theirs"})
        case "huge":
            with path.open("wb") as file:
                file.truncate(HUGE_BYTES)
        case _:
            path.write_bytes(kind.encode())


def remove_planted(path: Path) -> None:
    """Remove a planted entry of any kind."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_staging_area(kind: str, trial: TrialVolume) -> None:
    """Replace the staging area itself by an entry of another kind."""
    trial.lay_out()
    plant_entry(trial.staging_area, kind, trial.outside)
    trial.heal = partial(remove_planted, trial.staging_area)


def replace_work_directory(kind: str, trial: TrialVolume) -> None:
    """Replace this destination's directory in the staging area."""
    trial.lay_out()
    trial.staging_area.mkdir()
    plant_entry(trial.staging_area / stage._make_area_id("m"), kind, trial.outside)


def replace_staged_entry(name: str, kind: str, trial: TrialVolume) -> None:
    """Replace an entry of this destination's staged files."""
    trial.lay_out()
    plant_entry(make_work_directory(trial) / name, kind, trial.outside)


def replace_lock(kind: str, trial: TrialVolume) -> None:
    """Replace the staging lock by an entry of another kind."""
    trial.lay_out()
    trial.staging_area.mkdir()
    lock = trial.staging_area / f"{stage._make_area_id('m')}.lock"
    plant_entry(lock, kind, trial.outside)
    trial.heal = partial(remove_planted, lock)


def link_neighbour_lock(trial: TrialVolume) -> None:
    """Make the lock of another destination a symlink to a free name outside."""
    trial.lay_out()
    (trial.staging_area / "0123456789abcdef").mkdir(parents=True)
    (trial.staging_area / "0123456789abcdef.lock").symlink_to(trial.outside / "new")


def hard_link_staged_files(trial: TrialVolume) -> None:
    """Make the staged files hard links of a file outside."""
    files = trial.prepared.scenario.new.files
    here = write_journal(trial, files)
    for path in files:
        plant_entry(here / "tree" / path, "second name", trial.outside)


def link_staged_tree(trial: TrialVolume) -> None:
    """Make the staged tree a symlink to a directory outside."""
    here = write_journal(trial, ["precious", *trial.prepared.scenario.new.files])
    plant_entry(here / "tree", "link", trial.outside)


def link_staged_directories(trial: TrialVolume) -> None:
    """Make directories of the staged tree symlinks, listed as files by the journal."""
    here = write_journal(trial, ["m", "new", "weights"])
    for name in ("m", "new", "weights"):
        plant_entry(here / "tree" / name, "link", trial.outside)


def list_outside_files(trial: TrialVolume) -> None:
    """List files outside in the owned paths of a crashed publish; no receipt contradicts the list."""
    trial.path.mkdir()
    (make_work_directory(trial) / "ours.json").write_text(json.dumps(OUTSIDE_PATHS))


def replace_receipt(kind: str, trial: TrialVolume) -> None:
    """Put an entry of another kind at the receipt's path."""
    trial.lay_out()
    plant_entry(locate_receipt(trial, trial.path), kind, trial.outside)


def replace_receipt_by_foreign(kind: str, trial: TrialVolume) -> None:
    """Put a foreign entry at the receipt's path, which must stay."""
    before = trial.prepared
    trial.replace_template(lambda template: plant_entry(locate_receipt(trial, template), kind, trial.outside))

    def heal() -> None:
        trial.prepared = before
        remove_planted(locate_receipt(trial, trial.path))

    trial.heal = heal


def locate_receipt(trial: TrialVolume, volume: Path) -> Path:
    """Return the path of a volume's receipt."""
    return volume / f"m{RECEIPT_NAME}" if trial.prepared.scenario.kind == "file" else volume / "m" / RECEIPT_NAME


def edit_receipt(change: Callable[[dict[str, Any]], object], trial: TrialVolume) -> None:
    """Change the content of the receipt."""
    trial.lay_out()
    (receipt,) = trial.path.rglob(f"*{RECEIPT_NAME}")
    content = json.loads(receipt.read_text())
    change(content)
    receipt.write_text(json.dumps(content))


def claim_outside_files(content: dict[str, Any]) -> None:
    """Claim files outside in the receipt."""
    content["files"] += [{"path": path, "size": 18, "sha256": "0" * 64} for path in OUTSIDE_PATHS]


def claim_new_version(files: Sequence[int], trial: TrialVolume) -> None:
    """Claim the version to be pulled in a receipt, for some of the old files or none."""
    plan = inspect_source(parse_uri(trial.prepared.uri), SourceOptions(), PullOptions()).plan

    def claim(said: dict[str, Any]) -> None:
        said["source"], said["version"] = str(plan.uri), plan.version
        said["files"] = [said["files"][number] for number in files]

    edit_receipt(claim, trial)
    _, trial.known_flaws = destination_check.check_destination(trial.prepared, trial.path)
    trial.heal = partial(_empty_directory, trial.path)


def _empty_directory(volume: Path) -> None:
    shutil.rmtree(volume)
    volume.mkdir()


def _harmless_case(fault: str, arrange: Callable[[TrialVolume], object], *names: str) -> DiskCase:
    """Return a case that does not disturb the pull."""
    return DiskCase(fault, arrange, (0,), names or WITH_OLD_MODEL)


AREA_KINDS = ("link", "link to a file", "dangling link", "FIFO", "text")
WORK_KINDS = ("link", "link to a file", "dangling link", "FIFO", "text", "second name")
STAGED_NAMES = ("parts.jsonl", "ours.json", "ours.new", "receipt.json", "tree", "scratch", "aside", "archive", "other")
FOREIGN_RECEIPT_KINDS = ("link to a file", "dangling link", "FIFO", "huge", "text", "[" * 100_000)
DAMAGED_RECEIPTS = ('{"schema": 2}', '{"schema": 1, "tool"', "")
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
        _harmless_case("a damaged receipt", partial(replace_receipt, what), *WITHOUT_OLD_MODEL)
        for what in DAMAGED_RECEIPTS
    ),
    *(
        DiskCase(
            "a foreign file in place of the receipt",
            partial(replace_receipt_by_foreign, what),
            scenarios=WITHOUT_OLD_MODEL,
            message_words=("receipt",),
        )
        for what in ("directory", *FOREIGN_RECEIPT_KINDS)
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

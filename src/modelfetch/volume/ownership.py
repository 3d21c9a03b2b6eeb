"""What at a destination is ours, to be replaced, removed or used again; whatever else is there is a stranger's."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelfetch import safe_paths
from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.volume.destination import MOVE, Destination, holds_only_owned, read_published
from modelfetch.volume.filesystem import disk_errors, is_mount
from modelfetch.volume.receipt import SUFFIX
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staging import StagingArea


def restage_moved_files(stage: StagingArea, dest: Destination, plan: str) -> None:
    """Move what a crash left at the destination without a receipt back into the stage, for its bytes are good still.

    Args:
        stage: with the journal of the pull that was cut short; what the journal does not tell of is left alone.
        dest: where some of its files are already.
        plan: what is pulled now.

    Raises:
        DestinationError: the disk fails.
    """
    if read_published(dest) is not None:
        return
    journal = ResumeJournal(stage.work / "parts.jsonl", plan)
    with disk_errors(dest.path):
        for path in _vetted(journal.files & set(_intended(stage))):
            there, here = dest.base / path, stage.tree / path
            if os.path.lexists(here) or passes_symlink(dest.base, path) or there.is_symlink() or not there.is_file():
                continue
            here.parent.mkdir(parents=True, exist_ok=True)
            there.replace(here)


def check_conflicts(stage: StagingArea, dest: Destination, new: Iterable[str], folders: Iterable[str] = ()) -> set[str]:
    """The paths at the destination that are ours to replace or remove.

    Raises:
        DestinationError: what we did not put there is where one of the new files or folders must go.
        UnsafeNameError: the receipt's path is longer than the system takes, though the destination's is not.
    """
    new = set(new)
    with disk_errors(dest.path):
        if not dest.directory:
            _refuse_part_of_a_directory(dest)
            _refuse_mount(dest)
        if dest.receipt.is_dir() and not dest.receipt.is_symlink():
            raise DestinationError(f"{dest.receipt} is a directory where the receipt must go.", hint=MOVE)
        ours = _ours(stage, dest, new)
        _look_for_strangers(dest.base, new, ours, set(folders))
    return ours


def _refuse_part_of_a_directory(dest: Destination) -> None:
    """A file of a model that was pulled as a directory is not replaced alone: its receipt would no longer be true."""
    whole = read_published(Destination(dest.base, directory=True))
    if whole and dest.path.exists() and dest.path.name in [f.path for f in whole.files]:
        raise DestinationError(
            f"{dest.path} is part of the model that was pulled into {dest.base}.", hint="Choose another destination."
        )


def _refuse_mount(dest: Destination) -> None:
    """A file that is mounted alone, as by a `subPath`, can be written to, but not replaced."""
    if is_mount(dest.path):
        raise DestinationError(
            f"{dest.path} is a mount point of its own: it cannot be replaced.",
            hint="Mount the directory above it instead.",
        )


def _ours(stage: StagingArea, dest: Destination, new: Iterable[str]) -> set[str]:
    """What earlier pulls put there: by their receipt, by the list of one cut short, by single files' receipts."""
    old = read_published(dest)
    listed = [f.path for f in old.files] if old else []
    if old is None:  # where there is a receipt, the list is of a pull that had not begun to move, or was done
        listed += _intended(stage)
    if dest.directory:
        listed += [path for path in new if _has_own_receipt(dest.path / path)]
    return set(_vetted(listed))


def _intended(stage: StagingArea) -> list[str]:
    """What a pull that was cut short while it moved files had listed as ours."""
    try:
        listed = json.loads(stage.claims.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [path for path in listed if isinstance(path, str)] if isinstance(listed, list) else []


def _has_own_receipt(path: Path) -> bool:
    if not os.path.lexists(f"{path}{SUFFIX}"):  # few have one, and there may be many
        return False
    own = read_published(Destination(path, directory=False))
    return own is not None and [f.path for f in own.files] == [path.name]


def _vetted(paths: Iterable[str]) -> Iterator[str]:
    """A receipt on a volume may have been written by anyone: what leads out of the directory is not ours."""
    for path in paths:
        with contextlib.suppress(UnsafeNameError):
            safe_paths.check_path(path)
            yield path


def _look_for_strangers(base: Path, new: set[str], ours: set[str], folders: set[str]) -> None:
    above = {parent for path in new | folders for parent in safe_paths.parent_paths(path)}
    for folder in sorted(folders | above):
        at = base / folder
        if os.path.lexists(at) and (at.is_symlink() or not at.is_dir()) and folder not in ours:
            raise DestinationError(f"{at} is in the way, and modelfetch did not put it there.", hint=MOVE)
    for path in sorted(new):
        at = base / path
        if at.is_dir() and not at.is_symlink():
            if not holds_only_owned(at, base, ours):
                raise DestinationError(f"{at} is a directory where a file must go.", hint=MOVE)
        elif os.path.lexists(at) and path not in ours:
            raise DestinationError(f"{at} is in the way, and modelfetch did not put it there.", hint=MOVE)


def passes_symlink(base: Path, path: str) -> bool:
    """Whether the way to a path leads through a link."""
    return any((base / parent).is_symlink() for parent in safe_paths.parent_paths(path))

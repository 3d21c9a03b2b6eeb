"""What at a destination is ours, to be replaced, removed or used again; whatever else is there is a stranger's."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelfetch import safe_paths
from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.volume.destination import MOVE_HINT, Destination, holds_only_owned, read_published
from modelfetch.volume.filesystem import disk_errors, is_mount
from modelfetch.volume.receipt import RECEIPT_SUFFIX
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staging import StagingArea


def restage_moved_files(staging: StagingArea, dest: Destination, plan: str) -> None:
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
    journal = ResumeJournal(staging.work_directory / "parts.jsonl", plan)
    with disk_errors(dest.path):
        for path in _drop_unsafe_paths(journal.files & set(_read_claims(staging))):
            published, staged = dest.base / path, staging.tree / path
            if os.path.lexists(staged) or passes_symlink(dest.base, path) or published.is_symlink() or not published.is_file():
                continue
            staged.parent.mkdir(parents=True, exist_ok=True)
            published.replace(staged)


def check_conflicts(staging: StagingArea, dest: Destination, new_paths: Iterable[str], folders: Iterable[str] = ()) -> set[str]:
    """The paths at the destination that are ours to replace or remove.

    Raises:
        DestinationError: what we did not put there is where one of the new files or folders must go.
        UnsafeNameError: the receipt's path is longer than the system takes, though the destination's is not.
    """
    new_paths = set(new_paths)
    with disk_errors(dest.path):
        if not dest.directory:
            _refuse_part_of_directory(dest)
            _refuse_mount_point(dest)
        if dest.receipt_path.is_dir() and not dest.receipt_path.is_symlink():
            raise DestinationError(f"{dest.receipt_path} is a directory where the receipt must go.", hint=MOVE_HINT)
        owned_paths = _list_owned_paths(staging, dest, new_paths)
        _refuse_foreign_files(dest.base, new_paths, owned_paths, set(folders))
    return owned_paths


def _refuse_part_of_directory(dest: Destination) -> None:
    """A file of a model that was pulled as a directory is not replaced alone: its receipt would no longer be true."""
    model = read_published(Destination(dest.base, directory=True))
    if model and dest.path.exists() and dest.path.name in [f.path for f in model.files]:
        raise DestinationError(
            f"{dest.path} is part of the model that was pulled into {dest.base}.", hint="Choose another destination."
        )


def _refuse_mount_point(dest: Destination) -> None:
    """A file that is mounted alone, as by a `subPath`, can be written to, but not replaced."""
    if is_mount(dest.path):
        raise DestinationError(
            f"{dest.path} is a mount point of its own: it cannot be replaced.",
            hint="Mount the directory above it instead.",
        )


def _list_owned_paths(staging: StagingArea, dest: Destination, new_paths: Iterable[str]) -> set[str]:
    """What earlier pulls put there: by their receipt, by the list of one cut short, by single files' receipts."""
    receipt = read_published(dest)
    paths = [f.path for f in receipt.files] if receipt else []
    if receipt is None:  # where there is a receipt, the list is of a pull that had not begun to move, or was done
        paths += _read_claims(staging)
    if dest.directory:
        paths += [path for path in new_paths if _has_own_receipt(dest.path / path)]
    return set(_drop_unsafe_paths(paths))


def _read_claims(staging: StagingArea) -> list[str]:
    """What a pull that was cut short while it moved files had listed as ours."""
    try:
        claims = json.loads(staging.claims.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [path for path in claims if isinstance(path, str)] if isinstance(claims, list) else []


def _has_own_receipt(path: Path) -> bool:
    if not os.path.lexists(f"{path}{RECEIPT_SUFFIX}"):  # few have one, and there may be many
        return False
    receipt = read_published(Destination(path, directory=False))
    return receipt is not None and [f.path for f in receipt.files] == [path.name]


def _drop_unsafe_paths(paths: Iterable[str]) -> Iterator[str]:
    """A receipt on a volume may have been written by anyone: what leads out of the directory is not ours."""
    for path in paths:
        with contextlib.suppress(UnsafeNameError):
            safe_paths.check_path(path)
            yield path


def _refuse_foreign_files(base: Path, new_paths: set[str], owned_paths: set[str], folders: set[str]) -> None:
    parents = {parent for path in new_paths | folders for parent in safe_paths.parent_paths(path)}
    for folder in sorted(folders | parents):
        target = base / folder
        if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()) and folder not in owned_paths:
            raise DestinationError(f"{target} is in the way, and modelfetch did not put it there.", hint=MOVE_HINT)
    for path in sorted(new_paths):
        target = base / path
        if target.is_dir() and not target.is_symlink():
            if not holds_only_owned(target, base, owned_paths):
                raise DestinationError(f"{target} is a directory where a file must go.", hint=MOVE_HINT)
        elif os.path.lexists(target) and path not in owned_paths:
            raise DestinationError(f"{target} is in the way, and modelfetch did not put it there.", hint=MOVE_HINT)


def passes_symlink(base: Path, path: str) -> bool:
    """Whether the way to a path leads through a link."""
    return any((base / parent).is_symlink() for parent in safe_paths.parent_paths(path))

"""File ownership at the destination: files written by earlier pulls may be replaced; foreign files never.

Owned paths come from the published receipt, from the claims of an interrupted publish (ours.json) and from the receipts
of single files. All other files are foreign.
"""

import contextlib
import filecmp
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from modelfetch import safe_paths
from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.volume import receipt as receipts
from modelfetch.volume.destination import MOVE_HINT, Destination, holds_only_owned, read_published
from modelfetch.volume.filesystem import disk_errors, is_mount, list_mounts_below
from modelfetch.volume.receipt import is_receipt_file
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staging import StagingArea


def restage_moved_files(staging: StagingArea, dest: Destination, plan: str) -> None:
    """Move files of an interrupted publish from the destination back into the staging area, to reuse their bytes.

    Args:
        staging: area with the journal of the interrupted pull; only files in the journal are moved.
        dest: destination that already holds some of the files, without a receipt.
        plan: resume key of the current pull; only a journal with the same key counts.

    Raises:
        DestinationError: a file cannot be moved.
    """
    if read_published(dest) is not None:
        return
    journal = ResumeJournal(staging.work_directory / "parts.jsonl", plan)
    with disk_errors(dest.path):
        for path in _drop_unsafe_paths(journal.files & set(_read_claims(staging))):
            published, staged = dest.base / path, staging.tree / path
            if os.path.lexists(staged) or passes_symlink(dest.base, path):
                continue
            if published.is_symlink() or not published.is_file():
                continue
            staged.parent.mkdir(parents=True, exist_ok=True)
            published.replace(staged)


def check_conflicts(
    staging: StagingArea, dest: Destination, new_paths: Iterable[str], folders: Iterable[str] = ()
) -> set[str]:
    """Refuse a destination where foreign files are in the way; return the owned paths, to be replaced or removed.

    Raises:
        DestinationError: a foreign file stands at the path of a new file or folder.
        UnsafeNameError: the receipt's path is longer than the system allows, although the destination's is not.
    """
    new_paths = set(new_paths)
    with disk_errors(dest.path):
        if not dest.directory:
            _refuse_part_of_directory(dest)
            _refuse_mount_point(dest)
        if os.path.lexists(dest.receipt_path) and not is_receipt_file(dest.receipt_path):
            raise DestinationError(
                f"{dest.receipt_path} is in the way of the receipt, and is none of modelfetch's.", hint=MOVE_HINT
            )
        mounts = list_mounts_below(dest.base) if dest.directory else []
        _refuse_mounted_paths(dest.base, new_paths, mounts)
        owned_paths = {path for path in _list_owned_paths(staging, dest, new_paths) if not _is_mounted(path, mounts)}
        if read_published(dest) is None and is_receipt_file(dest.receipt_path):
            owned_paths |= {path for path in new_paths if _is_identical(staging.tree / path, dest.base / path)}
        _refuse_foreign_files(dest.base, new_paths, owned_paths, set(folders))
    return owned_paths


def _is_mounted(path: str, mounts: Iterable[str]) -> bool:
    """Return whether a path lies on a volume mounted below the destination: its files are never ours."""
    return any(path == mount or path.startswith(f"{mount}/") for mount in mounts)


def _refuse_mounted_paths(base: Path, new_paths: Iterable[str], mounts: Sequence[str]) -> None:
    """Refuse a model with files on a volume that is mounted inside the destination."""
    if mounts and (path := next((path for path in sorted(new_paths) if _is_mounted(path, mounts)), None)):
        raise DestinationError(
            f"{base / path} would lie on another volume, which is mounted inside {base}.",
            hint="Mount that volume elsewhere, or choose another destination.",
        )


def _refuse_part_of_directory(dest: Destination) -> None:
    """Refuse to replace one file of a model pulled as a directory: the directory's receipt would become false."""
    model = read_published(Destination(dest.base, directory=True))
    if model and dest.path.exists() and dest.path.name in [f.path for f in model.files]:
        raise DestinationError(
            f"{dest.path} is part of the model that was pulled into {dest.base}.", hint="Choose another destination."
        )


def _refuse_mount_point(dest: Destination) -> None:
    """Refuse a file that is a mount of its own, as by a `subPath`: writable, but not replaceable."""
    if is_mount(dest.path):
        raise DestinationError(
            f"{dest.path} is a mount point of its own: it cannot be replaced.",
            hint="Mount the directory above it instead.",
        )


def _list_owned_paths(staging: StagingArea, dest: Destination, new_paths: Iterable[str]) -> set[str]:
    """Return the paths owned by the published receipt, by claims left after a crash, or by a file's own receipt."""
    receipt = read_published(dest)
    paths = [f.path for f in receipt.files] if receipt else []
    if receipt is None:  # beside a receipt, claims are stale: the publish had not started to move files, or was done
        paths += _read_claims(staging)
    if dest.directory:
        paths += [path for path in new_paths if find_own_receipt(dest.path / path)]
    return set(_drop_unsafe_paths(paths))


def _is_identical(staged: Path, published: Path) -> bool:
    """Return whether a file equals the staged one, or may do: before the download nothing is staged.

    Beside a damaged receipt, nothing else tells that a file is ours.
    """
    if published.is_symlink() or not published.is_file():
        return False
    return not os.path.lexists(staged) or (not staged.is_symlink() and filecmp.cmp(staged, published, shallow=False))


def _read_claims(staging: StagingArea) -> list[str]:
    """Return the paths that an interrupted publish had claimed (ours.json)."""
    try:
        claims = json.loads(staging.claims.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [path for path in claims if isinstance(path, str)] if isinstance(claims, list) else []


def find_own_receipt(path: Path) -> Path | None:
    """Return the receipt of a file that was pulled alone; None if there is none, or if it speaks for another file."""
    found = receipts.find_receipt(path, directory=False)
    if found is None:  # cheap test first: of many files few have a receipt
        return None
    receipt = read_published(Destination(path, directory=False))
    return found if receipt is not None and [f.path for f in receipt.files] == [path.name] else None


def _drop_unsafe_paths(paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths that stay inside the directory; anyone may have written a receipt on a shared volume."""
    for path in paths:
        with contextlib.suppress(UnsafeNameError):
            safe_paths.check_path(path)
            yield path


def _refuse_foreign_files(base: Path, new_paths: set[str], owned_paths: set[str], folders: set[str]) -> None:
    """Refuse foreign files at the new paths, at the new folders, and at their parent directories."""
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
    """Return whether a parent directory of `path` below `base` is a symlink."""
    return any((base / parent).is_symlink() for parent in safe_paths.parent_paths(path))

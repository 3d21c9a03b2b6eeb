"""Puts a staged model in place: whole, flushed, the receipt last; what we did not write we do not delete.

A directory that holds nothing but what an earlier pull wrote is exchanged by one rename. Any other (a mount point, one
with strangers' files, one whose parent cannot be written) is changed entry by entry: the old receipt goes first and the
new one comes last, so that what lies between has none. Where the disk fails, what was done is taken back.
"""

import contextlib
import ctypes
import errno
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelfetch import interrupts, names
from modelfetch import receipt as receipts
from modelfetch.archive.formats import promised
from modelfetch.disk import disk_errors, flush, fsync, is_mount, is_mounted_elsewhere, walk, write
from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError
from modelfetch.journal import Journal
from modelfetch.moves import Moves
from modelfetch.receipt import SUFFIX, Receipt
from modelfetch.stage import AREA, Stage, alone_in

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)
# What a directory says that cannot be moved (from an overlay's lower layer, say), or cannot be moved over.
_NOT_MOVED = (errno.EXDEV, errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.EPERM)
_MOVE = "Move it away, or choose another destination."


@dataclass(frozen=True)
class Destination:
    """Where a model goes: a file, or a directory's content."""

    path: Path
    directory: bool

    @property
    def base(self) -> Path:
        """The directory that the receipt's paths are relative to."""
        return self.path if self.directory else self.path.parent

    @property
    def receipt(self) -> Path:
        """Where the receipt goes."""
        return receipts.path_for(self.path, directory=self.directory)

    def home(self) -> Path:
        """Where its staging area is: beside what can be exchanged by a rename, else inside."""
        return self.path if self.directory and not _exchangeable(self.path) else self.path.parent

    @property
    def homes(self) -> tuple[Path, ...]:
        """Where its staging area may have been at other times."""
        return (self.path.parent, self.path) if self.directory else (self.path.parent,)

    @property
    def name(self) -> str:
        """What identifies it within its home."""
        return self.path.name


def locate(dest: str, name: str, *, directory: bool, archive: bool) -> Destination:
    """Where a model goes, as `cp` would have it.

    Args:
        dest: what the user gave; a link is followed.
        name: the object's own file name.
        directory: whether the model is a directory.
        archive: whether it is an archive to be unpacked.

    Raises:
        DestinationError: a file is where a directory must go, or the reverse; or it cannot be looked at.
        UnsafeNameError: the name leaves no room for the receipt's, or is not UTF-8.
    """
    with disk_errors(dest):
        return _locate(dest, name, directory=directory, archive=archive)


def _locate(dest: str, name: str, *, directory: bool, archive: bool) -> Destination:
    path = Path(os.path.realpath(os.path.expanduser(dest)))  # noqa: PTH111  Path's own fails for unknown users
    into = dest.endswith(("/", os.sep)) or path.is_dir()
    if archive and not into and promised(path.name):
        path = path.parent
    if directory or archive:
        if path.exists() and not path.is_dir():
            raise DestinationError(f"{path} is a file where a directory must go.", hint=_MOVE)
        if path.name == AREA:
            raise _own(path.name)
        return Destination(path, directory=True)
    if into and path.exists() and not path.is_dir():
        raise DestinationError(f"{path} is a file where a directory must go.", hint=_MOVE)
    path = path / name if into else path
    if path.is_dir():
        raise DestinationError(f"{path} is a directory where a file must go.", hint=_MOVE)
    if len(os.fsencode(path.name + SUFFIX)) > names.MAX_SEGMENT_BYTES:
        raise UnsafeNameError(f"The file name {path.name} is too long for its receipt's.", hint="Name a shorter DEST.")
    if path.name != path.name.encode(errors="replace").decode():
        raise UnsafeNameError(f"The file name {path.name!r} is not valid UTF-8.", hint="Name another DEST.")
    if path.name == AREA or path.name.endswith(SUFFIX):
        raise _own(path.name)
    return Destination(path, directory=False)


def _own(name: str) -> UnsafeNameError:
    return UnsafeNameError(
        f"The name {names.shown(name)} is one of modelfetch's own: a receipt's, or the staging area's.",
        hint="Name another DEST.",
    )


def published(dest: Destination) -> Receipt | None:
    """The receipt of what is there, if there is a readable one."""
    try:
        return receipts.read(dest.receipt)
    except ModelfetchError:
        return None


def publish(stage: Stage, dest: Destination, receipt: Receipt) -> None:
    """Put what is in the stage's tree in place.

    Raises:
        DestinationError: a stranger's file is in the way, or the disk fails. What was there is there still; or, if it
            cannot be brought back, what is there has no receipt.
    """
    try:
        with disk_errors(dest.path):
            _finish(stage.tree, receipt)
            with alone_in(dest.base), interrupts.deferred():
                if not _exchange(stage, dest, receipt):
                    _move_entries(stage, dest, receipt)
    except DestinationError:
        stage.free()
        raise


def _finish(tree: Path, receipt: Receipt) -> None:
    """Give files and directories their modes and times, whatever the umask, and flush them."""
    when = receipt.finished.timestamp()
    tree.chmod(0o755)
    files = []
    for here, folders, found in walk(tree):
        for path in (here / name for name in found):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)
                os.utime(path, (when, when))
                files.append(path)
        for path in (here / name for name in folders):
            if not path.is_symlink():
                path.chmod(0o755)
    flush([*files, *(here for here, _, _ in walk(tree))], tree)


def _exchange(stage: Stage, dest: Destination, receipt: Receipt) -> bool:
    """Exchange the directory for the staged one; False, and nothing is changed, if that cannot be."""
    if not dest.directory or stage.work.parent.parent == dest.path or not _exchangeable(dest.path):
        return False
    write(stage.tree / SUFFIX, receipt.to_json() + "\n")
    fsync(stage.tree)
    try:
        _swap(stage.tree, dest.path, stage.scratch)
    except OSError as error:
        if error.errno in _NOT_MOVED:
            return False
        raise
    done = False
    try:
        if not stage.tree.exists() or not _has_strangers(stage.tree):  # else another pull was faster
            fsync(dest.path.parent)
            done = True
    finally:
        if not done:
            _swap(stage.tree, dest.path, stage.scratch)
    return done


def _swap(one: Path, other: Path, aside: Path) -> None:
    """Exchange two directories, one of which may be missing. Done twice, it is undone."""
    if not other.exists():
        one.rename(other)
    elif not one.exists():
        other.rename(one)
    elif not _rename_exchange(one, other):
        other.rename(aside)  # for a moment there is none
        try:
            one.rename(other)
        except OSError:
            aside.rename(other)
            raise
        with contextlib.suppress(OSError):
            aside.rename(one)


def _rename_exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False where the kernel or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _move_entries(stage: Stage, dest: Destination, receipt: Receipt) -> None:
    """Move the files one by one; a crash leaves a list of what is ours, and no receipt."""
    new = {f.path for f in receipt.files}
    folders = [folder.as_posix() for folder in _folders(stage.tree)]
    ours = refuse_strangers(stage, dest, new, folders)
    staged, noted, crashed = stage.work / "receipt.json", stage.work / "ours.new", stage.intent.exists()
    write(staged, receipt.to_json() + "\n")  # before the first change: there may be no room for it
    write(noted, json.dumps(sorted(ours | new)))
    stage.aside.mkdir()
    noted.replace(stage.intent)
    fsync(stage.work)
    moves = Moves(stage.aside)
    try:
        _change(stage, dest, moves, ours, new, folders)
        moves.put(staged, dest.receipt)
        fsync(dest.base)
    except BaseException:
        if moves.undo() and not crashed:
            stage.intent.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):
        stage.intent.unlink()


def _change(
    stage: Stage, dest: Destination, moves: Moves, ours: set[str], new: set[str], folders: Sequence[str]
) -> None:
    """Turn the old model into the new one, all but the receipt."""
    base = dest.base
    moves.directory(base)
    _withdraw(dest, moves, new)
    for path in sorted(ours - new, reverse=True):
        _remove(moves, base, path)
    for folder in folders:
        moves.directory(base / folder)
    for path in sorted(new):
        moves.put(stage.tree / path, base / path)
    flush(_changed(base, ours | new, folders), base)


def _withdraw(dest: Destination, moves: Moves, new: set[str]) -> None:
    """Remove the receipt, and those of pulls of one of the new files alone: they will not be true any more."""
    moves.away(dest.receipt)
    fsync(dest.base)
    for path in sorted(new) if dest.directory else ():
        alone = dest.base / f"{path}{SUFFIX}"
        if f"{path}{SUFFIX}" not in new and os.path.lexists(alone):
            moves.away(alone)
            fsync(alone.parent)


def _changed(base: Path, paths: Iterable[str], folders: Iterable[str]) -> list[Path]:
    """The directories that hold these files and folders, up to the base, as far as they are there."""
    found = {parent for path in (*paths, *folders) for parent in names.parents(path)} | set(folders)
    return [base, *(base / folder for folder in sorted(found) if (base / folder).is_dir())]


def take_back(stage: Stage, dest: Destination, plan: str) -> None:
    """Move what a crash left at the destination without a receipt back into the stage, for its bytes are good still.

    Args:
        stage: with the journal of the pull that was cut short; what the journal does not tell of is left alone.
        dest: where some of its files are already.
        plan: what is pulled now.

    Raises:
        DestinationError: the disk fails.
    """
    if published(dest) is not None:
        return
    journal = Journal(stage.work / "parts.jsonl", plan)
    with disk_errors(dest.path):
        for path in _vetted(journal.files & set(_intended(stage))):
            there, here = dest.base / path, stage.tree / path
            if os.path.lexists(here) or _linked(dest.base, path) or there.is_symlink() or not there.is_file():
                continue
            here.parent.mkdir(parents=True, exist_ok=True)
            there.replace(here)


def refuse_strangers(stage: Stage, dest: Destination, new: Iterable[str], folders: Iterable[str] = ()) -> set[str]:
    """The paths at the destination that are ours to replace or remove.

    Raises:
        DestinationError: what we did not put there is where one of the new files or folders must go.
    """
    new = set(new)
    if not dest.directory:
        _refuse_part_of_a_directory(dest)
        _refuse_mount(dest)
    if dest.receipt.is_dir() and not dest.receipt.is_symlink():
        raise DestinationError(f"{dest.receipt} is a directory where the receipt must go.", hint=_MOVE)
    ours = _ours(stage, dest, new)
    _look_for_strangers(dest.base, new, ours, set(folders))
    return ours


def _refuse_part_of_a_directory(dest: Destination) -> None:
    """A file of a model that was pulled as a directory is not replaced alone: its receipt would no longer be true."""
    whole = published(Destination(dest.base, directory=True))
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


def _ours(stage: Stage, dest: Destination, new: Iterable[str]) -> set[str]:
    """What earlier pulls put there: by their receipt, by the list of one cut short, by single files' receipts."""
    old = published(dest)
    listed = [f.path for f in old.files] if old else []
    if old is None:  # where there is a receipt, the list is of a pull that had not begun to move, or was done
        listed += _intended(stage)
    if dest.directory:
        listed += [path for path in new if _has_own_receipt(dest.path / path)]
    return set(_vetted(listed))


def _intended(stage: Stage) -> list[str]:
    """What a pull that was cut short while it moved files had listed as ours."""
    try:
        listed = json.loads(stage.intent.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [path for path in listed if isinstance(path, str)] if isinstance(listed, list) else []


def _has_own_receipt(path: Path) -> bool:
    own = published(Destination(path, directory=False))
    return own is not None and [f.path for f in own.files] == [path.name]


def _vetted(paths: Iterable[str]) -> Iterator[str]:
    """A receipt on a volume may have been written by anyone: what leads out of the directory is not ours."""
    for path in paths:
        with contextlib.suppress(UnsafeNameError):
            names.vet(path)
            yield path


def _look_for_strangers(base: Path, new: set[str], ours: set[str], folders: set[str]) -> None:
    above = {parent for path in new | folders for parent in names.parents(path)}
    for folder in sorted(folders | above):
        at = base / folder
        if os.path.lexists(at) and (at.is_symlink() or not at.is_dir()) and folder not in ours:
            raise DestinationError(f"{at} is in the way, and modelfetch did not put it there.", hint=_MOVE)
    for path in sorted(new):
        at = base / path
        if at.is_dir() and not at.is_symlink():
            if not _all_ours(at, base, ours):
                raise DestinationError(f"{at} is a directory where a file must go.", hint=_MOVE)
        elif os.path.lexists(at) and path not in ours:
            raise DestinationError(f"{at} is in the way, and modelfetch did not put it there.", hint=_MOVE)


def _all_ours(folder: Path, base: Path, ours: set[str]) -> bool:
    """Whether a directory holds files of ours and nothing else; what cannot be looked into is not ours."""
    try:
        return _holds_ours(folder, base, ours)
    except OSError:
        return False


def _holds_ours(folder: Path, base: Path, ours: set[str]) -> bool:
    found = False
    for here, folders, files in walk(folder):
        links = [name for name in folders if (here / name).is_symlink()]
        for name in (*files, *links):
            found = True
            if (here / name).relative_to(base).as_posix() not in ours:
                return False
        if not files and not folders:
            emptied = here.relative_to(base).as_posix() + "/"
            if not any(path.startswith(emptied) for path in ours):
                return False
            found = True  # a crash came between the last file's end and the directory's
    return found


def _remove(moves: Moves, base: Path, path: str) -> None:
    """Remove one of our files, and the directories that it leaves empty; never through a link."""
    if _linked(base, path):
        return
    moves.away(base / path)
    for parent in names.parents(path):
        with contextlib.suppress(OSError):
            (base / parent).rmdir()


def _linked(base: Path, path: str) -> bool:
    """Whether the way to a path leads through a link."""
    return any((base / parent).is_symlink() for parent in names.parents(path))


def _folders(tree: Path) -> list[Path]:
    found = []
    for here, folders, _ in walk(tree):
        found += [(here / name).relative_to(tree) for name in folders if not (here / name).is_symlink()]
    return sorted(found)


def _exchangeable(path: Path) -> bool:
    """Whether a directory can be exchanged by a rename without touching what is not ours."""
    if not path.exists():
        return True
    parent = path.parent
    if not os.access(parent, os.W_OK | os.X_OK) or parent.stat().st_dev != path.stat().st_dev:
        return False
    if is_mount(path) or is_mounted_elsewhere(path) or _is_working_directory(path):
        return False
    return not _has_strangers(path)


def _is_working_directory(path: Path) -> bool:
    """A shell that stands in it would be left in the old one."""
    try:
        return Path.cwd().resolve().is_relative_to(path)
    except OSError:
        return False


def _has_strangers(path: Path) -> bool:
    """Whether there is anything that an earlier pull did not leave, or another one is at work there."""
    known = published(Destination(path, directory=True))
    ours = {f.path for f in known.files} if known else set()
    for entry in path.iterdir():
        if entry.name == SUFFIX and not entry.is_dir():
            continue
        single = entry.name in ours
        if not single and not (entry.is_dir() and not entry.is_symlink() and _all_ours(entry, path, ours)):
            return True
    return False

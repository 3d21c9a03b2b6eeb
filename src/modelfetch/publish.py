"""Puts a staged model in place: whole, flushed, the receipt last; what we did not write we do not delete.

A directory that holds nothing but what an earlier pull wrote is exchanged by one rename. Any other (a mount point, one
with strangers' files, one whose parent cannot be written) is changed entry by entry: the old receipt goes first and the
new one comes last, so that what lies between has none.
"""

import contextlib
import ctypes
import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelfetch import interrupts, names
from modelfetch import receipt as receipts
from modelfetch.archive.formats import promised
from modelfetch.disk import disk_errors, make_directory
from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError
from modelfetch.receipt import SUFFIX, Receipt
from modelfetch.stage import AREA, Stage

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)
_FEW_FILES = 32  # above this, one syncfs is cheaper than an fsync each
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
    return Destination(path, directory=False)


def published(dest: Destination) -> Receipt | None:
    """The receipt of what is there, if there is a readable one."""
    try:
        return receipts.read(dest.receipt)
    except ModelfetchError:
        return None


def publish(stage: Stage, dest: Destination, receipt: Receipt) -> None:
    """Put what is in the stage's tree in place.

    Raises:
        DestinationError: a stranger's file is in the way, or the disk fails; the old model stays, or none.
    """
    with disk_errors(dest.path):
        _finish(stage.tree, receipt)
        with interrupts.deferred():
            _put_in_place(stage, dest, receipt)


def _put_in_place(stage: Stage, dest: Destination, receipt: Receipt) -> None:
    if dest.directory and stage.work.parent.parent != dest.path:
        _exchange(stage, dest, receipt)
    else:
        _move_entries(stage, dest, receipt)


def _finish(tree: Path, receipt: Receipt) -> None:
    """Give files and directories their modes and times, whatever the umask, and flush them."""
    when = receipt.finished.timestamp()
    tree.chmod(0o755)
    files = []
    for here, folders, found in os.walk(tree):
        for path in (Path(here, name) for name in found):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)
                os.utime(path, (when, when))
                files.append(path)
        for path in (Path(here, name) for name in folders):
            if not path.is_symlink():
                path.chmod(0o755)
    flush(files, tree)


def flush(files: list[Path], tree: Path) -> None:
    """Bring the files to the disk, and the tree's directories."""
    if len(files) > _FEW_FILES and _sync_file_system(tree):
        return
    for path in files:
        _fsync(path)
    for here, _, _ in os.walk(tree):
        _fsync(Path(here))


def _sync_file_system(path: Path) -> bool:
    """syncfs(2), which reports write errors since Linux 5.8; False where there is none."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    fd = os.open(path, os.O_RDONLY)
    try:
        if syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(fd)
    return True


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a directory
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(fd)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    _fsync(path)


def _exchange(stage: Stage, dest: Destination, receipt: Receipt) -> None:
    """Exchange the directory for the staged one."""
    _write(stage.tree / SUFFIX, receipt.to_json() + "\n")
    _fsync(stage.tree)
    if not dest.path.exists():
        stage.tree.rename(dest.path)
    elif not _rename_exchange(stage.tree, dest.path):
        dest.path.rename(stage.scratch)  # for a moment there is none
        stage.tree.rename(dest.path)
        stage.scratch.rename(stage.tree)
    _fsync(dest.path.parent)


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
    base = dest.base
    new = {f.path for f in receipt.files}
    folders = [folder.as_posix() for folder in _folders(stage.tree)]
    ours = refuse_strangers(stage, dest, new, folders)
    noted = stage.work / "ours.new"
    _write(noted, json.dumps(sorted(ours | new)))
    noted.replace(stage.intent)
    _fsync(stage.work)
    make_directory(base)
    dest.receipt.unlink(missing_ok=True)
    _fsync(base)
    for path in sorted(ours - new, reverse=True):
        _remove(base, path)
    for folder in folders:
        make_directory(base / folder)
    for path in sorted(new):
        (stage.tree / path).replace(base / path)
        if dest.directory and f"{path}{SUFFIX}" not in new:
            with contextlib.suppress(OSError):
                (base / f"{path}{SUFFIX}").unlink()  # of a pull of this file alone
    for parent in {Path(path).parent for path in new}:
        _fsync(base / parent)
    staged = stage.work / "receipt.json"
    _write(staged, receipt.to_json() + "\n")
    staged.replace(dest.receipt)
    _fsync(base)
    stage.intent.unlink()


def refuse_strangers(stage: Stage, dest: Destination, new: Iterable[str], folders: Iterable[str] = ()) -> set[str]:
    """The paths at the destination that are ours to replace or remove.

    Raises:
        DestinationError: what we did not put there is where one of the new files or folders must go.
    """
    new = set(new)
    if not dest.directory:
        _refuse_part_of_a_directory(dest)
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


def _ours(stage: Stage, dest: Destination, new: Iterable[str]) -> set[str]:
    """What earlier pulls put there: by their receipt, by the list of one cut short, by single files' receipts."""
    old = published(dest)
    listed = [f.path for f in old.files] if old else []
    if old is None:  # where there is a receipt, the list is of a pull that had not begun to move, or was done
        with contextlib.suppress(OSError, ValueError):
            listed += json.loads(stage.intent.read_text(encoding="utf-8"))
    if dest.directory:
        listed += [path for path in new if _has_own_receipt(dest.path / path)]
    return set(_vetted(listed))


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
    """Whether a directory holds files of ours and nothing else."""
    found = False
    for here, folders, files in os.walk(folder):
        links = [name for name in folders if Path(here, name).is_symlink()]
        for name in (*files, *links):
            found = True
            if Path(here, name).relative_to(base).as_posix() not in ours:
                return False
        if not files and not folders:
            emptied = Path(here).relative_to(base).as_posix() + "/"
            if not any(path.startswith(emptied) for path in ours):
                return False
            found = True  # a crash came between the last file's end and the directory's
    return found


def _remove(base: Path, path: str) -> None:
    """Remove one of our files, and the directories that it leaves empty; never through a link."""
    parents = [base / parent for parent in list(Path(path).parents)[:-1]]
    if any(parent.is_symlink() for parent in parents):
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        (base / path).unlink()
    for parent in parents:
        with contextlib.suppress(OSError):
            parent.rmdir()


def _folders(tree: Path) -> list[Path]:
    found = []
    for here, folders, _ in os.walk(tree):
        found += [Path(here, name).relative_to(tree) for name in folders if not Path(here, name).is_symlink()]
    return sorted(found)


def _exchangeable(path: Path) -> bool:
    """Whether a directory can be exchanged by a rename without touching what is not ours."""
    if not path.exists():
        return True
    parent = path.parent
    if not os.access(parent, os.W_OK | os.X_OK) or parent.stat().st_dev != path.stat().st_dev:
        return False
    return not _is_mount(path) and not _is_working_directory(path) and not _has_strangers(path)


def _is_mount(path: Path) -> bool:
    """Whether it is a mount point; a bind mount of the same file system shows only in the kernel's list (proc(5))."""
    if path.is_mount():
        return True
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    points = (line.split(" ")[4] for line in lines)
    return str(path) in (point.encode().decode("unicode_escape") if "\\" in point else point for point in points)


def _is_working_directory(path: Path) -> bool:
    """A shell that stands in it would be left in the old one."""
    try:
        return Path.cwd().resolve().is_relative_to(path)
    except OSError:
        return False


def _has_strangers(path: Path) -> bool:
    known = published(Destination(path, directory=True))
    ours = {f.path for f in known.files} if known else set()
    for entry in path.iterdir():
        if entry.name in (SUFFIX, AREA):
            continue
        single = entry.name in ours
        if not single and not (entry.is_dir() and not entry.is_symlink() and _all_ours(entry, path, ours)):
            return True
    return False


def room(dest: Destination) -> int:
    """Bytes free for this user where the destination is, or will be."""
    path = dest.path
    while not path.exists():
        path = path.parent
    return free_bytes(path)


def free_bytes(path: Path) -> int:
    """Bytes free for this user on the file system of an existing path."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize

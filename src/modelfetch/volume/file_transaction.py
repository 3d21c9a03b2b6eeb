"""File transaction: changes to a directory, file by file, that can be rolled back if a step fails."""

import contextlib
import errno
import os
from pathlib import Path

from modelfetch.volume.filesystem import make_directory


class FileTransaction:
    """Puts and removals in a directory that can be rolled back, because replaced files are kept until the end."""

    def __init__(self, replaced_files: Path) -> None:
        """Keep replaced files in `replaced_files`, an empty directory of the caller's on the same file system."""
        self._replaced_files = replaced_files
        self._steps: list[tuple[str | None, str]] = []  # (name of the replaced file, if any; changed path)

    def remove(self, path: Path) -> None:
        """Move a file or a symlink out of the directory; a missing file or a directory is left alone."""
        if not path.is_symlink() and path.is_dir():
            return
        backup = self._next_backup_name()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.rename(self._replaced_files / backup)
            self._steps.append((backup, str(path)))

    def mkdir(self, path: Path) -> None:
        """Create a directory and its missing parents."""
        self._steps += [(None, str(created)) for created in make_directory(path)]

    def put(self, staged: Path, path: Path) -> None:
        """Move a staged file into place; with hard links, readers find the old file or the new file at any moment.

        Raises:
            OSError: the move failed, for example because the path is a directory.
        """
        if not os.path.lexists(path):
            self._steps.append((None, str(path)))
        elif path.is_symlink() or not path.is_dir():
            backup = self._next_backup_name()
            try:
                os.link(path, self._replaced_files / backup, follow_symlinks=False)
            except (OSError, NotImplementedError):
                path.rename(self._replaced_files / backup)
            self._steps.append((backup, str(path)))
        else:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        staged.replace(path)

    def rollback(self) -> bool:
        """Undo all steps, the last first; return whether every step could be undone."""
        complete = True
        for backup, path in reversed(self._steps):
            try:
                self._undo_step(backup, Path(path))
            except OSError:
                complete = False
        return complete

    def _undo_step(self, backup: str | None, path: Path) -> None:
        """Restore the replaced file, or remove the file or directory created."""
        if backup is not None:
            make_directory(path.parent)
            (self._replaced_files / backup).replace(path)
        elif path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def _next_backup_name(self) -> str:
        """Return an unused name for a replaced file."""
        return str(len(self._steps))

"""Changes of a directory, file by file, that are taken back if one of them fails."""

import contextlib
import errno
import os
from pathlib import Path

from modelfetch.volume.filesystem import make_directory


class FileTransaction:
    """Moves files into a directory and out of it; what was there before is kept until all is done."""

    def __init__(self, replaced_files: Path) -> None:
        """Keep things in `aside`, an empty directory on the same file system; whoever made it removes it."""
        self._replaced_files = replaced_files
        self._steps: list[tuple[str | None, str]] = []  # the name of what is kept, if something was there; the path

    def remove(self, path: Path) -> None:
        """Take a file or a link out, if it is there."""
        if not path.is_symlink() and path.is_dir():
            return
        backup = self._next_backup_name()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.rename(self._replaced_files / backup)
            self._steps.append((backup, str(path)))

    def mkdir(self, path: Path) -> None:
        """Make a directory, and those above it."""
        self._steps += [(None, str(created)) for created in make_directory(path)]

    def put(self, staged: Path, path: Path) -> None:
        """Put a file in place. Where there are hard links, whoever opens it finds the old one or the new one.

        Raises:
            OSError: it cannot be; so if a directory is there.
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
        """Take everything back, the last first; whether all could be."""
        complete = True
        for backup, path in reversed(self._steps):
            try:
                self._undo_step(backup, Path(path))
            except OSError:
                complete = False
        return complete

    def _undo_step(self, backup: str | None, path: Path) -> None:
        if backup is not None:
            make_directory(path.parent)
            (self._replaced_files / backup).replace(path)
        elif path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def _next_backup_name(self) -> str:
        return str(len(self._steps))

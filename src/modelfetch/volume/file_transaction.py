"""Changes of a directory, file by file, that are taken back if one of them fails."""

import contextlib
import errno
import os
from pathlib import Path

from modelfetch.volume.filesystem import make_directory


class FileTransaction:
    """Moves files into a directory and out of it; what was there before is kept until all is done."""

    def __init__(self, aside: Path) -> None:
        """Keep things in `aside`, an empty directory on the same file system; whoever made it removes it."""
        self._aside = aside
        self._done: list[tuple[str | None, str]] = []  # the name of what is kept, if something was there; the path

    def remove(self, path: Path) -> None:
        """Take a file or a link out, if it is there."""
        if not path.is_symlink() and path.is_dir():
            return
        kept = self._next()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.rename(self._aside / kept)
            self._done.append((kept, str(path)))

    def mkdir(self, path: Path) -> None:
        """Make a directory, and those above it."""
        self._done += [(None, str(made)) for made in make_directory(path)]

    def put(self, staged: Path, path: Path) -> None:
        """Put a file in place. Where there are hard links, whoever opens it finds the old one or the new one.

        Raises:
            OSError: it cannot be; so if a directory is there.
        """
        if not os.path.lexists(path):
            self._done.append((None, str(path)))
        elif path.is_symlink() or not path.is_dir():
            kept = self._next()
            try:
                os.link(path, self._aside / kept, follow_symlinks=False)
            except (OSError, NotImplementedError):
                path.rename(self._aside / kept)
            self._done.append((kept, str(path)))
        else:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        staged.replace(path)

    def rollback(self) -> bool:
        """Take everything back, the last first; whether all could be."""
        whole = True
        for kept, path in reversed(self._done):
            try:
                self._take_back(kept, Path(path))
            except OSError:
                whole = False
        return whole

    def _take_back(self, kept: str | None, path: Path) -> None:
        if kept is not None:
            make_directory(path.parent)
            (self._aside / kept).replace(path)
        elif path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def _next(self) -> str:
        return str(len(self._done))

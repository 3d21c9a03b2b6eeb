"""What the operating system says about the destination, in plain words."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError

_HINTS = {
    errno.ENOSPC: "Free some space, or give the volume a larger size (emptyDir.sizeLimit).",
    errno.EDQUOT: "Raise the quota, or free some space.",
    errno.EROFS: "Mount the volume writable for this container, or choose another destination.",
    errno.EACCES: "Check the owner and mode of the destination; in Kubernetes set fsGroup or runAsUser.",
    errno.EPERM: "Check the owner and mode of the destination; in Kubernetes set fsGroup or runAsUser.",
    errno.EIO: "The disk fails: look at the node's kernel log.",
    errno.EFBIG: "The file system cannot hold files of this size.",
    errno.ENOTDIR: "Something is a file where a directory must go: move it away, or choose another destination.",
    errno.EISDIR: "Something is a directory where a file must go: move it away, or choose another destination.",
}


def explain(error: OSError, path: Path | str) -> ModelfetchError:
    """The error for a failed operation on a file of the destination."""
    where = error.filename or path
    if error.errno == errno.ENAMETOOLONG:
        return UnsafeNameError(f"The name {where} is too long for the file system.", hint="Choose a shorter one.")
    if error.errno == errno.EILSEQ:
        return UnsafeNameError(f"The file system does not take the name {where}.", hint="Leave it out with --exclude.")
    hint = _HINTS.get(error.errno or 0, "Check the destination.")
    return DestinationError(f"Cannot write {where}: {error.strerror or error}.", hint=hint)


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn what the operating system says into a DestinationError that names the path."""
    try:
        yield
    except OSError as error:
        raise explain(error, path) from error


def make_directory(path: Path) -> None:
    """Make a directory and those above it, with mode 0755 whatever the umask: others read the model."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):
            one.mkdir()
            one.chmod(0o755)
        if not one.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(one))

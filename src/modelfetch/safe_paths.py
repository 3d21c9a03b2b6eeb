"""Safe paths: validation of names before use on disk, whether a store's key or a member of an archive.

A name must name its path literally. Names that a file system, a shell or a reader would take for another name are
refused, never repaired: a repaired name can land on a file that another name owns.
"""

import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from modelfetch.errors import UnsafeNameError

MAX_SEGMENT_BYTES = 255  # NAME_MAX of Linux and of every file system used for volumes
MAX_PATH_BYTES = 4095  # PATH_MAX of Linux without its NUL; the destination's own path comes on top
# Appended to a file's or object's name, or alone inside a directory. No suffix of a model's: KServe's xgboost server
# takes any `.json` for the model.
RECEIPT_SUFFIX = ".modelfetch-receipt"
MANIFEST_SUFFIX = ".modelfetch-manifest"
OLD_RECEIPT_SUFFIX = ".modelfetch.json"  # read until 0.2.0 is tagged, never written
OLD_MANIFEST_SUFFIX = ".modelfetch-manifest.json"
MAX_DEPTH = 512  # reachable by a key of 1,024 bytes; recursive tree walks fail near 1,000

SIGNATURE_NAME = "model.sig"  # a directory's signature, by the convention of model_signing
_ARCHIVE_SUFFIXES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"),
    ".zip",
)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode category Cc
_MAX_PLAUSIBLE_SEGMENT = 100  # characters; a token is longer than the segments of a usual path
_USUAL_PATH = re.compile(r"[\w.~ @%,:()/-]+")
_FILE_NAME = re.compile(r"[\w ~-]{1,64}\.[A-Za-z][A-Za-z0-9]{1,7}")  # a word without a slash names a file if it ends so
_RESERVED_PREFIX = ".modelfetch"
_RESERVED_SUFFIXES = (RECEIPT_SUFFIX, MANIFEST_SUFFIX, OLD_RECEIPT_SUFFIX, OLD_MANIFEST_SUFFIX)
_HINTS = {
    "key": "Leave it out with --exclude, or give the object another name.",
    "member": "Pack the archive again with plain relative names, or keep it as it is with --no-extract.",
}


def check_path(path: str, kind: str = "key") -> None:
    """Refuse a path without a literal meaning, or beyond the limits of file systems.

    Args:
        path: relative, with `/` between segments and none at the end.
        kind: `key` or `member`, for the message and its hint.

    Raises:
        UnsafeNameError: the path is empty or absolute, has an empty, `.` or `..` segment, a control character, a
            backslash, characters outside UTF-8, or is too long or too deep.
    """
    flaw = _find_flaw(path)
    if flaw:
        raise UnsafeNameError(f"The {kind} {quote_path(path)} {flaw}.", hint=_HINTS.get(kind, ""))


def check_paths(paths: Iterable[str], kind: str = "key") -> None:
    """Refuse unsafe paths, and paths in conflict with each other.

    Names that differ only in case or Unicode form pass: clashes depend on the file system.

    Raises:
        UnsafeNameError: as for `check_path`; or a path occurs twice, or is both a file and the directory of another.
    """
    files: set[str] = set()
    for path in paths:
        check_path(path, kind)
        if path in files:
            raise UnsafeNameError(f"The {kind} {quote_path(path)} comes twice.", hint=_HINTS.get(kind, ""))
        files.add(path)
    directories: set[str] = set()
    for path in files:
        for parent in parent_paths(path):
            if parent in directories:
                break
            if parent in files:
                clash = f"The {kind} {quote_path(parent)} is a file, and {quote_path(path)} needs it to be a directory."
                raise UnsafeNameError(clash, hint=_HINTS.get(kind, ""))
            directories.add(parent)


def is_reserved_path(path: str) -> bool:
    """Return whether a segment of the path is reserved for receipts, manifests or staging areas, in any case.

    Reserved paths are part of no model: a receipt or manifest inside a model would speak for files of another pull.
    """
    folded = path.casefold()  # some file systems ignore the case
    return _RESERVED_PREFIX in folded and any(
        segment.startswith(_RESERVED_PREFIX) or segment.endswith(_RESERVED_SUFFIXES) for segment in folded.split("/")
    )


def describe_reserved(count: int, where: str) -> str:
    """Return the log message for files that were left out for their reserved names."""
    return f"{count} file{'s'[: count != 1]} of {where} with reserved names (.modelfetch…) left out."


def is_manifest_path(path: str) -> bool:
    """Return whether the path is a manifest's, by the present or the old name."""
    return path.endswith((MANIFEST_SUFFIX, OLD_MANIFEST_SUFFIX))


def strip_manifest_suffix(path: str) -> str:
    """Return the path of what a manifest covers: a file, or a directory with a slash at the end, or empty."""
    return path.removesuffix(OLD_MANIFEST_SUFFIX).removesuffix(MANIFEST_SUFFIX)


def is_archive_name(name: str) -> bool:
    """Return whether a file's name has an archive suffix."""
    return PurePosixPath(name).name.lower().endswith(_ARCHIVE_SUFFIXES)


def is_path_like(value: str) -> bool:
    """Return whether a text is the path of a file, and not a key or token put where a path belongs."""
    path = value.rstrip("\n")
    if not _USUAL_PATH.fullmatch(path) or max(map(len, path.split("/"))) > _MAX_PLAUSIBLE_SEGMENT:
        return False
    return path[0] in "/.~" or _FILE_NAME.fullmatch(path.rpartition("/")[2]) is not None or os.path.exists(path)  # noqa: PTH110  the text may be no path


def parent_paths(path: str) -> Iterable[str]:
    """Yield the directories above a path, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def quote_path(path: str) -> str:
    """Return a name for a message: quoted, one line, at most some 200 characters."""
    limit = 200
    quoted = repr(path[: limit + 1])
    if len(path) <= limit and len(quoted) <= limit:
        return quoted
    head, tail = path[: limit // 2], path[-limit // 2 :]
    while len(repr(head)) > limit // 2:  # repr may show a character as ten
        head = head[:-1]
    while len(repr(tail)) > limit // 2:
        tail = tail[1:]
    return f"{head!r}…{tail!r}"


def _find_flaw(path: str) -> str:
    """Return the reason why a path is unsafe, or an empty string for a safe path."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    segments = path.split("/")
    longest = max(len(segment) for segment in encoded.split(b"/"))
    flaws = {
        "is empty": not path,
        "is absolute": path.startswith("/"),
        "has a control character in it": _CONTROL_CHARACTERS.search(path),
        "has a backslash in it": "\\" in path,
        "has an empty segment": "" in segments,
        "has a '.' segment": "." in segments,
        "has a '..' segment": ".." in segments,
        f"has a segment of more than {MAX_SEGMENT_BYTES} bytes": longest > MAX_SEGMENT_BYTES,
        f"is longer than {MAX_PATH_BYTES} bytes": len(encoded) > MAX_PATH_BYTES,
        f"is nested deeper than {MAX_DEPTH} directories": len(segments) > MAX_DEPTH,
    }
    return next((flaw for flaw, found in flaws.items() if found), "")

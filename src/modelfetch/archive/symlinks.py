"""Symlink resolution inside the archive, before any symlink exists on disk."""

from collections.abc import Container, Mapping
from typing import NamedTuple

from modelfetch.errors import ArchiveError
from modelfetch.safe_paths import quote_path

MAX_HOPS = 40  # symlinks that Linux follows for one path: path_resolution(7)


class _LinkTree(NamedTuple):
    """All paths of the archive by type, and the results so far: resolved path and number of hops by symlink."""

    links: Mapping[str, str]
    files: Container[str]
    directories: Container[str]
    resolved: dict[str, tuple[str, int]]


def resolve_symlinks(links: Mapping[str, str], files: Container[str], directories: Container[str]) -> dict[str, str]:
    """Resolve symlinks as the kernel would, inside the tree of these paths.

    A lexical check is not enough: in `a/../b`, `..` is the parent of the directory to which a symlink `a` leads. Each
    symlink is resolved once, however many lead there: otherwise a few kilobytes could keep a processor busy for hours.

    Args:
        links: relative target by symlink path.
        files: paths of regular files.
        directories: paths of directories, the parents of all symlinks included.

    Returns:
        Resolved file or directory by symlink path; never a symlink.

    Raises:
        ArchiveError: a symlink leads out of the tree, to a missing path, in a circle, or to a parent directory of the
            symlink.
    """
    tree = _LinkTree(links, files, directories, {})
    return {path: _follow_link(path, tree, MAX_HOPS)[0] for path in links}


def _follow_link(path: str, tree: _LinkTree, hops_left: int) -> tuple[str, int]:
    """Return the resolved path of a symlink and the number of hops; `hops_left` bounds the recursion."""
    if path in tree.resolved:
        return tree.resolved[path]
    if not hops_left:
        raise _link_error(path, tree, "leads round in a circle")
    position, hops = path.rpartition("/")[0], 1
    for segment in tree.links[path].split("/"):
        if position in tree.files:
            raise _link_error(path, tree, "leads to nothing in the archive")
        position = _resolve_segment(position, segment, path, tree)
        if position in tree.links:
            position, nested_hops = _follow_link(position, tree, hops_left - 1)
            hops += nested_hops
    if hops > MAX_HOPS:
        raise _link_error(path, tree, "leads round in a circle")
    if not position or path.startswith(f"{position}/"):
        raise _link_error(path, tree, "leads to a directory that it lies in")
    tree.resolved[path] = position, hops
    return position, hops


def _resolve_segment(directory: str, segment: str, link: str, tree: _LinkTree) -> str:
    """Return the path of one segment of a symlink's target, seen from `directory`."""
    if segment in ("", "."):
        return directory
    if segment == "..":
        if not directory:
            raise _link_error(link, tree, "leads out of the archive")
        return directory.rpartition("/")[0]
    entry_path = f"{directory}/{segment}" if directory else segment
    if entry_path not in tree.directories and entry_path not in tree.files and entry_path not in tree.links:
        raise _link_error(link, tree, "leads to nothing in the archive")
    return entry_path


def _link_error(path: str, tree: _LinkTree, flaw: str) -> ArchiveError:
    return ArchiveError(f"The link {quote_path(path)} to {quote_path(tree.links[path])} {flaw}.")

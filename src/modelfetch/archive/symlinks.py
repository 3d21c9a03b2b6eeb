"""Where symbolic links lead, worked out before any of them exists."""

from collections.abc import Container, Mapping
from typing import NamedTuple

from modelfetch.errors import ArchiveError
from modelfetch.safe_paths import quote_path

MAX_HOPS = 40  # links that Linux follows for one name: path_resolution(7)


class _LinkTree(NamedTuple):
    """The names that are to be, and what is known already: a link's end, and the links followed to it."""

    links: Mapping[str, str]
    files: Container[str]
    directories: Container[str]
    known: dict[str, tuple[str, int]]


def resolve_links(links: Mapping[str, str], files: Container[str], directories: Container[str]) -> dict[str, str]:
    """Follow links as the kernel would, inside the tree that these names make up.

    A lexical check is not enough: in `a/../b` the `..` is that of the directory that a link `a` leads to. Each link is
    followed once, however many lead to it: a few kilobytes could keep a processor busy for hours otherwise.

    Args:
        links: the target of each link, relative.
        files: what is a regular file.
        directories: what is a directory; those that links stand in are among them.

    Returns:
        The file or directory that each link leads to, itself no link.

    Raises:
        ArchiveError: one leads out of the tree, to nothing, round in a circle, or to a directory it lies in.
    """
    tree = _LinkTree(links, files, directories, {})
    return {path: _follow(path, tree, MAX_HOPS)[0] for path in links}


def _follow(path: str, tree: _LinkTree, left: int) -> tuple[str, int]:
    """Where a link leads, and how many were followed, with itself; `left` may be."""
    if path in tree.known:
        return tree.known[path]
    if not left:
        raise _refusal(path, tree, "leads round in a circle")
    at, hops = path.rpartition("/")[0], 1
    for segment in tree.links[path].split("/"):
        if at in tree.files:
            raise _refusal(path, tree, "leads to nothing in the archive")
        at = _step(at, segment, path, tree)
        if at in tree.links:
            at, more = _follow(at, tree, left - 1)
            hops += more
    if hops > MAX_HOPS:
        raise _refusal(path, tree, "leads round in a circle")
    if not at or path.startswith(f"{at}/"):
        raise _refusal(path, tree, "leads to a directory that it lies in")
    tree.known[path] = at, hops
    return at, hops


def _step(at: str, segment: str, path: str, tree: _LinkTree) -> str:
    """From a directory to what a segment of a link's target names there."""
    if segment in ("", "."):
        return at
    if segment == "..":
        if not at:
            raise _refusal(path, tree, "leads out of the archive")
        return at.rpartition("/")[0]
    there = f"{at}/{segment}" if at else segment
    if there not in tree.directories and there not in tree.files and there not in tree.links:
        raise _refusal(path, tree, "leads to nothing in the archive")
    return there


def _refusal(path: str, tree: _LinkTree, flaw: str) -> ArchiveError:
    return ArchiveError(f"The link {quote_path(path)} to {quote_path(tree.links[path])} {flaw}.")

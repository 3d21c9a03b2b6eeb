"""Where a symbolic link leads, worked out before any link exists."""

from collections.abc import Container, Mapping

from modelfetch.errors import ArchiveError
from modelfetch.names import shown

MAX_HOPS = 40  # links that Linux follows for one name: path_resolution(7)


def resolve(path: str, links: Mapping[str, str], files: Container[str], directories: Container[str]) -> str:
    """Follow a link as the kernel would, inside the tree that these names make up.

    A lexical check is not enough: in `a/../b` the `..` is that of the directory that a link `a` leads to.

    Returns:
        The file or directory it leads to, itself no link.

    Raises:
        ArchiveError: the link leads out of the tree, to nothing, round in a circle, or to a directory it lies in.
    """
    at: list[str] = []
    ahead = path.split("/")[::-1]
    hops = 0
    while ahead:
        segment = ahead.pop()
        if segment == "..":
            if not at:
                raise _refusal(path, links, "leads out of the archive")
            at.pop()
        elif segment not in ("", "."):
            here = "/".join([*at, segment])
            if here in links:
                hops += 1
                ahead.extend(links[here].split("/")[::-1])
            elif here in directories or (here in files and not ahead):
                at.append(segment)
            else:
                raise _refusal(path, links, "leads to nothing in the archive")
        if hops > MAX_HOPS:
            raise _refusal(path, links, "leads round in a circle")
    end = "/".join(at)
    if not end or path.startswith(f"{end}/"):
        raise _refusal(path, links, "leads to a directory that it lies in")
    return end


def _refusal(path: str, links: Mapping[str, str], flaw: str) -> ArchiveError:
    return ArchiveError(f"The link {shown(path)} to {shown(links[path])} {flaw}.")

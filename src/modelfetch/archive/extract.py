"""The unpacking of an archive, whatever its format."""

from pathlib import Path

from modelfetch.archive.base import Budget, ForwardReader, Member
from modelfetch.archive.formats import HEAD, describe, is_tar, recognise
from modelfetch.archive.streams import Forward, Packed, codec, inflate, within_ratio
from modelfetch.archive.tree import Tree
from modelfetch.errors import ArchiveError, BudgetError, UnsafeNameError

_HINT = "Check how the archive was made, or keep it as it is with --no-extract."


def unpack(stream: ForwardReader, name: str, into: Path, *, scratch: Path, budget: Budget) -> list[Member]:
    """Unpack an archive while it streams.

    The content decides the format: tar, plain or in gzip, bzip2, xz or zstd, and zip. What lies at the top under a name
    of the kind `.modelfetch*` is left out: it is what an earlier pull left in the directory that was packed. Files
    become 0644, or 0755 if executable, directories 0755; owners, times and other bits of the mode are not kept. Nothing
    is flushed to disk.

    Args:
        stream: the archive, from its first byte; it is read to its end.
        name: its name, for messages.
        into: an empty directory; what it holds after an error is to be thrown away.
        scratch: a file to keep a zip in meanwhile, for its directory stands at its end; it is removed afterwards.
        budget: what may be unpacked.

    Returns:
        The unpacked files, sorted by path.

    Raises:
        ArchiveError: it is no archive, is damaged, or holds what must not be unpacked.
        UnsafeNameError: a member's name must not be written, or the file system cannot keep two names apart.
        BudgetError: it holds more than the budget allows.
        DestinationError: the disk has no room, or fails.
        ModelfetchError: whatever `stream` raises, as it is.
    """
    packed = Packed(stream)
    try:
        return _unpack(packed, into, scratch, budget)
    except (ArchiveError, UnsafeNameError, BudgetError) as error:
        if error is packed.failure:
            raise
        raise type(error)(f"{name}: {error.message}", hint=error.hint or _HINT) from error


def _unpack(packed: Packed, into: Path, scratch: Path, budget: Budget) -> list[Member]:
    tree = Tree(into, budget)
    data = Forward(iter(packed))
    head = data.peek(HEAD)
    kind = recognise(head)
    if kind == "zip":
        # Imported on demand, as tarball below: a format that is not there costs no start-up time.
        from modelfetch.archive.zipped import unpack_zip  # noqa: PLC0415

        unpack_zip(data, scratch, tree)
        return tree.finish()
    if kind not in ("tar", ""):
        data = Forward(within_ratio(inflate(data.rest(), codec(kind)), packed, budget.max_ratio))
        head = data.peek(HEAD)
    if not is_tar(head):
        inside = f"{kind} data with something in it that is no tar" if kind else describe(head)
        raise ArchiveError(f"The name promises an archive, but the content is {inside}.", hint=_HINT_NO_ARCHIVE)
    from modelfetch.archive.tarball import unpack_tar  # noqa: PLC0415

    unpack_tar(data, tree)
    return tree.finish()


_HINT_NO_ARCHIVE = "Use --no-extract to keep it as it is, or upload it under a fitting name."

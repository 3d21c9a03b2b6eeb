"""The unpacking of an archive, whatever its format."""

from pathlib import Path

from modelfetch.archive.base import Budget, ForwardReader, Member
from modelfetch.archive.decompress import CompressedInput, ForwardBuffer, codec, inflate, within_ratio
from modelfetch.archive.extraction_dir import ExtractionDir
from modelfetch.archive.formats import HEAD, describe_content, is_tar, recognise_format
from modelfetch.errors import ArchiveError, BudgetError, UnsafeNameError

_HINT = "Check how the archive was made, or keep it as it is with --no-extract."


def extract_archive(stream: ForwardReader, name: str, into: Path, *, scratch: Path, budget: Budget) -> list[Member]:
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
    packed = CompressedInput(stream)
    try:
        return _unpack(packed, into, scratch, budget)
    except (ArchiveError, UnsafeNameError, BudgetError) as error:
        if error is packed.failure:
            raise
        raise type(error)(f"{name}: {error.message}", hint=error.hint or _HINT) from error


def _unpack(packed: CompressedInput, into: Path, scratch: Path, budget: Budget) -> list[Member]:
    tree = ExtractionDir(into, budget)
    data = ForwardBuffer(iter(packed))
    head = data.peek(HEAD)
    kind = recognise_format(head)
    if kind == "zip":
        # Imported on demand, as tarball below: a format that is not there costs no start-up time.
        from modelfetch.archive.zip import unpack_zip  # noqa: PLC0415

        unpack_zip(data, scratch, tree)
        return tree.finish()
    if kind not in ("tar", ""):
        data = ForwardBuffer(within_ratio(inflate(data.rest(), codec(kind)), packed, budget.max_ratio))
        head = data.peek(HEAD)
    if not is_tar(head):
        inside = f"{kind} data with something in it that is no tar" if kind else describe_content(head)
        raise ArchiveError(f"The name promises an archive, but the content is {inside}.", hint=_HINT_NO_ARCHIVE)
    from modelfetch.archive.tar import unpack_tar  # noqa: PLC0415

    unpack_tar(data, tree)
    return tree.finish()


_HINT_NO_ARCHIVE = "Use --no-extract to keep it as it is, or upload it under a fitting name."

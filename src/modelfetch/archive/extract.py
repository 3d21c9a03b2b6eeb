"""Archive extraction: from a stream of any supported format to files."""

from collections.abc import Callable
from pathlib import Path

from modelfetch.archive.base import Budget, ForwardReader, Member
from modelfetch.archive.decompress import CompressedInput, ForwardBuffer, decompress_stream, enforce_ratio, load_codec
from modelfetch.archive.extraction_dir import ExtractionDir
from modelfetch.archive.formats import HEAD_BYTES, describe_content, is_tar_header, recognise_format
from modelfetch.errors import ArchiveError, BudgetError, UnsafeNameError
from modelfetch.volume.staged_tree import StagedTree

_HINT = "Check how the archive was made, or keep it as it is with --no-extract."
_NO_ARCHIVE_HINT = "Use --no-extract to keep it as it is, or upload it under a fitting name."


def extract_archive(
    stream: ForwardReader,
    name: str,
    target: StagedTree,
    *,
    scratch: Path,
    budget: Budget,
    on_reserved: Callable[[int], None] = lambda _: None,
) -> list[Member]:
    """Extract an archive while the stream arrives.

    The content decides the format: tar, plain or compressed with gzip, bzip2, xz or zstd, and zip. Members with
    reserved names are left out: receipts, manifests and staging areas of earlier pulls to the packed directory. Files
    become 0644, or 0755 if executable, directories 0755; owners, times and other mode bits are dropped. Nothing is
    flushed to disk.

    Args:
        stream: the archive from the first byte; read to the end.
        name: the archive's name, for messages.
        target: an empty directory; after an error, the content must be discarded.
        scratch: file that holds a zip until the central directory at the end has arrived; removed afterwards.
        budget: limits for bytes, members and compression ratio.
        on_reserved: called with the number of members left out for their reserved names, if there are any.

    Returns:
        The extracted members, sorted by path.

    Raises:
        ArchiveError: the content is no archive, is damaged, or has a member of a refused type.
        UnsafeNameError: a member's name is unsafe, or the file system cannot keep two names apart.
        BudgetError: the content exceeds the budget.
        DestinationError: the disk is full or fails.
        ModelfetchError: `stream` failed; the error is passed on unchanged.
    """
    source = CompressedInput(stream)
    try:
        extraction_dir = ExtractionDir(target, budget)
        _extract_members(source, scratch, extraction_dir)
        members = extraction_dir.finish_extraction()
    except (ArchiveError, UnsafeNameError, BudgetError) as error:
        if error is source.stream_error:
            raise
        raise type(error)(f"{name}: {error.message}", hint=error.hint or _HINT) from error
    if extraction_dir.reserved:
        on_reserved(extraction_dir.reserved)
    return members


def _extract_members(source: CompressedInput, scratch: Path, extraction_dir: ExtractionDir) -> None:
    buffer, max_ratio = ForwardBuffer(iter(source)), extraction_dir.budget.max_ratio
    head = buffer.peek_bytes(HEAD_BYTES)
    format_name = recognise_format(head)
    if format_name == "zip":
        # Imported on demand, like `tar` below: an absent format costs no start-up time.
        from modelfetch.archive.zip import extract_zip  # noqa: PLC0415

        extract_zip(buffer, scratch, extraction_dir)
        return
    if format_name not in ("tar", ""):
        buffer = ForwardBuffer(
            enforce_ratio(decompress_stream(buffer.read_rest(), load_codec(format_name)), source, max_ratio)
        )
        head = buffer.peek_bytes(HEAD_BYTES)
    if not is_tar_header(head):
        content = f"{format_name} data with something in it that is no tar" if format_name else describe_content(head)
        raise ArchiveError(f"The name promises an archive, but the content is {content}.", hint=_NO_ARCHIVE_HINT)
    from modelfetch.archive.tar import extract_tar  # noqa: PLC0415

    extract_tar(buffer, extraction_dir)

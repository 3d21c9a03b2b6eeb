"""Tar members: ustar, pax (POSIX.1-2001), GNU and the old v7 format.

The standard library decodes header blocks; this module reads everything between. Python's TarFile takes a damaged
header for the end of the archive, ignores bytes after the end marker, and reads an extended header of any size into
memory.
"""

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from modelfetch.archive.decompress import ForwardBuffer
from modelfetch.archive.extraction_dir import ExtractionDir
from modelfetch.errors import ArchiveError
from modelfetch.safe_paths import quote_path

MAX_EXTENDED_HEADER_BYTES = 1024**2  # an extended header is read into memory

_BLOCK = tarfile.BLOCKSIZE
_REGULAR_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_GNU_LONG_TYPES = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_REFUSED_TYPES = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_SPARSE_KEY = "GNU.sparse"
_SIGNIFICANT_KEYS = ("path", "linkpath", "size", _SPARSE_KEY)  # pax keywords that change the extracted files
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")


class MemberHeader(NamedTuple):
    """Decoded header of one member, with extended headers applied."""

    name: str
    type_flag: bytes
    size: int
    link_target: str
    executable: bool


def extract_tar(buffer: ForwardBuffer, extraction_dir: ExtractionDir) -> None:
    """Extract every member, and read to the end of the stream.

    Raises:
        ArchiveError: a header is damaged or ambiguous, a member's type is refused, or the end marker is missing or
            followed by other bytes than zeros.
    """
    for header in _read_headers(buffer, extraction_dir.admit_header_bytes):
        _extract_member(header, buffer, extraction_dir)
        _skip_bytes(buffer, -header.size % _BLOCK)
    for piece in buffer.read_rest():
        if piece != bytes(len(piece)):
            raise ArchiveError("Something follows the end of the tar.")


def _read_headers(buffer: ForwardBuffer, admit_bytes: Callable[[int], None]) -> Iterator[MemberHeader]:
    """Yield member headers up to the end marker; the caller consumes each payload before requesting the next header.

    Args:
        buffer: the tar.
        admit_bytes: counts the bytes of each extended header, before they are read.
    """
    extended: dict[str, str] = {}
    while any(block := _read_block(buffer)):
        info = _decode_header(block)
        if info.type in _PAX_TYPES or info.type in _GNU_LONG_TYPES or info.type == tarfile.XGLTYPE:
            admit_bytes(min(info.size, MAX_EXTENDED_HEADER_BYTES))  # a larger one is refused below
        if info.type in _PAX_TYPES or info.type in _GNU_LONG_TYPES:
            _merge_extended_header(extended, info, _read_extended_payload(info, buffer))
        elif info.type == tarfile.XGLTYPE:
            _check_global_header(_read_extended_payload(info, buffer))
        else:
            yield _apply_extended_header(block, info, extended)
            extended = {}
    if extended:
        raise ArchiveError("The tar ends after an extended header, before the member that it is for.")
    if any(_read_block(buffer)):  # POSIX.1: two blocks of zeros; a single block may be the rest of a member
        raise ArchiveError("The tar has a single block of zeros where its end marker should be.")


def _extract_member(header: MemberHeader, buffer: ForwardBuffer, extraction_dir: ExtractionDir) -> None:
    name = extraction_dir.admit_member(header.name, is_directory=header.type_flag == tarfile.DIRTYPE)
    if header.type_flag not in (*_REGULAR_TYPES, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE):
        unknown = f"of the unknown type {quote_path(header.type_flag.decode('latin-1'))}"
        raise ArchiveError(f"The member {quote_path(name)} is {_REFUSED_TYPES.get(header.type_flag, unknown)}.")
    if not name or extraction_dir.leaves_out(name):
        _skip_bytes(buffer, header.size)
    elif header.type_flag == tarfile.DIRTYPE:
        extraction_dir.make_directory(name)
    elif header.type_flag == tarfile.LNKTYPE:
        extraction_dir.add_hard_link(name, header.link_target)
    elif header.type_flag == tarfile.SYMTYPE:
        extraction_dir.add_symlink(name, header.link_target)
    else:
        extraction_dir.write_file(name, header.size, buffer.read_exactly(header.size), executable=header.executable)


def _read_block(buffer: ForwardBuffer) -> bytes:
    block = buffer.read_up_to(_BLOCK)
    if len(block) < _BLOCK:
        raise ArchiveError("The tar ends without its end marker: a part of it is missing.")
    return block


def _decode_header(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ArchiveError(f"A header of the tar is damaged ({error}).") from error
    if info.size < 0:
        raise ArchiveError(f"The member {quote_path(info.name)} has a negative size.")
    return info


def _apply_extended_header(block: bytes, info: tarfile.TarInfo, extended: dict[str, str]) -> MemberHeader:
    if _SPARSE_KEY in extended:
        info.type = tarfile.GNUTYPE_SPARSE
    size = int(extended.get("size", info.size))
    if info.type == tarfile.LNKTYPE:
        size = 0  # some writers give the size of the linked file, none writes a payload; same reading as GNU tar
    elif info.type in (tarfile.SYMTYPE, tarfile.DIRTYPE) and size:
        raise ArchiveError(f"The member {quote_path(info.name)} has a size, but is no file.")
    name = extended.get("path", _decode_header_name(block))
    return MemberHeader(name, info.type, size, extended.get("linkpath", info.linkname), bool(info.mode & 0o111))


def _decode_header_name(block: bytes) -> str:
    """Return the name of a header block.

    Only POSIX headers have a prefix field: GNU headers keep times in the same place, old headers anything.
    """
    name, prefix = (_decode_name(block[start:end].split(b"\0")[0]) for start, end in ((0, 100), (345, 500)))
    return f"{prefix}/{name}" if prefix and block[257:263] == tarfile.POSIX_MAGIC[:6] else name


def _read_extended_payload(info: tarfile.TarInfo, buffer: ForwardBuffer) -> bytes:
    """Read the payload of an extended header."""
    if info.size > MAX_EXTENDED_HEADER_BYTES:
        raise ArchiveError("An extended header of the tar is larger than 1 MiB.")
    payload = b"".join(buffer.read_exactly(info.size))
    _skip_bytes(buffer, -info.size % _BLOCK)
    return payload


def _merge_extended_header(extended: dict[str, str], info: tarfile.TarInfo, payload: bytes) -> None:
    """Add the records of an extended header to `extended`, the settings of the next member.

    Raises:
        ArchiveError: two values for one keyword, or a size that is no number.
    """
    long_key = _GNU_LONG_TYPES.get(info.type)
    for key, value in [(long_key, payload.split(b"\0")[0])] if long_key else _parse_pax_records(payload):
        text = "" if key == _SPARSE_KEY else _decode_name(value)
        if key in _SIGNIFICANT_KEYS and extended.setdefault(key, text) != text:
            raise ArchiveError(f"The tar gives a member two values for its {key}: {quote_path(text)} is the second.")
    size = extended.get("size", "0")
    if not (size.isascii() and size.isdecimal() and len(size) < 20):
        raise ArchiveError(f"The tar gives a member the size {quote_path(size)}.")


def _check_global_header(payload: bytes) -> None:
    """Ignore a global header, such as git's with the commit id, unless the records change members.

    Raises:
        ArchiveError: a record sets the name, link target, size or sparse map of every member.
    """
    for key, _ in _parse_pax_records(payload):
        if key in _SIGNIFICANT_KEYS:
            raise ArchiveError(f"The tar has a global header that sets the {key} of every member.")


def _parse_pax_records(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield keywords and values of a pax header; each record is `length keyword=value` and a line feed."""
    payload = payload.rstrip(b"\0")
    start = 0
    while start < len(payload):
        length = _RECORD_LENGTH.match(payload, start)
        end = start + int(length[1]) if length else 0
        record = payload[length.end() : end] if length else b""
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if end > len(payload) or not equals or not record.endswith(b"\n"):
            raise ArchiveError("An extended header of the tar is damaged.")
        yield _SPARSE_KEY if key.startswith(b"GNU.sparse.") else _decode_name(key), value
        start = end


def _decode_name(name: bytes) -> str:
    """Decode a name; bytes outside UTF-8 become surrogates, for `check_path` to refuse."""
    return name.decode("utf-8", "surrogateescape")


def _skip_bytes(buffer: ForwardBuffer, size: int) -> None:
    for _ in buffer.read_exactly(size):
        pass

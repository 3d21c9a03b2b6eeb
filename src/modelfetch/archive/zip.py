"""Zip members: the subset of PKWARE's APPNOTE.TXT 6.3.10 that models need.

The standard library reads the central directory. Payloads are decompressed here, in bounded pieces, because the reader
of zipfile expands bzip2 without bound. Members with overlapping bytes, the trick of the densest bombs, are refused.
"""

import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from isal import isal_zlib

from modelfetch.archive.decompress import PIECE_BYTES, ForwardBuffer, check_ratio, decompress_stream, load_codec
from modelfetch.archive.extraction_dir import ExtractionDir
from modelfetch.errors import ArchiveError, BudgetError
from modelfetch.safe_paths import MAX_PATH_BYTES, quote_path
from modelfetch.volume.filesystem import disk_errors

MAX_CENTRAL_DIRECTORY_BYTES = 64 * 1024**2  # the central directory is read into memory

_STORED = 0
_METHODS = {8: "deflate", 12: "bzip2", 93: "zstd"}  # not LZMA (14): a member can make the decompressor allocate 4 GiB
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly encrypted, masked directory
_UTF8_FLAG = 0x800  # flag bit: the name is UTF-8
_END_RECORD = struct.Struct("<4s4H2LH")  # end of central directory: APPNOTE 4.3.16
_ZIP64_END_RECORD = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_ZIP64_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # 4.3.7
_TAIL_BYTES = _END_RECORD.size + 0xFFFF  # the end record must start within: at most the archive comment follows


class _CentralDirectory(NamedTuple):
    """Central directory as the end-of-central-directory record describes: number of members, bytes, offset."""

    members: int
    size: int
    offset: int


def extract_zip(buffer: ForwardBuffer, scratch: Path, extraction_dir: ExtractionDir) -> None:
    """Store the zip in `scratch` up to the end, then extract every member.

    Raises:
        ArchiveError: the zip is damaged, ambiguous, encrypted or compressed by an unsupported method, or a member's
            type is refused.
        BudgetError: the central directory announces more than the budget allows; nothing has been extracted.
    """
    with disk_errors(scratch), scratch.open("x+b") as file:
        try:
            for piece in buffer.read_rest():
                file.write(piece)
            _extract_members(file, extraction_dir)
        finally:
            scratch.unlink()


def _extract_members(file: BinaryIO, extraction_dir: ExtractionDir) -> None:
    size = file.seek(0, 2)
    directory = _find_central_directory(file, size)
    members = sorted(_list_members(file, directory, extraction_dir), key=lambda info: info.header_offset)
    total = sum(info.file_size for info in members)
    extraction_dir.check_budget(size=total)
    check_ratio(total, size, extraction_dir.budget.max_ratio)
    limits = [info.header_offset for info in members[1:]] + [directory.offset]
    if members and members[-1].header_offset > directory.offset:
        raise ArchiveError("The zip's central directory points behind itself.")
    for info, limit in zip(members, limits, strict=False):  # an empty zip has one limit and no member
        _extract_member(info, file, limit, extraction_dir)


def _find_central_directory(file: BinaryIO, size: int) -> _CentralDirectory:
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    record_start = tail.rfind(b"PK\x05\x06")
    if record_start < 0 or len(tail) - record_start < _END_RECORD.size:
        raise ArchiveError("The zip ends without its central directory: a part of it is missing.")
    _, disk, directory_disk, disk_members, members, directory_size, directory_offset, comment_size = (
        _END_RECORD.unpack_from(tail, record_start)
    )
    if record_start + _END_RECORD.size + comment_size != len(tail):
        raise ArchiveError("Something follows the end of the zip.")
    record_offset = size - len(tail) + record_start
    directory, record_offset = _read_zip64_end_record(file, record_offset) or (
        _CentralDirectory(members, directory_size, directory_offset),
        record_offset,
    )
    if disk or directory_disk or disk_members != members or directory.offset + directory.size != record_offset:
        raise ArchiveError(
            "The zip's end record is damaged, or the zip is one of several parts, or stands behind others."
        )
    return directory


def _read_zip64_end_record(file: BinaryIO, end_offset: int) -> tuple[_CentralDirectory, int] | None:
    """Read the zip64 end record in front of the end record at `end_offset`; return the directory and the offset read.

    None if no zip64 locator precedes the end record.
    """
    if end_offset < _ZIP64_END_RECORD.size + _ZIP64_LOCATOR.size:
        return None
    record_offset = end_offset - _ZIP64_LOCATOR.size - _ZIP64_END_RECORD.size
    file.seek(record_offset)
    record = _ZIP64_END_RECORD.unpack(file.read(_ZIP64_END_RECORD.size))
    locator = _ZIP64_LOCATOR.unpack(file.read(_ZIP64_LOCATOR.size))
    if locator[0] != b"PK\x06\x07":
        return None
    if record[0] != b"PK\x06\x06" or locator[2] != record_offset or record[6] != record[7]:
        raise ArchiveError("The zip's 64-bit end record is damaged.")
    return _CentralDirectory(*record[7:10]), record_offset


def _list_members(file: BinaryIO, directory: _CentralDirectory, extraction_dir: ExtractionDir) -> list[zipfile.ZipInfo]:
    extraction_dir.check_budget(members=directory.members)
    if directory.size > MAX_CENTRAL_DIRECTORY_BYTES:
        raise BudgetError("The zip's central directory is larger than 64 MiB.")
    try:
        members = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError, OverflowError) as error:
        raise ArchiveError(f"The zip's central directory is damaged ({error}).") from error
    if len(members) != directory.members:
        raise ArchiveError(f"The zip says it holds {directory.members} files, but lists {len(members)}.")
    return members


def _extract_member(info: zipfile.ZipInfo, file: BinaryIO, limit: int, extraction_dir: ExtractionDir) -> None:
    """Extract a member; local header and payload must end at or before offset `limit`."""
    raw_name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8_FLAG else "cp437")
    # Writers on Linux omit the UTF-8 flag; names in other encodings are refused.
    full_name = raw_name.decode("utf-8", "surrogateescape")
    ends_with_slash = full_name.endswith("/")
    name = extraction_dir.admit_member(
        full_name, is_directory=ends_with_slash or stat.S_ISDIR(info.external_attr >> 16)
    )
    file_type = _check_member_type(info, is_directory=ends_with_slash)
    payload_offset = _locate_payload(info, raw_name, file, limit)
    if not name or extraction_dir.leaves_out(name):
        return
    payload = _read_payload(info, payload_offset, file)
    if file_type == stat.S_IFDIR:
        extraction_dir.make_directory(name)
    elif file_type == stat.S_IFLNK:
        extraction_dir.add_symlink(name, b"".join(payload).decode("utf-8", "surrogateescape"))
    else:
        extraction_dir.write_file(name, info.file_size, payload, executable=bool(info.external_attr >> 16 & 0o111))


def _check_member_type(info: zipfile.ZipInfo, *, is_directory: bool) -> int:
    """Return the type of a member as an S_IF constant: regular file, directory or symlink.

    Raises:
        ArchiveError: the member is of another type, encrypted, compressed by an unsupported method, a directory with
            content, or a symlink with a target longer than a path.
    """
    file_type: int = stat.S_IFMT(info.external_attr >> 16) or (stat.S_IFDIR if is_directory else stat.S_IFREG)
    name = quote_path(info.orig_filename)
    if info.flag_bits & _ENCRYPTED_FLAGS:
        raise ArchiveError(f"The member {name} is encrypted.")
    if info.compress_type != _STORED and info.compress_type not in _METHODS:
        raise ArchiveError(
            f"The member {name} is packed by method {info.compress_type}.",
            hint="Pack it with deflate or without compression, or keep it as it is with --no-extract.",
        )
    if file_type not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise ArchiveError(f"The member {name} is a device, a FIFO or a socket.")
    if (is_directory and file_type != stat.S_IFDIR) or (file_type == stat.S_IFDIR and info.file_size):
        raise ArchiveError(f"The member {name} is a directory by its name or mode, but not by the rest.")
    if file_type == stat.S_IFLNK and info.file_size > MAX_PATH_BYTES:  # the target is read into memory
        raise ArchiveError(f"The member {name} is a link with a target of {info.file_size} bytes.")
    return file_type


def _locate_payload(info: zipfile.ZipInfo, raw_name: bytes, file: BinaryIO, limit: int) -> int:
    """Return the offset of a member's payload, after comparing the local header with the central directory."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    signature, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    consistent = signature == b"PK\x03\x04" and file.read(name_length) == raw_name and method == info.compress_type
    if not consistent or flags & _ENCRYPTED_FLAGS:
        raise ArchiveError(
            f"The local header of {quote_path(info.orig_filename)} is not what the zip's directory says."
        )
    payload_offset: int = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if payload_offset + info.compress_size > limit:
        raise ArchiveError(f"The member {quote_path(info.orig_filename)} overlaps what comes after it.")
    return payload_offset


def _read_payload(info: zipfile.ZipInfo, payload_offset: int, file: BinaryIO) -> Iterator[memoryview]:
    """Yield a member's decompressed payload; check the size before each piece and the CRC-32 after the last."""
    pieces = _read_stored(file, payload_offset, info.compress_size)
    if info.compress_type != _STORED:
        pieces = decompress_stream(pieces, load_codec(_METHODS[info.compress_type]), single_member=True)
    crc, remaining = 0, info.file_size
    for piece in pieces:
        crc, remaining = isal_zlib.crc32(piece, crc), remaining - len(piece)
        if remaining < 0:
            break
        yield memoryview(piece)
    if remaining or crc != info.CRC:
        raise ArchiveError(
            f"The member {quote_path(info.orig_filename)} does not have the size and CRC-32 it should have."
        )


def _read_stored(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    file.seek(offset)
    while size and (piece := file.read(min(size, PIECE_BYTES))):
        size -= len(piece)
        yield piece

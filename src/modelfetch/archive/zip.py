"""The members of a zip: PKWARE's APPNOTE.TXT 6.3.10, as far as models need it.

The standard library reads the central directory. The content is decompressed here, in bounded pieces: zipfile's own
reader expands bzip2 without bound. Members that share bytes, the trick of the densest bombs, are refused.
"""

import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from isal import isal_zlib

from modelfetch.archive.decompress import PIECE, ForwardBuffer, check_ratio, codec, inflate
from modelfetch.archive.extraction_dir import ExtractionDir
from modelfetch.errors import ArchiveError, BudgetError
from modelfetch.safe_paths import MAX_PATH_BYTES, is_reserved_path, quote_path
from modelfetch.volume.filesystem import disk_errors

MAX_DIRECTORY = 64 * 1024**2  # bytes of the central directory: it is read into memory

_STORED = 0
_METHODS = {8: "deflate", 12: "bzip2", 93: "zstd"}  # not LZMA (14): a member can make it ask for 4 GiB of memory
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly encrypted, masked directory
_UTF8 = 0x800  # flag bit: the name is UTF-8
_END = struct.Struct("<4s4H2LH")  # end of central directory: APPNOTE 4.3.16
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR64 = struct.Struct("<4sLQL")  # 4.3.15
_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_TAIL = _END.size + 0xFFFF  # bytes in which the end record must start: the rest is the archive's comment


class _Directory(NamedTuple):
    """What the end record says of the central directory: members, bytes, and where it starts."""

    members: int
    size: int
    start: int


def unpack_zip(data: ForwardBuffer, scratch: Path, tree: ExtractionDir) -> None:
    """Keep the zip in `scratch` till its end has come, then unpack every member.

    Raises:
        ArchiveError: it is damaged or misleading, encrypted, packed in a way we do not unpack, or a member must not be.
        BudgetError: it says it holds more than it may; nothing has been unpacked then.
    """
    with disk_errors(scratch), scratch.open("w+b") as file:
        try:
            for piece in data.rest():
                file.write(piece)
            _unpack(file, tree)
        finally:
            scratch.unlink()


def _unpack(file: BinaryIO, tree: ExtractionDir) -> None:
    size = file.seek(0, 2)
    directory = _find_directory(file, size)
    members = sorted(_list(file, directory, tree), key=lambda info: info.header_offset)
    total = sum(info.file_size for info in members)
    tree.expect(size=total)
    check_ratio(total, size, tree.budget.max_ratio)
    ends = [info.header_offset for info in members[1:]] + [directory.start]
    if members and members[-1].header_offset > directory.start:
        raise ArchiveError("The zip's central directory points behind itself.")
    for info, end in zip(members, ends, strict=False):  # an empty zip has no member, yet an end
        _place(info, file, end, tree)


def _find_directory(file: BinaryIO, size: int) -> _Directory:
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise ArchiveError("The zip ends without its central directory: a part of it is missing.")
    _, disk, disk_of_directory, here, count, length, start, comment = _END.unpack_from(tail, found)
    if found + _END.size + comment != len(tail):
        raise ArchiveError("Something follows the end of the zip.")
    at = size - len(tail) + found
    directory, at = _zip64(file, at) or (_Directory(count, length, start), at)
    if disk or disk_of_directory or here != count or directory.start + directory.size != at:
        raise ArchiveError(
            "The zip's end record is damaged, or the zip is one of several parts, or stands behind others."
        )
    return directory


def _zip64(file: BinaryIO, end: int) -> tuple[_Directory, int] | None:
    """Read the large end record, if one stands before the small one at `end`; with it, where it starts."""
    if end < _END64.size + _LOCATOR64.size:
        return None
    at = end - _LOCATOR64.size - _END64.size
    file.seek(at)
    record = _END64.unpack(file.read(_END64.size))
    locator = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
    if locator[0] != b"PK\x06\x07":
        return None
    if record[0] != b"PK\x06\x06" or locator[2] != at or record[6] != record[7]:
        raise ArchiveError("The zip's 64-bit end record is damaged.")
    return _Directory(*record[7:10]), at


def _list(file: BinaryIO, directory: _Directory, tree: ExtractionDir) -> list[zipfile.ZipInfo]:
    tree.expect(members=directory.members)
    if directory.size > MAX_DIRECTORY:
        raise BudgetError("The zip's central directory is larger than 64 MiB.")
    try:
        members = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError, OverflowError) as error:
        raise ArchiveError(f"The zip's central directory is damaged ({error}).") from error
    if len(members) != directory.members:
        raise ArchiveError(f"The zip says it holds {directory.members} files, but lists {len(members)}.")
    return members


def _place(info: zipfile.ZipInfo, file: BinaryIO, end: int, tree: ExtractionDir) -> None:
    """Unpack a member whose bytes lie between its local header and `end`."""
    raw = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    full = raw.decode("utf-8", "surrogateescape")  # writers on Linux leave the flag out; what is not UTF-8 is refused
    slash = full.endswith("/")
    name = tree.admit(full, is_directory=slash or stat.S_ISDIR(info.external_attr >> 16))
    kind = _kind(info, is_directory=slash)
    start = _start(info, raw, file, end)
    if not name or is_reserved_path(name):
        return
    content = _content(info, start, file)
    if kind == stat.S_IFDIR:
        tree.directory(name)
    elif kind == stat.S_IFLNK:
        tree.symlink(name, b"".join(content).decode("utf-8", "surrogateescape"))
    else:
        tree.file(name, info.file_size, content, executable=bool(info.external_attr >> 16 & 0o111))


def _kind(info: zipfile.ZipInfo, *, is_directory: bool) -> int:
    """Return what a member is, as an S_IF constant: a regular file, a directory or a symbolic link."""
    kind: int = stat.S_IFMT(info.external_attr >> 16) or (stat.S_IFDIR if is_directory else stat.S_IFREG)
    name = quote_path(info.orig_filename)
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"The member {name} is encrypted.")
    if info.compress_type != _STORED and info.compress_type not in _METHODS:
        raise ArchiveError(
            f"The member {name} is packed by method {info.compress_type}.",
            hint="Pack it with deflate or without compression, or keep it as it is with --no-extract.",
        )
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise ArchiveError(f"The member {name} is a device, a FIFO or a socket.")
    if (is_directory and kind != stat.S_IFDIR) or (kind == stat.S_IFDIR and info.file_size):
        raise ArchiveError(f"The member {name} is a directory by its name or mode, but not by the rest.")
    if kind == stat.S_IFLNK and info.file_size > MAX_PATH_BYTES:  # it is read into memory
        raise ArchiveError(f"The member {name} is a link with a target of {info.file_size} bytes.")
    return kind


def _start(info: zipfile.ZipInfo, raw: bytes, file: BinaryIO, end: int) -> int:
    """Return where a member's content starts, after a look at its local header."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL.size)
    mark, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(header)
    same = mark == b"PK\x03\x04" and file.read(name_length) == raw and method == info.compress_type
    if not same or flags & _ENCRYPTED:
        raise ArchiveError(
            f"The local header of {quote_path(info.orig_filename)} is not what the zip's directory says."
        )
    start: int = info.header_offset + _LOCAL.size + name_length + extra_length
    if start + info.compress_size > end:
        raise ArchiveError(f"The member {quote_path(info.orig_filename)} overlaps what comes after it.")
    return start


def _content(info: zipfile.ZipInfo, start: int, file: BinaryIO) -> Iterator[memoryview]:
    """Yield a member's content, checked against its size before each piece and its CRC-32 after the last."""
    pieces = _stored(file, start, info.compress_size)
    if info.compress_type != _STORED:
        pieces = inflate(pieces, codec(_METHODS[info.compress_type]), single=True)
    crc, left = 0, info.file_size
    for piece in pieces:
        crc, left = isal_zlib.crc32(piece, crc), left - len(piece)
        if left < 0:
            break
        yield memoryview(piece)
    if left or crc != info.CRC:
        raise ArchiveError(
            f"The member {quote_path(info.orig_filename)} does not have the size and CRC-32 it should have."
        )


def _stored(file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    file.seek(start)
    while size and (piece := file.read(min(size, PIECE))):
        size -= len(piece)
        yield piece

"""The members of a tar: ustar, pax (POSIX.1-2001), GNU and the old v7 format.

The standard library decodes a header block; what stands between the blocks is read here. Python's TarFile takes a
damaged header for the end of the archive, looks no further than the end marker, and reads an extended header of any
size into memory.
"""

import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from modelfetch.archive.decompress import ForwardBuffer
from modelfetch.archive.extraction_dir import ExtractionDir
from modelfetch.errors import ArchiveError
from modelfetch.safe_paths import is_reserved_path, quote_path

MAX_EXTENDED = 1024**2  # bytes of one extended header: it is read into memory

_BLOCK = tarfile.BLOCKSIZE
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_REFUSED = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_SPARSE = "GNU.sparse"
_MEANT = ("path", "linkpath", "size", _SPARSE)  # the pax keywords that change what is unpacked
_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")


class Header(NamedTuple):
    """What the headers of one member say, extended ones applied."""

    name: str
    kind: bytes
    size: int
    target: str
    executable: bool


def unpack_tar(data: ForwardBuffer, tree: ExtractionDir) -> None:
    """Unpack every member, and read to the end of the stream.

    Raises:
        ArchiveError: a header is damaged or misleading, a member must not be unpacked, the end marker is missing, or
            something follows it.
    """
    for header in _headers(data):
        _place(header, data, tree)
        _skip(data, -header.size % _BLOCK)
    for piece in data.rest():
        if piece != bytes(len(piece)):
            raise ArchiveError("Something follows the end of the tar.")


def _headers(data: ForwardBuffer) -> Iterator[Header]:
    """Yield headers as far as the end marker; the content of each is to be taken before the next is asked for."""
    extended: dict[str, str] = {}
    while any(block := _block(data)):
        info = _decode(block)
        if info.type in _PAX or info.type in _LONG:
            _extend(extended, info, _payload(info, data))
        elif info.type == tarfile.XGLTYPE:
            _check_global(_payload(info, data))
        else:
            yield _header(block, info, extended)
            extended = {}
    if extended:
        raise ArchiveError("The tar ends after an extended header, before the member that it is for.")
    if any(_block(data)):  # POSIX.1: two blocks of zeros; one may be what is left of a member
        raise ArchiveError("The tar has a single block of zeros where its end marker should be.")


def _place(header: Header, data: ForwardBuffer, tree: ExtractionDir) -> None:
    name = tree.admit(header.name, is_directory=header.kind == tarfile.DIRTYPE)
    if header.kind not in (*_FILES, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE):
        what = _REFUSED.get(header.kind, f"of the unknown type {quote_path(header.kind.decode('latin-1'))}")
        raise ArchiveError(f"The member {quote_path(name)} is {what}.")
    if not name or is_reserved_path(name):
        _skip(data, header.size)
    elif header.kind == tarfile.DIRTYPE:
        tree.directory(name)
    elif header.kind == tarfile.LNKTYPE:
        tree.hard_link(name, header.target)
    elif header.kind == tarfile.SYMTYPE:
        tree.symlink(name, header.target)
    else:
        tree.file(name, header.size, data.exactly(header.size), executable=header.executable)


def _block(data: ForwardBuffer) -> bytes:
    block = data.upto(_BLOCK)
    if len(block) < _BLOCK:
        raise ArchiveError("The tar ends without its end marker: a part of it is missing.")
    return block


def _decode(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ArchiveError(f"A header of the tar is damaged ({error}).") from error
    if info.size < 0:
        raise ArchiveError(f"The member {quote_path(info.name)} has a negative size.")
    return info


def _header(block: bytes, info: tarfile.TarInfo, extended: dict[str, str]) -> Header:
    if _SPARSE in extended:
        info.type = tarfile.GNUTYPE_SPARSE
    size = int(extended.get("size", info.size))
    if info.type == tarfile.LNKTYPE:
        size = 0  # some writers give the size of the file it leads to, none the content: GNU tar reads it so
    elif info.type in (tarfile.SYMTYPE, tarfile.DIRTYPE) and size:
        raise ArchiveError(f"The member {quote_path(info.name)} has a size, but is no file.")
    name = extended.get("path", _name(block))
    return Header(name, info.type, size, extended.get("linkpath", info.linkname), bool(info.mode & 0o111))


def _name(block: bytes) -> str:
    """Return a header's own name. Only POSIX headers have a prefix: GNU ones keep times there, old ones anything."""
    name, prefix = (_text(block[start:end].split(b"\0")[0]) for start, end in ((0, 100), (345, 500)))
    return f"{prefix}/{name}" if prefix and block[257:263] == tarfile.POSIX_MAGIC[:6] else name


def _payload(info: tarfile.TarInfo, data: ForwardBuffer) -> bytes:
    """Read an extended header's content."""
    if info.size > MAX_EXTENDED:
        raise ArchiveError("An extended header of the tar is larger than 1 MiB.")
    payload = b"".join(data.exactly(info.size))
    _skip(data, -info.size % _BLOCK)
    return payload


def _extend(extended: dict[str, str], info: tarfile.TarInfo, payload: bytes) -> None:
    """Add what an extended header says of the next member."""
    long = _LONG.get(info.type)
    for key, value in [(long, payload.split(b"\0")[0])] if long else _records(payload):
        text = "" if key == _SPARSE else _text(value)
        if key in _MEANT and extended.setdefault(key, text) != text:
            raise ArchiveError(f"The tar gives a member two values for its {key}: {quote_path(text)} is the second.")
    size = extended.get("size", "0")
    if not (size.isascii() and size.isdecimal() and len(size) < 20):
        raise ArchiveError(f"The tar gives a member the size {quote_path(size)}.")


def _check_global(payload: bytes) -> None:
    """Pass over a header for all members, such as git's with its commit, unless it names or sizes them."""
    for key, _ in _records(payload):
        if key in _MEANT:
            raise ArchiveError(f"The tar has a global header that sets the {key} of every member.")


def _records(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the keywords and values of a pax header: records of the form `length keyword=value` and a line feed."""
    payload = payload.rstrip(b"\0")
    start = 0
    while start < len(payload):
        length = _LENGTH.match(payload, start)
        end = start + int(length[1]) if length else 0
        record = payload[length.end() : end] if length else b""
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if end > len(payload) or not equals or not record.endswith(b"\n"):
            raise ArchiveError("An extended header of the tar is damaged.")
        yield _SPARSE if key.startswith(b"GNU.sparse.") else _text(key), value
        start = end


def _text(name: bytes) -> str:
    """Decode a name; what is not UTF-8 stays recognisable, for the vetting to refuse it."""
    return name.decode("utf-8", "surrogateescape")


def _skip(data: ForwardBuffer, size: int) -> None:
    for _ in data.exactly(size):
        pass

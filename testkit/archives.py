"""Archives built by hand, valid or malformed in any way, and guarded extraction."""

import bz2
import gzip
import hashlib
import importlib
import io
import lzma
import os
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modelfetch.archive import Budget, Member, extract_archive
from modelfetch.volume.staged_tree import StagedTree

zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

END_OF_TAR = bytes(1024)


def tar_header(
    name: str | bytes,
    size: int = 0,
    kind: bytes = b"0",
    *,
    target: str = "",
    mode: int = 0o644,
    prefix: str = "",
    magic: bytes = b"ustar\00000",
    size_field: bytes = b"",
) -> bytes:
    """Return a tar header with a valid checksum, whatever else is wrong."""
    raw = name.encode() if isinstance(name, str) else name
    fields = [
        raw.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        size_field.ljust(12, b"\0") if size_field else b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        kind,
        target.encode().ljust(100, b"\0"),
        magic,
        bytes(64),
        b"0000000\0" * 2,
        prefix.encode().ljust(155, b"\0"),
        bytes(12),
    ]
    header = b"".join(fields)
    assert len(header) == 512
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def pad_to_block(data: bytes) -> bytes:
    """Fill data up to whole blocks of 512 bytes."""
    return data + bytes(-len(data) % 512)


def tar_member(name: str | bytes, data: bytes = b"", kind: bytes = b"0", **fields: Any) -> bytes:
    """Return a tar member: header and content."""
    return tar_header(name, len(data), kind, **fields) + pad_to_block(data)


def pax_header(*records: tuple[str, str | bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header made of records."""
    return tar_member("PaxHeader", b"".join(pax_record(*each) for each in records), kind)


def pax_record(key: str, value: str | bytes) -> bytes:
    """Return a record of an extended header; the stated length counts its own digits."""
    rest = b" " + key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) > length:
        length += 1
    return str(length).encode() + rest


def make_tar(*members: bytes) -> bytes:
    """Return a tar of raw members."""
    return b"".join(members) + END_OF_TAR


def make_zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file of named contents."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


@dataclass
class ZipEntry:
    """Member of a hand-made zip: stored, a regular file and valid unless a field says otherwise."""

    name: bytes
    content: bytes = b""
    mode: int | None = None
    flags: int = 0
    method: int = 0
    packed: bytes | None = None
    size: int | None = None
    crc: int | None = None
    local_name: bytes | None = None
    local_flags: int | None = None
    local_method: int | None = None
    offset: int | None = None
    extra: bytes = b""

    def __post_init__(self) -> None:
        if self.mode is None:
            self.mode = 0o40755 if self.name.endswith(b"/") else 0o100644
        self.packed = self.content if self.packed is None else self.packed
        self.size = len(self.content) if self.size is None else self.size
        self.crc = zlib.crc32(self.content) if self.crc is None else self.crc

    def local_record(self) -> bytes:
        """Return the local header, the name and the packed content."""
        name = self.name if self.local_name is None else self.local_name
        flags = self.flags if self.local_flags is None else self.local_flags
        method = self.method if self.local_method is None else self.local_method
        assert self.packed is not None
        sizes = (self.crc, len(self.packed), self.size)
        return struct.pack("<4s5H3L2H", b"PK\3\4", 45, flags, method, 0, 33, *sizes, len(name), 0) + name + self.packed

    def central_record(self, offset: int) -> bytes:
        """Return the entry of the central directory."""
        assert self.packed is not None
        assert self.mode is not None
        offset = offset if self.offset is None else self.offset
        sizes = (self.crc, len(self.packed), self.size, len(self.name), len(self.extra), 0)
        start = struct.pack("<4s6H3L3H", b"PK\1\2", 3 << 8 | 45, 45, self.flags, self.method, 0, 33, *sizes)
        return start + struct.pack("<2H2L", 0, 0, self.mode << 16, offset) + self.name + self.extra


def make_raw_zip(
    *entries: ZipEntry, comment: bytes = b"", count: int | None = None, gap: bytes = b"", middle: bytes = b""
) -> bytes:
    """Build a zip by hand, with bytes before the central directory or between the directory and the end record."""
    out, directory = b"", b""
    for entry in entries:
        directory += entry.central_record(len(out))
        out += entry.local_record()
    count = len(entries) if count is None else count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(out + gap), len(comment))
    return out + gap + directory + middle + end + comment


def compress_zstd(data: bytes) -> bytes:
    """Compress with a content checksum, as the zstd command does."""
    return bytes(zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": partial(gzip.compress, mtime=0),  # the same for the same content
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": compress_zstd,
}


def pack_files(files: dict[str, bytes], how: str) -> bytes:
    """Pack files as `tar`, as a tar in `gzip`, `bzip2`, `xz` or `zstd`, or as `zip`."""
    if how == "zip":
        return make_zip(*files.items())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return COMPRESSORS.get(how, bytes)(out.getvalue())


def list_members(root: Path) -> list[Member]:
    """List a tree as found on disk; fail on any file that must never be extracted."""
    members = []
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                assert path.resolve(strict=True).is_relative_to(root.resolve())
            elif stat.S_ISDIR(mode):
                assert stat.S_IMODE(mode) == 0o755
                continue
            else:
                assert stat.S_ISREG(mode)
                assert stat.S_IMODE(mode) in (0o644, 0o755)
            data = path.read_bytes() if path.is_file() else None
            link = os.readlink(path) if stat.S_ISLNK(mode) else None  # noqa: PTH115  Path would normalise the target
            sha256 = "" if data is None else hashlib.sha256(data).hexdigest()
            members.append(Member(path.relative_to(root).as_posix(), len(data or b""), sha256, link))
    return sorted(members, key=lambda member: member.path)


class GuardedExtractor:
    """Extracts into a fresh directory and checks that nothing else changes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0

    def __call__(self, archive: Any, name: str = "model.tar.gz", into: Path | None = None, **limits: float) -> Path:
        """Extract bytes or a stream; return the directory, whose files must equal the returned members."""
        self.count += 1
        place = self.place / str(self.count)
        place.mkdir()
        if into is None:
            into = place / "into"
            into.mkdir()
        stream = io.BytesIO(archive) if isinstance(archive, bytes) else archive
        budget = Budget(**{"max_bytes": 2**30, "max_files": 1000, "max_ratio": 1000, **limits})  # type: ignore[arg-type]  # numbers all
        try:
            with StagedTree(into) as tree:
                members = extract_archive(stream, name, tree, scratch=place / "scratch", budget=budget)
        finally:
            assert {each.name for each in place.iterdir()} <= {"into"}
        assert stream.read() == b"", "the stream was not read to its end"
        assert list_members(into) == members
        return into

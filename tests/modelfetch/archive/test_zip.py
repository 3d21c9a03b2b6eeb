import io
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import ArchiveError, BudgetError, UnsafeNameError, WrongBytesError

GOOD = {"name": b"good", "content": b"good content"}


def deflate_raw(data: bytes) -> bytes:
    """Deflate without a zlib wrapper, as zip members are."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "a/../../evil", "a/..", "..", "/evil", "//evil", "a//b", "a/./b", "./../evil", "", "/"),
        *("..\\evil", "C:\\evil", "a\nb", "a\0b", "good\0/../../evil", "x" * 300, "/".join(["d" * 200] * 21), "../"),
    ],
)
@pytest.mark.parametrize("mode", [0o100644, 0o40755, 0o120777, 0], ids=["file", "directory", "link", "none"])
def test_unsafe_name_is_refused_for_every_member_type(build: Any, extract: Any, name: str, mode: int) -> None:
    """Files, directories and symlinks are checked, also after a good member."""
    bad = build.Entry(name.encode(), b"" if mode == 0o40755 else b"good", mode)
    with pytest.raises(UnsafeNameError) as caught:
        extract(build.zip_raw(build.Entry(**GOOD), bad))
    assert caught.value.message.startswith("model.tar.gz: The member ")


@pytest.mark.parametrize("flags", [0, 0x800])
def test_names_are_decoded_as_utf8_with_and_without_the_flag(build: Any, extract: Any, flags: int) -> None:
    """Info-ZIP on Linux writes UTF-8 without the flag; other encodings are ambiguous and refused."""
    root = extract(build.zip_raw(build.Entry("mödel/日本".encode(), b"x", flags=flags)))
    assert (root / "mödel/日本").read_bytes() == b"x"
    with pytest.raises(WrongBytesError):
        extract(build.zip_raw(build.Entry("mödel".encode("cp437"), b"x", flags=flags)))


@pytest.mark.parametrize("mode", [0o20644, 0o60644, 0o10644, 0o140644, 0o150000])
def test_special_member_is_refused_by_name(build: Any, extract: Any, mode: int) -> None:
    """Devices, FIFOs, sockets and unknown types are refused."""
    with pytest.raises(ArchiveError, match=r"'bad' is a device, a FIFO or a socket"):
        extract(build.zip_raw(build.Entry(**GOOD), build.Entry(b"bad", b"", mode)))


@pytest.mark.parametrize("mode", [0o104755, 0o102755, 0o101755, 0o100755, 0o100111, 0o100000, 0o100644, 0])
def test_only_the_executable_bit_is_kept(build: Any, extract: Any, mode: int) -> None:
    """Setuid, setgid and sticky bits are dropped."""
    root = extract(build.zip_raw(build.Entry(b"a", b"x", mode), build.Entry(b"d/", b"", 0o47777)))
    assert (0o755 if mode & 0o111 else 0o644) == (root / "a").stat().st_mode & 0o7777
    assert (root / "d").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [(b"d/", b"hidden", 0), (b"d/", b"hidden", 0o40755), (b"d", b"hidden", 0o40755), (b"d/", b"", 0o100644)],
)
def test_directory_with_content_is_refused(build: Any, extract: Any, name: bytes, content: bytes, mode: int) -> None:
    """Tools differ in the treatment of a directory with a payload."""
    with pytest.raises(ArchiveError, match="is a directory by its name or mode"):
        extract(build.zip_raw(build.Entry(**GOOD), build.Entry(name, content, mode)))


def test_directories_are_created_and_may_be_repeated(build: Any, extract: Any) -> None:
    """Directories by name or by mode, empty directories and the root entry."""
    names = (b"./", b"a/b", b"a/", b"./a/", b"./d")
    entries = [*map(build.Entry, names), build.Entry(b"c", b"", 0o40700), build.Entry(b".", b"", 0o40700)]
    root = extract(build.zip_raw(*entries))
    assert {"a", "a/b", "c", "d"} == {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize("names", [[b"a", b"a"], [b"a", b"a/b"], [b"a/b", b"a"], [b"a", b"a/"], [b"a/", b"a"]])
def test_name_used_twice_or_as_file_and_directory_is_refused(build: Any, extract: Any, names: list[bytes]) -> None:
    """No path may be two files, or a file and a directory."""
    with pytest.raises(ArchiveError, match=r"twice|both as a directory"):
        extract(build.zip_raw(*(build.Entry(name) for name in names)))


def test_symlinks_inside_the_archive_are_kept(build: Any, extract: Any) -> None:
    """Stored and deflated symlink targets are both read."""
    deflated_link = build.Entry(b"b", b"d/../good", 0o120777, method=8, packed=deflate_raw(b"d/../good"))
    entries = [build.Entry(b"d/a", b"../good", 0o120777), build.Entry(**GOOD), deflated_link]
    root = extract(build.zip_raw(*entries))
    assert b"good content" == (root / "d/a").read_bytes() == (root / "b").read_bytes()


@pytest.mark.parametrize("target", [b"/etc/passwd", b"/good", b"../good", b"missing", b"l", b"", b".", b"\xff"])
def test_symlink_out_of_the_archive_or_to_nothing_is_refused(build: Any, extract: Any, target: bytes) -> None:
    """The payload of a symlink member is the target."""
    with pytest.raises(ArchiveError, match="link"):
        extract(build.zip_raw(build.Entry(**GOOD), build.Entry(b"l", target, 0o120777)))


def test_symlink_target_over_4095_bytes_is_refused(build: Any, extract: Any) -> None:
    """The target is read into memory, with a limit."""
    with pytest.raises(ArchiveError, match="a link with a target of 4096 bytes"):
        extract(build.zip_raw(build.Entry(**GOOD), build.Entry(b"l", b"./" * 2046 + b"good", 0o120777)))


def test_member_below_a_symlink_is_refused(build: Any, extract: Any, tmp_path: Path) -> None:
    """A symlink out of the archive, then a member below: nothing is written outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for target in (str(outside).encode(), b"d"):
        with pytest.raises(ArchiveError):
            extract(
                build.zip_raw(build.Entry(b"l", target, 0o120777), build.Entry(b"d/"), build.Entry(b"l/evil", b"x"))
            )
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_member_is_refused(build: Any, extract: Any, flag: int) -> None:
    """Every encryption flag is refused, in the central directory and in the local header."""
    with pytest.raises(ArchiveError, match="encrypted"):
        extract(build.zip_raw(build.Entry(**GOOD, flags=flag)))
    with pytest.raises(ArchiveError, match="local header"):
        extract(build.zip_raw(build.Entry(**GOOD, local_flags=flag)))


@pytest.mark.process
@pytest.mark.skipif(shutil.which("zip") is None, reason="needs zip")
def test_encrypted_zip_of_the_zip_command_is_refused(extract: Any, tmp_path: Path) -> None:
    """A zip made with a password is refused by the member's name."""
    (tmp_path / "a").write_bytes(b"secret" * 100)
    subprocess.run(["zip", "-q", "-P", "password", "m.zip", "a"], cwd=tmp_path, check=True)
    with pytest.raises(ArchiveError, match="The member 'a' is encrypted"):
        extract((tmp_path / "m.zip").read_bytes())


@pytest.mark.parametrize("method", [1, 6, 9, 14, 95, 97, 98, 99, 0xFFFF])
def test_unsupported_compression_method_is_refused_by_number(build: Any, extract: Any, method: int) -> None:
    """The historic methods, deflate64, LZMA with an unbounded dictionary, xz, and the encrypted methods."""
    with pytest.raises(ArchiveError, match=f"packed by method {method}") as caught:
        extract(build.zip_raw(build.Entry(**GOOD, method=method)))
    assert "deflate" in caught.value.hint


def test_zstd_member_is_extracted(extract: Any) -> None:
    """Python writes method 93 (zstd) since 3.14."""
    if sys.version_info >= (3, 14):
        import zipfile as zips  # noqa: PLC0415
    else:
        from backports.zstd import zipfile as zips  # noqa: PLC0415
    out, data = io.BytesIO(), os.urandom(1000) * 300
    with zips.ZipFile(out, "w", zips.ZIP_ZSTANDARD) as archive:
        archive.writestr("a", data)
    assert data == (extract(out.getvalue()) / "a").read_bytes()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"crc": 1}, {"size": 11}, {"size": 13}, {"size": 0}, {"packed": b""}, {"packed": b"good"}),
        *({"packed": b"good content and more"}, {"packed": b"gooD content"}),
        *(
            {"method": 8, "packed": each}
            for each in (b"", b"\0", deflate_raw(b"good content")[:-1], deflate_raw(b"good"))
        ),
        *({"method": 8, "packed": each} for each in (deflate_raw(b"good content") + b"more", b"\xff" * 20)),
        {"method": 8, "packed": deflate_raw(b"good ") + deflate_raw(b"content")},
        *({"method": method} for method in (8, 12, 93)),
    ],
)
def test_payload_that_contradicts_size_or_crc_is_refused(build: Any, extract: Any, wrong: dict[str, Any]) -> None:
    """Sizes and CRC-32 must match, and the compressed stream must end with the payload."""
    with pytest.raises(ArchiveError):
        extract(build.zip_raw(build.Entry(**{**GOOD, **wrong})))


@pytest.mark.parametrize("wrong", [{"local_name": b"evil"}, {"local_name": b"goof"}, {"local_method": 8}])
def test_local_header_that_contradicts_the_central_directory_is_refused(
    build: Any, extract: Any, wrong: dict[str, Any]
) -> None:
    """Tools that stream a zip trust the local header, others the central directory."""
    with pytest.raises(ArchiveError, match="is not what the zip's directory says"):
        extract(build.zip_raw(build.Entry(**GOOD, **wrong)))


@pytest.mark.parametrize("offset", [1, 45, 100, 2**31, 2**32 - 2])
def test_member_offset_outside_the_payloads_is_refused(build: Any, extract: Any, offset: int) -> None:
    """The offset leads into another member, into the central directory, or past the end."""
    with pytest.raises(ArchiveError):
        extract(build.zip_raw(build.Entry(**GOOD), build.Entry(b"bad", b"x" * 100, offset=offset)))


def test_zip64_member_offset_past_the_end_is_refused(build: Any, extract: Any) -> None:
    """An extra field holds the 64-bit offset."""
    for offset in (2**62, 2**63, 2**64 - 1):
        extra = struct.pack("<2HQ", 1, 8, offset)
        with pytest.raises(ArchiveError, match="points behind itself"):
            extract(build.zip_raw(build.Entry(**GOOD), build.Entry(b"bad", b"x", offset=2**32 - 1, extra=extra)))


def test_overlapping_members_are_refused(build: Any, extract: Any) -> None:
    """The densest bombs list thousands of members over the same bytes, or quote the headers of others."""
    kernel = build.Entry(b"same", b"x" * 1000)
    twin = build.Entry(b"same", b"x" * 1000, offset=0)
    with pytest.raises(ArchiveError, match="overlaps"):
        extract(build.zip_raw(kernel, twin))

    inner = build.Entry(b"inner", b"y" * 500)
    quoting = build.Entry(b"outer", inner.local_record())
    inside = build.Entry(b"inner", b"y" * 500, offset=30 + len(b"outer"))
    with pytest.raises(ArchiveError, match="overlaps"):
        extract(build.zip_raw(quoting, inside))


def test_sizes_in_the_central_directory_over_budget_are_refused_before_writing(
    build: Any, extract: Any, tmp_path: Path
) -> None:
    """The announced sizes count, and the sum of all members."""
    entries = [build.Entry(str(number).encode(), b"x" * 100) for number in range(10)]
    for archive, limits in (
        (build.zip_raw(*entries), {"max_bytes": 999}),
        (build.zip_raw(build.Entry(b"a", b"x", size=2**32 - 2)), {"max_bytes": 2**31}),
        (build.zip_raw(build.Entry(b"a", b"x", size=2**32 - 2)), {"max_bytes": 2**40}),
        (build.zip_raw(*entries), {"max_files": 9}),
    ):
        into = tmp_path / str(limits)
        into.mkdir()
        with pytest.raises(BudgetError):
            extract(archive, into=into, **limits)
        assert list(into.iterdir()) == []


def test_payload_longer_than_announced_is_refused_at_the_announced_size(
    build: Any, extract: Any, tmp_path: Path
) -> None:
    """A payload longer than announced would evade every budget."""
    into = tmp_path / "into"
    into.mkdir()
    bomb = build.Entry(b"bomb", b"", method=8, packed=deflate_raw(bytes(10_000_000)), size=1000)
    with pytest.raises(ArchiveError, match="size and CRC-32"):
        extract(build.zip_raw(bomb), into=into)
    assert (into / "bomb").stat().st_size <= 1000


def test_local_header_without_signature_is_refused(build: Any, extract: Any) -> None:
    """The central directory may point at any bytes."""
    archive = build.zip_raw(build.Entry(b"first", b"x"), build.Entry(**GOOD))
    damaged = archive.replace(b"PK\3\4", b"PK\3\5").replace(b"PK\3\5", b"PK\3\4", 1)
    with pytest.raises(ArchiveError, match="The local header of 'good'"):
        extract(damaged)


def test_central_directory_over_64_mib_is_refused(extract: Any) -> None:
    """The central directory is read into memory as a whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(1030):
            info = zipfile.ZipInfo(str(number))
            info.comment = bytes(65_535)
            archive.writestr(info, b"")
    with pytest.raises(BudgetError, match="central directory"):
        extract(out.getvalue(), max_files=2000)


@pytest.mark.parametrize("count", [0, 1, 3, 65_535])
def test_member_count_that_contradicts_the_central_directory_is_refused(build: Any, extract: Any, count: int) -> None:
    """A wrong count would hide a part of the central directory."""
    entries = [build.Entry(**GOOD), build.Entry(b"more", b"x")]
    with pytest.raises(ArchiveError, match="lists 2"):
        extract(build.zip_raw(*entries, count=count), max_files=70_000)


def test_zip_after_other_content_is_refused(build: Any, extract: Any) -> None:
    """Two concatenated zips, or a self-extracting program, are ambiguous."""
    first, second = build.zip_raw(build.Entry(**GOOD)), build.zip_raw(build.Entry(b"evil", b"x"))
    with pytest.raises(ArchiveError, match="stands behind others"):
        extract(first + second)
    with pytest.raises(ArchiveError, match="stands behind others"):
        extract(build.zip_raw(build.Entry(**GOOD), middle=b"junk"))
    with pytest.raises(ArchiveError, match="promises an archive"):
        extract(b"MZ" + bytes(1000) + first)


def test_comment_and_gaps_are_accepted(build: Any, extract: Any) -> None:
    """Aligned zips have gaps, signed zips a block before the central directory."""
    assert (extract(build.zip_raw(build.Entry(**GOOD), comment=b"made by hand", gap=bytes(100))) / "good").exists()
    assert (extract(build.zip_raw(build.Entry(**GOOD), comment=b"x" * 65_535)) / "good").exists()


def test_end_record_inside_the_comment_is_refused(build: Any, extract: Any) -> None:
    """Tools that search from the front find another central directory than tools that search from the end."""
    hidden = build.zip_raw(build.Entry(b"evil", b"x"))
    with pytest.raises(ArchiveError):
        extract(build.zip_raw(build.Entry(**GOOD), comment=hidden))


def test_part_of_a_split_zip_is_refused(build: Any, extract: Any) -> None:
    """The other members are in another file."""
    archive = bytearray(build.zip_raw(build.Entry(**GOOD)))
    for position in (4, 6, 8):
        damaged = bytearray(archive)
        damaged[len(archive) - 22 + position] += 1
        with pytest.raises(ArchiveError):
            extract(bytes(damaged))


def add_zip64_record(archive: bytes, **wrong: int) -> bytes:
    """Add a zip64 end record, as zips over 4 GiB or 65,535 members have."""
    count, size, start = struct.unpack_from("<H2L", archive, len(archive) - 12)
    at = len(archive) - 22
    fields = {"count": count, "size": size, "start": start, "at": at, **wrong}
    record = struct.pack("<4sQ2H2L2Q", b"PK\6\6", 44, 45, 45, 0, 0, fields["count"], count)
    record += struct.pack("<2Q4sLQL", fields["size"], fields["start"], b"PK\6\7", 0, fields["at"], 1)
    return archive[:at] + record + archive[at : at + 8] + b"\xff" * 12 + b"\0\0"


def test_zip64_end_record_is_read(build: Any, extract: Any) -> None:
    """Count, size and offset come from the zip64 end record."""
    archive = build.zip_raw(build.Entry(**GOOD), build.Entry(b"more", b"x"))
    assert (extract(add_zip64_record(archive)) / "more").read_bytes() == b"x"


@pytest.mark.parametrize(
    "wrong", [{"count": 1}, {"size": 1}, {"size": 2**63}, {"start": 0}, {"start": 2**64 - 1}, {"at": 0}]
)
def test_contradictory_zip64_end_record_is_refused(build: Any, extract: Any, wrong: dict[str, int]) -> None:
    """The zip64 end record is checked like the plain end record."""
    archive = build.zip_raw(build.Entry(**GOOD), build.Entry(b"more", b"x"))
    with pytest.raises(WrongBytesError):
        extract(add_zip64_record(archive, **wrong))

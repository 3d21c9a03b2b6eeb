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
    """Deflate without a wrapper, as zips have it."""
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
def test_name_that_is_no_plain_path_is_refused(build: Any, unpacked: Any, name: str, mode: int) -> None:
    """For files, directories and links, and although a good member comes before it."""
    bad = build.Entry(name.encode(), b"" if mode == 0o40755 else b"good", mode)
    with pytest.raises(UnsafeNameError) as caught:
        unpacked(build.zip_raw(build.Entry(**GOOD), bad))
    assert caught.value.message.startswith("model.tar.gz: The member ")


@pytest.mark.parametrize("flags", [0, 0x800])
def test_names_are_utf8_whatever_the_flag(build: Any, unpacked: Any, flags: int) -> None:
    """Info-ZIP on Linux writes UTF-8 without saying so; other encodings cannot be told apart, so they are refused."""
    root = unpacked(build.zip_raw(build.Entry("mödel/日本".encode(), b"x", flags=flags)))
    assert (root / "mödel/日本").read_bytes() == b"x"
    with pytest.raises(WrongBytesError):
        unpacked(build.zip_raw(build.Entry("mödel".encode("cp437"), b"x", flags=flags)))


@pytest.mark.parametrize("mode", [0o20644, 0o60644, 0o10644, 0o140644, 0o150000])
def test_member_that_is_no_file_is_refused_by_name(build: Any, unpacked: Any, mode: int) -> None:
    """Devices, FIFOs, sockets, and types that nobody knows."""
    with pytest.raises(ArchiveError, match=r"'bad' is a device, a FIFO or a socket"):
        unpacked(build.zip_raw(build.Entry(**GOOD), build.Entry(b"bad", b"", mode)))


@pytest.mark.parametrize("mode", [0o104755, 0o102755, 0o101755, 0o100755, 0o100111, 0o100000, 0o100644, 0])
def test_only_the_executable_bit_is_kept(build: Any, unpacked: Any, mode: int) -> None:
    """Setuid and its kin are dropped."""
    root = unpacked(build.zip_raw(build.Entry(b"a", b"x", mode), build.Entry(b"d/", b"", 0o47777)))
    assert (0o755 if mode & 0o111 else 0o644) == (root / "a").stat().st_mode & 0o7777
    assert (root / "d").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [(b"d/", b"hidden", 0), (b"d/", b"hidden", 0o40755), (b"d", b"hidden", 0o40755), (b"d/", b"", 0o100644)],
)
def test_directory_with_content_is_refused(build: Any, unpacked: Any, name: bytes, content: bytes, mode: int) -> None:
    """Tools differ in what they make of it."""
    with pytest.raises(ArchiveError, match="is a directory by its name or mode"):
        unpacked(build.zip_raw(build.Entry(**GOOD), build.Entry(name, content, mode)))


def test_directories_are_made_and_may_come_twice(build: Any, unpacked: Any) -> None:
    """By their name or by their mode; empty ones too, and the root itself."""
    names = (b"./", b"a/b", b"a/", b"./a/", b"./d")
    entries = [*map(build.Entry, names), build.Entry(b"c", b"", 0o40700), build.Entry(b".", b"", 0o40700)]
    root = unpacked(build.zip_raw(*entries))
    assert {"a", "a/b", "c", "d"} == {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize("names", [[b"a", b"a"], [b"a", b"a/b"], [b"a/b", b"a"], [b"a", b"a/"], [b"a/", b"a"]])
def test_name_stands_for_one_thing(build: Any, unpacked: Any, names: list[bytes]) -> None:
    """Neither twice a file, nor a file and a directory."""
    with pytest.raises(ArchiveError, match=r"twice|both as a directory"):
        unpacked(build.zip_raw(*(build.Entry(name) for name in names)))


def test_links_inside_are_kept(build: Any, unpacked: Any) -> None:
    """Stored or deflated."""
    deflated_link = build.Entry(b"b", b"d/../good", 0o120777, method=8, packed=deflate_raw(b"d/../good"))
    entries = [build.Entry(b"d/a", b"../good", 0o120777), build.Entry(**GOOD), deflated_link]
    root = unpacked(build.zip_raw(*entries))
    assert b"good content" == (root / "d/a").read_bytes() == (root / "b").read_bytes()


@pytest.mark.parametrize("target", [b"/etc/passwd", b"/good", b"../good", b"missing", b"l", b"", b".", b"\xff"])
def test_link_that_leads_nowhere_useful_is_refused(build: Any, unpacked: Any, target: bytes) -> None:
    """Its content is its target."""
    with pytest.raises(ArchiveError, match="link"):
        unpacked(build.zip_raw(build.Entry(**GOOD), build.Entry(b"l", target, 0o120777)))


def test_link_of_a_length_that_no_link_has_is_refused(build: Any, unpacked: Any) -> None:
    """Its target is kept in memory."""
    with pytest.raises(ArchiveError, match="a link with a target of 4096 bytes"):
        unpacked(build.zip_raw(build.Entry(**GOOD), build.Entry(b"l", b"./" * 2046 + b"good", 0o120777)))


def test_nothing_is_written_through_a_link(build: Any, unpacked: Any, tmp_path: Path) -> None:
    """A link to somewhere, then a file below it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for target in (str(outside).encode(), b"d"):
        with pytest.raises(ArchiveError):
            unpacked(
                build.zip_raw(build.Entry(b"l", target, 0o120777), build.Entry(b"d/"), build.Entry(b"l/evil", b"x"))
            )
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_member_is_refused(build: Any, unpacked: Any, flag: int) -> None:
    """In whatever way, said in whichever header."""
    with pytest.raises(ArchiveError, match="encrypted"):
        unpacked(build.zip_raw(build.Entry(**GOOD, flags=flag)))
    with pytest.raises(ArchiveError, match="local header"):
        unpacked(build.zip_raw(build.Entry(**GOOD, local_flags=flag)))


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs zip")
def test_encrypted_zip_of_the_zip_command_is_refused(unpacked: Any, tmp_path: Path) -> None:
    """With a password."""
    (tmp_path / "a").write_bytes(b"secret" * 100)
    subprocess.run(["zip", "-q", "-P", "password", "m.zip", "a"], cwd=tmp_path, check=True)
    with pytest.raises(ArchiveError, match="The member 'a' is encrypted"):
        unpacked((tmp_path / "m.zip").read_bytes())


@pytest.mark.parametrize("method", [1, 6, 9, 14, 95, 97, 98, 99, 0xFFFF])
def test_method_that_we_do_not_unpack_is_refused_by_number(build: Any, unpacked: Any, method: int) -> None:
    """The old ones, deflate64, LZMA with its unbounded dictionary, xz, and the encrypted ones."""
    with pytest.raises(ArchiveError, match=f"packed by method {method}") as caught:
        unpacked(build.zip_raw(build.Entry(**GOOD, method=method)))
    assert "deflate" in caught.value.hint


def test_zstd_inside_a_zip_is_unpacked(unpacked: Any) -> None:
    """Method 93, which Python writes since 3.14."""
    if sys.version_info >= (3, 14):
        import zipfile as zips  # noqa: PLC0415
    else:
        from backports.zstd import zipfile as zips  # noqa: PLC0415
    out, data = io.BytesIO(), os.urandom(1000) * 300
    with zips.ZipFile(out, "w", zips.ZIP_ZSTANDARD) as archive:
        archive.writestr("a", data)
    assert data == (unpacked(out.getvalue()) / "a").read_bytes()


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
def test_content_that_is_not_as_said_is_refused(build: Any, unpacked: Any, wrong: dict[str, Any]) -> None:
    """Sizes and CRC-32 must fit, and the packed bytes must end where they should."""
    with pytest.raises(ArchiveError):
        unpacked(build.zip_raw(build.Entry(**{**GOOD, **wrong})))


@pytest.mark.parametrize("wrong", [{"local_name": b"evil"}, {"local_name": b"goof"}, {"local_method": 8}])
def test_headers_that_contradict_each_other_are_refused(build: Any, unpacked: Any, wrong: dict[str, Any]) -> None:
    """Tools that stream a zip believe the local header, others the central directory."""
    with pytest.raises(ArchiveError, match="is not what the zip's directory says"):
        unpacked(build.zip_raw(build.Entry(**GOOD, **wrong)))


@pytest.mark.parametrize("offset", [1, 45, 100, 2**31, 2**32 - 2])
def test_member_that_lies_elsewhere_is_refused(build: Any, unpacked: Any, offset: int) -> None:
    """In another member, in the directory, or behind the end."""
    with pytest.raises(ArchiveError):
        unpacked(build.zip_raw(build.Entry(**GOOD), build.Entry(b"bad", b"x" * 100, offset=offset)))


def test_member_at_an_offset_that_no_file_has_is_refused(build: Any, unpacked: Any) -> None:
    """A 64-bit offset stands in an extra field."""
    for offset in (2**62, 2**63, 2**64 - 1):
        extra = struct.pack("<2HQ", 1, 8, offset)
        with pytest.raises(ArchiveError, match="points behind itself"):
            unpacked(build.zip_raw(build.Entry(**GOOD), build.Entry(b"bad", b"x", offset=2**32 - 1, extra=extra)))


def test_members_that_share_bytes_are_refused(build: Any, unpacked: Any) -> None:
    """The densest bombs have thousands of members over the same few bytes, or quote the headers of others."""
    kernel = build.Entry(b"same", b"x" * 1000)
    twin = build.Entry(b"same", b"x" * 1000, offset=0)
    with pytest.raises(ArchiveError, match="overlaps"):
        unpacked(build.zip_raw(kernel, twin))

    inner = build.Entry(b"inner", b"y" * 500)
    quoting = build.Entry(b"outer", inner.local())
    inside = build.Entry(b"inner", b"y" * 500, offset=30 + len(b"outer"))
    with pytest.raises(ArchiveError, match="overlaps"):
        unpacked(build.zip_raw(quoting, inside))


def test_size_said_in_the_directory_is_checked_before_anything_is_written(
    build: Any, unpacked: Any, tmp_path: Path
) -> None:
    """Many members that each fit do not together; what one says counts, not what it has."""
    entries = [build.Entry(str(number).encode(), b"x" * 100) for number in range(10)]
    for whole, limits in (
        (build.zip_raw(*entries), {"max_bytes": 999}),
        (build.zip_raw(build.Entry(b"a", b"x", size=2**32 - 2)), {"max_bytes": 2**31}),
        (build.zip_raw(build.Entry(b"a", b"x", size=2**32 - 2)), {"max_bytes": 2**40}),
        (build.zip_raw(*entries), {"max_files": 9}),
    ):
        into = tmp_path / str(limits)
        into.mkdir()
        with pytest.raises(BudgetError):
            unpacked(whole, into=into, **limits)
        assert list(into.iterdir()) == []


def test_no_more_is_written_than_the_directory_says(build: Any, unpacked: Any, tmp_path: Path) -> None:
    """A member that has more than it says would get round every budget."""
    into = tmp_path / "into"
    into.mkdir()
    bomb = build.Entry(b"bomb", b"", method=8, packed=deflate_raw(bytes(10_000_000)), size=1000)
    with pytest.raises(ArchiveError, match="size and CRC-32"):
        unpacked(build.zip_raw(bomb), into=into)
    assert (into / "bomb").stat().st_size <= 1000


def test_local_header_must_be_one(build: Any, unpacked: Any) -> None:
    """The directory may point at anything."""
    whole = build.zip_raw(build.Entry(b"first", b"x"), build.Entry(**GOOD))
    damaged = whole.replace(b"PK\3\4", b"PK\3\5").replace(b"PK\3\5", b"PK\3\4", 1)
    with pytest.raises(ArchiveError, match="The local header of 'good'"):
        unpacked(damaged)


def test_directory_that_would_fill_the_memory_is_refused(unpacked: Any) -> None:
    """It is read as a whole, so it must be short enough."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(1030):
            info = zipfile.ZipInfo(str(number))
            info.comment = bytes(65_535)
            archive.writestr(info, b"")
    with pytest.raises(BudgetError, match="central directory"):
        unpacked(out.getvalue(), max_files=2000)


@pytest.mark.parametrize("count", [0, 1, 3, 65_535])
def test_count_that_does_not_fit_is_refused(build: Any, unpacked: Any, count: int) -> None:
    """A part of the directory would be passed over."""
    entries = [build.Entry(**GOOD), build.Entry(b"more", b"x")]
    with pytest.raises(ArchiveError, match="lists 2"):
        unpacked(build.zip_raw(*entries, count=count), max_files=70_000)


def test_zip_behind_something_else_is_refused(build: Any, unpacked: Any) -> None:
    """Two zips in one, or a program that unpacks itself: which of both is meant?"""
    one, other = build.zip_raw(build.Entry(**GOOD)), build.zip_raw(build.Entry(b"evil", b"x"))
    with pytest.raises(ArchiveError, match="stands behind others"):
        unpacked(one + other)
    with pytest.raises(ArchiveError, match="stands behind others"):
        unpacked(build.zip_raw(build.Entry(**GOOD), middle=b"junk"))
    with pytest.raises(ArchiveError, match="promises an archive"):
        unpacked(b"MZ" + bytes(1000) + one)


def test_comment_and_gaps_are_fine(build: Any, unpacked: Any) -> None:
    """Aligned zips have gaps, signed ones a block before the directory."""
    assert (unpacked(build.zip_raw(build.Entry(**GOOD), comment=b"made by hand", gap=bytes(100))) / "good").exists()
    assert (unpacked(build.zip_raw(build.Entry(**GOOD), comment=b"x" * 65_535)) / "good").exists()


def test_end_record_inside_the_comment_is_refused(build: Any, unpacked: Any) -> None:
    """Tools that search from the front find another directory than those that search from the back."""
    hidden = build.zip_raw(build.Entry(b"evil", b"x"))
    with pytest.raises(ArchiveError):
        unpacked(build.zip_raw(build.Entry(**GOOD), comment=hidden))


def test_parts_of_a_split_zip_are_refused(build: Any, unpacked: Any) -> None:
    """The rest is somewhere else."""
    whole = bytearray(build.zip_raw(build.Entry(**GOOD)))
    for position in (4, 6, 8):
        damaged = bytearray(whole)
        damaged[len(whole) - 22 + position] += 1
        with pytest.raises(ArchiveError):
            unpacked(bytes(damaged))


def add_zip64_record(whole: bytes, **wrong: int) -> bytes:
    """Give a zip the large end record, as those beyond 4 GiB or 65,535 members have it."""
    count, size, start = struct.unpack_from("<H2L", whole, len(whole) - 12)
    at = len(whole) - 22
    fields = {"count": count, "size": size, "start": start, "at": at, **wrong}
    record = struct.pack("<4sQ2H2L2Q", b"PK\6\6", 44, 45, 45, 0, 0, fields["count"], count)
    record += struct.pack("<2Q4sLQL", fields["size"], fields["start"], b"PK\6\7", 0, fields["at"], 1)
    return whole[:at] + record + whole[at : at + 8] + b"\xff" * 12 + b"\0\0"


def test_large_zip_is_read(build: Any, unpacked: Any) -> None:
    """The sizes stand in another record then."""
    whole = build.zip_raw(build.Entry(**GOOD), build.Entry(b"more", b"x"))
    assert (unpacked(add_zip64_record(whole)) / "more").read_bytes() == b"x"


@pytest.mark.parametrize(
    "wrong", [{"count": 1}, {"size": 1}, {"size": 2**63}, {"start": 0}, {"start": 2**64 - 1}, {"at": 0}]
)
def test_large_zip_that_lies_is_refused(build: Any, unpacked: Any, wrong: dict[str, int]) -> None:
    """As the small one is."""
    whole = build.zip_raw(build.Entry(**GOOD), build.Entry(b"more", b"x"))
    with pytest.raises(WrongBytesError):
        unpacked(add_zip64_record(whole, **wrong))

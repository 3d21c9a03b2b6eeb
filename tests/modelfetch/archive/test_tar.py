import gzip
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import ArchiveError, BudgetError, UnsafeNameError, WrongBytesError

UNSAFE_NAMES = [
    *("../evil", "a/../../evil", "a/..", "..", "/evil", "//evil", "a//b", "a/./b", "./../evil", "././/evil", ""),
    *("..\\evil", "C:\\evil", "a\nb", "a\x1b[2Jb", "x" * 300, "/".join(["d" * 200] * 21), "file/"),
]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        *(("header", name) for name in UNSAFE_NAMES if len(name) <= 100),
        *(("prefix", name) for name in UNSAFE_NAMES if "/" in name and len(name) <= 100),
        *((field, name) for name in UNSAFE_NAMES for field in ("pax", "gnu")),
    ],
)
def test_unsafe_name_is_refused_in_every_header_field(build: Any, extract: Any, field: str, name: str) -> None:
    """Name field, prefix, pax and GNU headers are all checked, also after a good member."""
    above, _, last = name.rpartition("/")
    bad = {
        "header": lambda: build.member(name, b"bad"),
        "prefix": lambda: build.member(last or "x/", b"bad", prefix=above or "/"),
        "pax": lambda: build.pax(("path", name)) + build.member("harmless", b"bad"),
        "gnu": lambda: build.member("././@LongLink", name.encode() + b"\0", b"L") + build.member("harmless", b"bad"),
    }[field]()
    good = build.member("good", b"good")

    with pytest.raises(UnsafeNameError) as caught:
        extract(build.tar(good, bad))

    assert caught.value.message.startswith("model.tar.gz: The member ")
    assert "--no-extract" in caught.value.hint


@pytest.mark.parametrize("kind", [b"5", b"1", b"2"], ids=["directory", "hard link", "symlink"])
@pytest.mark.parametrize("name", ["../evil", "/", "/evil", "a/../evil", ".."])
def test_unsafe_name_is_refused_for_directories_and_links(build: Any, extract: Any, name: str, kind: bytes) -> None:
    """Names of directories, hard links and symlinks are checked like names of files."""
    with pytest.raises(UnsafeNameError):
        extract(build.tar(build.member("good", b"x"), build.member(name, kind=kind, target="good")))


@pytest.mark.parametrize("raw", [b"latin-\xe9", b"\xff\xfe", "surrogate-\ud800".encode("utf-8", "surrogatepass")])
def test_name_outside_utf8_is_refused(build: Any, extract: Any, raw: bytes) -> None:
    """A receipt cannot hold such a name; `hdrcharset=BINARY` makes no exception."""
    for bad in (
        build.member(raw, b"x"),
        build.pax(("path", raw)) + build.member("x", b"x"),
        build.pax(("hdrcharset", "BINARY"), ("path", raw)) + build.member("x", b"x"),
    ):
        with pytest.raises(UnsafeNameError, match="not valid UTF-8"):
            extract(build.tar(bad))


def test_pax_name_with_nul_is_refused(build: Any, extract: Any) -> None:
    """Other tools would cut the name at the NUL."""
    with pytest.raises(UnsafeNameError, match="control character"):
        extract(build.tar(build.pax(("path", "a\0/../../evil")) + build.member("x", b"x")))


@pytest.mark.parametrize("prefix", ["./", "././"])
def test_leading_dot_of_names_is_stripped(build: Any, extract: Any, prefix: str) -> None:
    """Names as `tar c .` writes them, root entry included."""
    root = extract(
        build.tar(
            build.member(prefix, kind=b"5"),
            build.member(f"{prefix}d/", kind=b"5"),
            build.member(f"{prefix}d/a", b"a"),
            build.member(f"{prefix}b", kind=b"1", target=f"{prefix}d/a"),
        )
    )
    assert {"d", "d/a", "b"} == {str(path.relative_to(root)) for path in root.rglob("*")}


def test_directories_are_created_and_may_be_repeated(build: Any, extract: Any) -> None:
    """Empty directories, too; before or after the members inside, also as old tars mark them."""
    root = extract(
        build.tar(
            build.member("a/b/file", b"x"),
            build.member("a/", kind=b"5", mode=0o7700),
            build.member("a", kind=b"5"),
            build.member("empty/", kind=b"5", mode=0),
            build.member("old/", kind=b"\0"),
        )
    )
    assert {"a", "a/b", "a/b/file", "empty", "old"} == {str(path.relative_to(root)) for path in root.rglob("*")}
    assert (root / "old").is_dir()


@pytest.mark.parametrize("kind", [b"0", b"\0", b"7"])
def test_every_regular_file_type_is_extracted(build: Any, extract: Any, kind: bytes) -> None:
    """Old tars have NUL as type flag, some have contiguous files."""
    assert (extract(build.tar(build.member("a", b"x", kind))) / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (b"3", "a character device"),
        (b"4", "a block device"),
        (b"6", "a FIFO"),
        (b"S", "a sparse file"),
        (b"V", "of the unknown type 'V'"),
        (b"M", "of the unknown type 'M'"),
        (b"D", "of the unknown type 'D'"),
        (b"8", "of the unknown type '8'"),
        (b"\xff", "of the unknown type 'ÿ'"),
    ],
)
def test_special_member_is_refused_by_name(build: Any, extract: Any, kind: bytes, what: str) -> None:
    """Devices, FIFOs and unknown types are refused, also under a reserved name."""
    for name in ("bad", ".modelfetch-receipt"):
        with pytest.raises(ArchiveError) as caught:
            extract(build.tar(build.member("good", b"x"), build.member(name, kind=kind)))
        assert f"The member '{name}' is {what}." in caught.value.message


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1755, 0o7777, 0o7644, 0, 0o111])
def test_setuid_setgid_and_sticky_bits_are_dropped(build: Any, extract: Any, mode: int) -> None:
    """Only the executable bit is kept; everybody may read, for any mode in the header."""
    root = extract(build.tar(build.member("a", b"x", mode=mode), build.member("d", kind=b"5", mode=mode)))
    assert (0o755 if mode & 0o111 else 0o644) == (root / "a").stat().st_mode & 0o7777
    assert (root / "d").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    "names",
    [
        *(["a", "a"], ["a", "./a"], ["d/a", "d/b", "d/a"], ["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"]),
        *(["a", "a/"], ["a/", "a"], ["a/b/", "a", "c"], ["a", "a/b/c/"]),
    ],
)
def test_name_used_twice_or_as_file_and_directory_is_refused(build: Any, extract: Any, names: list[str]) -> None:
    """No path may be two files, or a file and a directory."""
    members = [build.member(name, kind=b"5" if name.endswith("/") else b"0") for name in names]
    with pytest.raises(ArchiveError, match=r"twice|both as a directory"):
        extract(build.tar(*members))


@pytest.mark.parametrize("kind", [b"0", b"1", b"2"], ids=["file", "hard link", "symlink"])
def test_second_member_with_the_name_of_a_link_is_refused(build: Any, extract: Any, kind: bytes) -> None:
    """The second member would replace the link, or be written through the link."""
    good = build.member("good", b"x")
    for link in (b"1", b"2"):
        with pytest.raises(ArchiveError, match="twice"):
            extract(
                build.tar(
                    good, build.member("l", kind=link, target="good"), build.member("l", b"", kind, target="good")
                )
            )


def test_member_below_a_symlink_is_refused(build: Any, extract: Any, tmp_path: Path) -> None:
    """A symlink out of the archive, then a member below or under the same name: nothing is written outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for target in (str(outside), "../../../outside", "d"):
        link = build.member("l", kind=b"2", target=target)
        for rest in (
            build.member("l/evil", b"x"),
            build.member("l/evil/", kind=b"5"),
            build.member("l", b"x"),
            build.member("l", kind=b"5"),
            build.member("good", b"x") + build.member("l/evil", kind=b"1", target="good"),
        ):
            with pytest.raises(ArchiveError):
                extract(build.tar(build.member("d", kind=b"5"), link, rest))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", [b"1", b"2"], ids=["hard link", "symlink"])
@pytest.mark.parametrize("name", ["l", "./l", "l/"])
def test_link_with_the_name_of_a_directory_is_refused(build: Any, extract: Any, name: str, kind: bytes) -> None:
    """Members below would be written elsewhere from then on."""
    below, link = build.member("l/file", b"x"), build.member(name, kind=kind, target="good")
    for order in ((below, link), (link, below)):
        with pytest.raises(WrongBytesError):
            extract(build.tar(build.member("good", b"x"), *order))


def replace_field(header: bytes, at: int, value: bytes) -> bytes:
    """Return a header with another value in a field, and a valid checksum."""
    changed = header[:at] + value + header[at + len(value) :]
    blank = changed[:148] + b" " * 8 + changed[156:512]
    return changed[:148] + b"%06o\0 " % sum(blank) + changed[156:]


@pytest.mark.parametrize("value", [b"\xff" * 8, b"\x80" + b"\xff" * 7, b"-0000001", b"\0" * 8, b" " * 8])
@pytest.mark.parametrize("at", [108, 116, 136, 329, 337], ids=["uid", "gid", "mtime", "major", "minor"])
def test_owner_time_and_device_fields_may_hold_anything(build: Any, extract: Any, at: int, value: bytes) -> None:
    """Owners, times and device numbers may be negative, huge or absent."""
    raw = replace_field(build.member("good", b"x"), at, value)

    assert (extract(build.tar(raw)) / "good").read_bytes() == b"x"


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/etc/passwd",
            "/good",
            "//good",
            "/",
            "",
            "../good",
            "../../evil",
            "d/../../good",
            "./..",
            "d/e/../../..",
            "d/../d/../..",
        ),
        *("missing", "good/x", "good/", "good/.", "good/..", "d/missing", "l", "d/../l", ".", "./", "d/.."),
    ],
)
def test_symlink_out_of_the_archive_or_to_nothing_is_refused(build: Any, extract: Any, target: str) -> None:
    """Out of the tree, to a missing path, through a file, to itself, or to a parent directory."""
    members = [build.member("good", b"x"), build.member("d/e/f", b"y")]
    with pytest.raises(ArchiveError, match="leads"):
        extract(build.tar(build.member("l", kind=b"2", target=target), *members))


@pytest.mark.parametrize(
    "links",
    [
        {"a": "b", "b": "a"},
        {"a": "b", "b": "c", "c": "d/../a", "d/x": "../good"},
        {"d/up": "..", "a": "d/up/a"},
        {"d/up": "../d"},
        {"d/e/up": ".."},
        {f"a{number}": f"a{number + 1}" for number in range(45)} | {"a45": "good"},
    ],
)
def test_circular_or_too_long_chains_of_symlinks_are_refused(build: Any, extract: Any, links: dict[str, str]) -> None:
    """The kernel follows at most 40 symlinks."""
    members = [build.member(path, kind=b"2", target=target) for path, target in links.items()]
    with pytest.raises(ArchiveError, match="leads"):
        extract(build.tar(build.member("good", b"x"), build.member("d/e/f", b"y"), *members))


def test_symlink_is_resolved_as_the_kernel_does(build: Any, extract: Any, tmp_path: Path) -> None:
    """`..` is the parent of the directory to which a symlink leads, not of the symlink."""
    deep = [build.member("good", b"x"), build.member("d/e/f", b"y"), build.member("short", kind=b"2", target="d/e")]
    root = extract(build.tar(*deep, build.member("l", kind=b"2", target="short/../../good")))
    assert (root / "l").read_bytes() == b"x"

    (tmp_path / "good").write_bytes(b"outside")
    shallow = [
        build.member("a/good", b"x"),
        build.member("d/f", b"y"),
        build.member("a/b/up", kind=b"2", target="../../d"),
    ]
    with pytest.raises(ArchiveError, match="leads out of the archive"):
        extract(build.tar(*shallow, build.member("l", kind=b"2", target="a/b/up/../../good")))


def test_symlinks_inside_the_archive_are_kept(build: Any, extract: Any) -> None:
    """Before and after the target, to symlinks and directories, up and down; the members list the resolved file."""
    links = {
        "first": "d/e/f",
        "d/up": "../good",
        "chain": "first",
        "dir": "d//e/",
        "d/same": "./e/../e/f",
        "end": "empty",
    }
    root = extract(
        build.tar(
            *(build.member(path, kind=b"2", target=target) for path, target in links.items()),
            build.member("good", b"x"),
            build.member("d/e/f", b"yy"),
            build.member("empty/", kind=b"5"),
        )
    )
    for path, target in links.items():
        assert (root / path).readlink() == Path(target)
    assert (root / "chain").read_bytes() == b"yy"


def test_symlink_target_over_4095_bytes_is_refused(build: Any, extract: Any) -> None:
    """Linux accepts targets of at most 4095 bytes."""
    for length, target in ((4095, "d/../" * 818 + "./d/f"), (4096, "d/../" * 818 + "./d//f")):
        assert len(target) == length
        members = [build.member("d/f", b"x"), build.pax(("linkpath", target)) + build.member("l", kind=b"2")]
        if length == 4095:
            assert (extract(build.tar(*members)) / "l").read_bytes() == b"x"
            continue
        with pytest.raises(ArchiveError, match="a link with a target of 4096 bytes"):
            extract(build.tar(*members))


@pytest.mark.parametrize(
    "target", ["missing", "later", "d", "l", "hard", "/good", "/etc/passwd", "../evil", "d/../good", ""]
)
def test_hard_link_to_anything_but_an_earlier_file_is_refused(build: Any, extract: Any, target: str) -> None:
    """Not to a directory, a symlink, the link's own name, or a path outside."""
    with pytest.raises(WrongBytesError):
        extract(
            build.tar(
                build.member("good", b"x"),
                build.member("d", kind=b"5"),
                build.member("l", kind=b"2", target="good"),
                build.member("hard", kind=b"1", target=target),
                build.member("later", b"x"),
            )
        )


def test_hard_links_share_the_file_despite_a_size_in_the_header(build: Any, extract: Any) -> None:
    """The size in a hard link's header announces no payload."""
    link = build.block("again", 7, b"1", target="./good")
    root = extract(build.tar(build.member("good", b"x" * 7), link, build.member("d/third", kind=b"1", target="again")))
    assert (root / "good").samefile(root / "again")
    assert (root / "good").samefile(root / "d/third")


@pytest.mark.parametrize("kind", [b"5", b"2"], ids=["directory", "symlink"])
def test_directory_or_symlink_with_a_size_is_refused(build: Any, extract: Any, kind: bytes) -> None:
    """Some tools skip the payload, others read headers there: the content would depend on the reader."""
    with pytest.raises(ArchiveError, match="has a size"):
        extract(build.tar(build.member("good", b"x"), build.member("odd", b"hidden", kind, target="good")))


@pytest.mark.parametrize(
    ("field", "flaw"),
    [
        *((field, "has a negative size") for field in (b"\xff" * 12, b"-0000000001\0", b"\xff" + b"\0" * 11)),
        *((field, "header of the tar is damaged") for field in (b"99999999999\0", b"0x123\0", b"12 34\0")),
        (b"\x80" + b"\xff" * 11, "holds more than"),
    ],
)
def test_invalid_size_is_refused(build: Any, extract: Any, field: bytes, flaw: str) -> None:
    """The size is negative, no number, or larger than any disk."""
    with pytest.raises((ArchiveError, BudgetError), match=flaw):
        extract(build.tar(build.block("a", size_field=field)))


def test_size_in_base_256_is_decoded(build: Any, extract: Any) -> None:
    """GNU tar writes sizes from 8 GiB on in base 256."""
    small = build.block("a", size_field=b"\x80" + (5).to_bytes(11, "big")) + build.padded(b"12345")
    assert (extract(build.tar(small)) / "a").read_bytes() == b"12345"
    with pytest.raises(BudgetError):
        extract(build.tar(build.block("a", size_field=b"\x80" + (2**40).to_bytes(11, "big"))))


def test_pax_header_overrides_name_link_target_and_size(build: Any, extract: Any) -> None:
    """POSIX semantics; times, owners, attributes and comments are ignored."""
    long = "/".join(["ünï" * 10] * 5)
    root = extract(
        build.tar(
            build.pax(("comment", "f7fb3c"), kind=b"g"),
            build.pax(
                ("path", long), ("size", "5"), ("mtime", "1e9"), ("uid", "-1"), ("SCHILY.xattr.user.x", b"\xff\0")
            ),
            build.block("other") + build.padded(b"12345"),
            build.pax(("linkpath", long)) + build.member("link", kind=b"2", target="missing"),
            build.pax(("path", "hard"), ("linkpath", long), kind=b"X") + build.member("x", kind=b"1"),
        )
    )
    assert b"12345" == (root / long).read_bytes() == (root / "link").read_bytes()
    assert (root / long).samefile(root / "hard")


def test_gnu_header_overrides_name_and_link_target(build: Any, extract: Any) -> None:
    """Names and targets over 100 bytes have a header each."""
    long = "/".join(["long" * 20] * 5)
    name, target = (
        build.member("././@LongLink", f"{each}\0".encode(), kind) for each, kind in ((long, b"L"), (long, b"K"))
    )
    root = extract(build.tar(name + build.member("cut", b"x"), target + build.member("link", kind=b"2", target="cut")))
    assert b"x" == (root / long).read_bytes() == (root / "link").read_bytes()


def test_prefix_is_ignored_outside_posix_headers(build: Any, extract: Any) -> None:
    """GNU tar keeps times in the prefix field (`tar --listed-incremental`), older tars anything."""
    for magic, name in ((b"ustar\00000", "14731/a"), (b"ustar  \0", "a"), (bytes(8), "a")):
        root = extract(build.tar(build.member("a", b"x", prefix="14731", magic=magic)))
        assert (root / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    "records",
    [
        *(
            [("path", "a"), ("path", "b")],
            [("size", "1"), ("size", "2")],
            [("size", "")],
            [("size", "-1")],
            [("path", "")],
        ),
        *([("size", "1.5")], [("size", "0x10")], [("size", "1_0")], [("size", " 1")], [("size", "9" * 30)]),
        *([("size", "\u0661")], [("GNU.sparse.map", "0,1")], [("GNU.sparse.major", "1"), ("GNU.sparse.name", "a")]),
    ],
)
def test_ambiguous_pax_header_is_refused(build: Any, extract: Any, records: list[tuple[str, str]]) -> None:
    """Two values for one keyword, invalid sizes, sparse files."""
    with pytest.raises(WrongBytesError):
        extract(build.tar(build.member("good", b"x"), build.pax(*records), build.member("a", b"0123456789" * 2)))


def test_contradictory_extended_headers_are_refused(build: Any, extract: Any) -> None:
    """Tools differ in the header they trust; two equal values are accepted."""
    long = build.member("././@LongLink", b"one\0", b"L")
    for other in (build.pax(("path", "two")), build.member("././@LongLink", b"two\0", b"L")):
        with pytest.raises(ArchiveError, match="two values for its path"):
            extract(build.tar(long, other, build.member("x", b"x")))
    assert (extract(build.tar(long, build.pax(("path", "one")), build.member("x", b"x"))) / "one").exists()


@pytest.mark.parametrize("key", ["path", "linkpath", "size", "GNU.sparse.major"])
def test_global_header_with_member_keywords_is_refused(build: Any, extract: Any, key: str) -> None:
    """No tool writes a global name, link target or size."""
    with pytest.raises(ArchiveError, match="global header"):
        extract(build.tar(build.pax((key, "1"), kind=b"g"), build.member("a", b"x")))


@pytest.mark.parametrize(
    "payload",
    [
        *(b"junk", b"5 a=b\n", b"7 a=b\n", b"06 a=b\n", b"-6 a=b\n", b"6 a-b\n", b"6 a=b\n6 a=b", b"\n"),
        *(b"99999999 a=b\n", b"999999999999999999 a=b\n", b"1" * 100_000, b"0 a=b\n", b"4 a=b\n", b"6 a=b\0"),
    ],
)
def test_malformed_pax_records_are_refused(build: Any, extract: Any, payload: bytes) -> None:
    """Records with wrong lengths are refused without long parsing."""
    for kind in (b"x", b"g"):
        with pytest.raises(ArchiveError, match="damaged"):
            extract(
                build.tar(build.member("good", b"x"), build.member("PaxHeader", payload, kind), build.member("a", b"x"))
            )


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_extended_header_over_1_mib_is_refused(build: Any, extract: Any, kind: bytes) -> None:
    """An extended header can claim gigabytes, and would be read into memory."""
    with pytest.raises(ArchiveError, match="larger than 1 MiB"):
        extract(build.block("x", 2**33 - 1, kind) + b"x" * 10_000)


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_extended_header_without_a_member_is_refused(build: Any, extract: Any, kind: bytes) -> None:
    """The tar ends before the member of the extended header."""
    payload = b"10 path=a\n" if kind == b"x" else b"name\0"
    with pytest.raises(ArchiveError, match="before the member"):
        extract(build.tar(build.member("good", b"x"), build.member("x", payload, kind)))


def test_incomplete_end_marker_is_refused(build: Any, extract: Any) -> None:
    """A missing or half end marker means a truncated tar."""
    good = build.member("good", b"x")
    for missing in (b"", bytes(1), bytes(511), bytes(512), bytes(1023)):
        with pytest.raises(ArchiveError, match="without its end marker"):
            extract(good + missing)
    with pytest.raises(ArchiveError, match="single block of zeros"):
        extract(good + bytes(512) + good + build.end)
    extract(good + bytes(1024))


def test_bytes_after_the_end_marker_are_refused(build: Any, extract: Any) -> None:
    """A second tar would be extracted by some tools and ignored by others."""
    good = build.member("good", b"x")
    for more in (build.tar(build.member("more", b"x")), b"\1", bytes(20_000) + b"x", b"junk" * 10_000):
        with pytest.raises(ArchiveError, match="follows the end of the tar"):
            extract(build.tar(good) + more)


@pytest.mark.parametrize("packer", [bytes, gzip.compress], ids=["tar", "gzip"])
def test_damaged_header_is_refused_and_not_taken_for_the_end(build: Any, extract: Any, packer: Any) -> None:
    """The checksum covers every byte of a header; Python's tarfile takes a damaged header for the end."""
    first, second = build.member("first", b"x"), build.member("second", b"x")
    for position in (0, 99, 124, 148, 156, 300, 511):
        damaged = bytearray(second)
        damaged[position] ^= 1
        with pytest.raises(ArchiveError, match="header of the tar is damaged"):
            extract(packer(build.tar(first, bytes(damaged), first)))
    with pytest.raises(ArchiveError, match="header of the tar is damaged"):
        extract(packer(build.tar(b"?" + second[1:], first)))


@pytest.mark.process
@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("tar_format", ["gnu", "pax", "posix --sparse-version=0.0", "posix --sparse-version=0.1"])
def test_sparse_files_of_the_tar_command_are_refused(extract: Any, tmp_path: Path, tar_format: str) -> None:
    """The payload of a sparse file is not the content; a plain copy would be wrong."""
    with (tmp_path / "holes").open("wb") as file:
        file.write(b"x" * 4096)
        file.seek(10_000_000)
        file.write(b"y" * 4096)
    command = ["tar", "-cS", *f"--format={tar_format}".split(), "holes"]
    archive = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    if len(archive) > 1_000_000:
        pytest.skip("this file system keeps no holes")
    with pytest.raises(ArchiveError, match="sparse file"):
        extract(archive)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_pythons_tarfile_are_extracted(extract: Any, tmp_path: Path, tar_format: int) -> None:
    """A directory added under a name, as training scripts do."""
    tree = tmp_path / "tree"
    (tree / ("deep" * 20)).mkdir(parents=True)
    (tree / ("deep" * 20) / "wéights.bin").write_bytes(os.urandom(1000))
    (tree / "a").symlink_to(f"{'deep' * 20}/wéights.bin")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tar_format) as archive:
        archive.add(tree, "model")
    root = extract(out.getvalue())
    assert (tree / "a").read_bytes() == (root / "model/a").read_bytes()


@pytest.mark.parametrize("kind", ["name", "hard link"])
def test_raw_name_is_bounded_before_it_is_normalised(build: Any, extract: Any, kind: str) -> None:
    """A pax path of `./` half a million times took half a minute."""
    long_text = "./" * 520_000 + "m"
    record = ("path", long_text) if kind == "name" else ("linkpath", long_text)
    member = build.member("n", b"", b"0" if kind == "name" else b"1", target="m")

    with pytest.raises(UnsafeNameError, match="is longer than"):
        extract(build.tar(build.member("m", b"1"), build.pax(record), member))


def test_link_targets_are_bounded_together(build: Any, extract: Any) -> None:
    """Each segment of a target is looked up: a few kilobytes must not cost minutes."""
    target = "/".join(["d", ".."] * 800) + "/m"
    links = [build.pax(("linkpath", target)) + build.member(f"l{n}", b"", b"2", target="x") for n in range(700)]

    with pytest.raises(BudgetError, match="segments"):
        extract(build.tar(build.member("d/x", b"1"), build.member("m", b"1"), *links))


def test_extended_headers_are_bounded_by_the_members(build: Any, extract: Any) -> None:
    """Records that change nothing would be parsed for hours."""
    header = build.pax(*[("comment", "x" * 900_000)])

    with pytest.raises(BudgetError, match="extended headers"):
        extract(build.tar(*[header] * 40, build.member("m", b"1")))

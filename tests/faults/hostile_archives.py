"""Hostile archives: an example of each attack, through the command line.

tests/modelfetch/archive and tests/fuzz try every form in every format; here the whole pull must refuse.
"""

import gzip
import lzma
import struct
from collections.abc import Iterator

from testkit import archives
from testkit.archives import ZipEntry, make_raw_zip, make_tar, pax_header, tar_header, tar_member
from tests.faults.hostile_trial import HostileCase

GOOD, ABOVE = tar_member("good", b"good"), "../" * 8
SUFFIXES = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}
MODEL = {"a": b"first", "d/b": b"second" * 100}
PLAIN = archives.pack_files(MODEL, "tar")
PACKERS = {suffix: archives.COMPRESSORS[how] for suffix, how in SUFFIXES.items()}

HOSTILE_TARS = {
    "name out of the archive": {
        **{
            f"{name}": GOOD + tar_member(name, b"x")
            for name in ("../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "..")
        },
        "pax path": GOOD + pax_header(("path", f"{ABOVE}evil")) + tar_member("x", b"x"),
        "pax path with NUL": GOOD + pax_header(("path", "a\0/../evil")) + tar_member("x", b"x"),
        "GNU long name": GOOD + tar_member("././@LongLink", f"{ABOVE}evil\0".encode(), b"L") + tar_member("x", b"x"),
        "prefix": GOOD + tar_member("evil", b"x", prefix="../.."),
        "global path": pax_header(("path", "../evil"), kind=b"g") + GOOD,
        "no UTF-8": GOOD + pax_header(("hdrcharset", "BINARY"), ("path", b"\xff")) + tar_member("x", b"x"),
    },
    "link out of the archive": {
        "symlink": GOOD + tar_member("l", kind=b"2", target=f"{ABOVE}etc/passwd"),
        "absolute symlink": GOOD + tar_member("l", kind=b"2", target="/etc/passwd"),
        "hard link": GOOD + tar_member("h", kind=b"1", target=f"{ABOVE}etc/passwd"),
        "absolute hard link": GOOD + tar_member("h", kind=b"1", target="/etc/passwd"),
        "pax linkpath": GOOD + pax_header(("linkpath", "/etc/passwd")) + tar_member("l", kind=b"2", target="good"),
        "chain": tar_member("d/x", b"x")
        + tar_member("d/up", kind=b"2", target="..")
        + tar_member("l", kind=b"2", target="d/up/../e"),
        "round": GOOD + tar_member("a", kind=b"2", target="b") + tar_member("b", kind=b"2", target="a"),
        "hard link to a symlink": GOOD
        + tar_member("s", kind=b"2", target="/etc/passwd")
        + tar_member("h", kind=b"1", target="s"),
    },
    "write through a link": {
        "link first": tar_member("l", kind=b"2", target="/tmp") + tar_member("l/evil", b"x"),
        "file first": tar_member("l/evil", b"x") + tar_member("l", kind=b"2", target="/tmp"),
        "link replaced": GOOD + tar_member("l", kind=b"2", target="good") + tar_member("l", b"x"),
        "directory link": tar_member("d", kind=b"5")
        + tar_member("l", kind=b"2", target="d")
        + tar_member("l/evil", b"x"),
        "hard link beneath": GOOD
        + tar_member("l", kind=b"2", target="/tmp")
        + tar_member("l/h", kind=b"1", target="good"),
    },
    "member that is no file": {
        f"type {kind!r}": GOOD + tar_member("bad", kind=kind)
        for kind in (b"3", b"4", b"6", b"S", b"V", b"M", b"D", b"\xff")
    },
    "members of one name": {
        "files": GOOD + GOOD,
        "file and directory": GOOD + tar_member("good/x", b"x"),
        "directory and file": tar_member("good/x", b"x") + GOOD,
        "link and file": GOOD + tar_member("l", kind=b"2", target="good") + tar_member("./l", b"x"),
    },
    "numbers that are none": {
        "negative size": GOOD + tar_header("a", size_field=b"\xff" * 12),
        "size beyond all": GOOD + tar_header("a", size_field=b"\x80" + b"\xff" * 11),
        "1 TB": GOOD + pax_header(("size", str(10**12))) + tar_header("a"),
        "size of letters": GOOD + pax_header(("size", "0x10")) + tar_header("a", 1) + bytes(512),
        "two sizes": GOOD + pax_header(("size", "1"), ("size", "2")) + tar_header("a", 1) + bytes(512),
        "sparse 1 TB": GOOD
        + pax_header(("GNU.sparse.realsize", str(10**12)), ("GNU.sparse.major", "1"))
        + tar_member("a", b"x"),
        "header of 8 GB": GOOD + tar_header("x", 2**33 - 1, b"x"),
        "checksum": GOOD + b"?" + GOOD[1:],
    },
}
ODD_TARS = {
    "modes": tar_member("run", b"x", mode=0o6777) + tar_member("d", kind=b"5", mode=0o1777),
    "times": pax_header(("mtime", "-1e300"), ("atime", "nan")) + tar_member("run", b"x"),
    "old": tar_member("run", b"x", kind=b"\0", magic=bytes(8)),
}
NESTED = {"inner.tar.gz": gzip.compress(PLAIN), "inner.zip": archives.make_zip(("../evil", b"x"))}


def make_cases() -> Iterator[HostileCase]:
    """Yield every case of hostile archives."""
    for fault, ways in HOSTILE_TARS.items():
        for number, (name, raw) in enumerate(ways.items()):
            for suffix in ("tar", list(PACKERS)[number % len(PACKERS)]):
                codes = (65, 73) if fault == "numbers that are none" else (65,)  # 73: exceeds the free space
                yield _archive_case(fault, name, suffix, PACKERS.get(suffix, bytes)(make_tar(raw)), codes)
    for name, raw in ODD_TARS.items():
        yield _archive_case("odd modes and times", name, "tar", make_tar(raw), (0,), {"run": b"x"})
    yield _archive_case(
        "archives in archives", "kept", "gz", gzip.compress(archives.pack_files(NESTED, "tar")), (0,), NESTED
    )
    yield from _zip_cases()
    yield from _stream_cases()
    yield from _bomb_cases()


def _archive_case(
    fault: str,
    name: str,
    suffix: str,
    data: bytes,
    codes: tuple[int, ...] = (65,),
    model: dict[str, bytes] | None = None,
) -> HostileCase:
    key = {"tar": "m.tar", "zip": "m.zip"}.get(suffix, f"m.tar.{suffix}")
    return HostileCase(f"archive: {fault}", name, "file", {key: data}, codes, model=model or {}, source=key)


def _zip_cases() -> Iterator[HostileCase]:
    good = ZipEntry(b"good", b"good")
    shared, inner = ZipEntry(b"good", b"good", offset=0), ZipEntry(b"inner", b"y" * 50)
    ways = {
        **{
            repr(name): [good, ZipEntry(name, b"x")]
            for name in (b"../evil", b"/evil", b"..\\evil", b"a\0b", b"C:\\evil", b"good")
        },
        "symlink": [good, ZipEntry(b"l", b"/etc/passwd", 0o120777)],
        "write through": [ZipEntry(b"l", b"/tmp", 0o120777), ZipEntry(b"l/evil", b"x")],
        "device": [good, ZipEntry(b"dev", b"", 0o20644)],
        "encrypted": [good, ZipEntry(b"a", b"x", flags=1)],
        "method": [good, ZipEntry(b"a", b"x", method=14)],
        "local name": [good, ZipEntry(b"a", b"x", local_name=b"b")],
        "overlapping": [good, shared],
        "quoted": [ZipEntry(b"outer", inner.local_record()), ZipEntry(b"inner", b"y" * 50, offset=35)],
        "size": [good, ZipEntry(b"a", b"x", size=2**32 - 2)],
        "offset": [good, ZipEntry(b"a", b"x", offset=2**32 - 1, extra=struct.pack("<2HQ", 1, 8, 2**63))],
        "crc": [good, ZipEntry(b"a", b"x", crc=1)],
    }
    for name, made in ways.items():
        yield _archive_case("zip that lies", name, "zip", make_raw_zip(*made))
    whole = make_raw_zip(good)
    for name, data in {
        "two": whole + make_raw_zip(ZipEntry(b"b", b"x")),
        "comment": make_raw_zip(good, comment=whole),
    }.items():
        yield _archive_case("zip that lies", f"{name} ends", "zip", data)


def _stream_cases() -> Iterator[HostileCase]:
    for suffix, pack in PACKERS.items():
        whole = pack(PLAIN)
        broken = {f"{tenth}0 %": whole[: len(whole) * tenth // 10] for tenth in range(10)}
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        broken |= {"flipped": bytes(flipped), "garbage": whole + b"garbage", "no end marker": pack(PLAIN.rstrip(b"\0"))}
        for name, data in broken.items():
            yield _archive_case("broken stream", f"{suffix} {name}", suffix, data)
        parts = pack(PLAIN[:700]) + pack(PLAIN[700:])
        yield _archive_case("stream of several members", suffix, suffix, parts, (0,), MODEL)
        yield _archive_case("archive under another's name", suffix, "zip", whole, (0,), MODEL)
    frame = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    yield _archive_case(
        "stream of several members", "skippable", "zst", frame + PACKERS["zst"](PLAIN) + frame, (0,), MODEL
    )
    yield _archive_case("archive under another's name", "none", "gz", b"model" * 100)
    yield _archive_case("archive under another's name", "empty", "tar", make_tar())


def _bomb_cases() -> Iterator[HostileCase]:
    large = {"zeros": bytes(100_000_000)}
    for suffix, pack in PACKERS.items():
        yield _bomb_case(suffix, pack(archives.pack_files(large, "tar")), "--max-ratio", "50")
        yield _bomb_case(suffix, pack(archives.pack_files(large, "tar")), "--max-bytes", "1M")
        yield _bomb_case(
            suffix, pack(archives.pack_files({str(n): b"" for n in range(200)}, "tar")), "--max-files", "100"
        )
    yield _bomb_case("zip", archives.make_zip(*large.items()), "--max-ratio", "50")
    options = {archives.zstd.CompressionParameter.window_log: 30}
    packer = archives.zstd.ZstdCompressor(options=options)
    yield _bomb_case("zst", packer.compress(PLAIN) + packer.flush())
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29, "preset": 0}]
    yield _bomb_case("xz", lzma.compress(PLAIN, format=lzma.FORMAT_XZ, filters=filters))


def _bomb_case(suffix: str, data: bytes, *args: str) -> HostileCase:
    key = "m.zip" if suffix == "zip" else f"m.tar.{suffix}"
    return HostileCase(
        "archive: bomb", f"{suffix} {args or 'window'}", "file", {key: data}, source=key, args=args, full_form_only=True
    )

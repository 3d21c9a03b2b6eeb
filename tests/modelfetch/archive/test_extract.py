import gzip
import io
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelfetch.archive import Budget, extract_archive
from modelfetch.errors import ArchiveError, BudgetError, TransientError, WrongBytesError
from modelfetch.safe_paths import is_archive_name

FILES = {
    "model/weights.bin": random.Random(1).randbytes(70_000),
    "model/config.json": b'{"layers": 12}\n' * 300,
    "model/empty": b"",
    "vocab.txt": b"token\n" * 5000,
}
FORMATS = ["tar", "gzip", "bzip2", "xz", "zstd", "zip"]
every_format = pytest.mark.parametrize("how", FORMATS)


class ShortReads:
    """A transfer that hands out few bytes at a time, and may break off."""

    def __init__(self, data: bytes, piece: int, failure: Exception | None = None) -> None:
        self._data = io.BytesIO(data)
        self._piece = piece
        self._failure = failure

    def read(self, size: int = -1, /) -> bytes:
        """Return less than asked for."""
        data = self._data.read(min(size, self._piece) if size >= 0 else self._piece)
        if not data and self._failure:
            raise self._failure
        return data


def read_files(root: Path) -> dict[str, bytes]:
    """Read all files of a tree."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "is_promise"),
    [
        *((f"m{suffix}", True) for suffix in (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".zip")),
        *((f"a/b.c/m{suffix}", True) for suffix in (".tar.xz", ".txz", ".tar.zst", ".tzst", ".TAR.GZ", ".Zip")),
        *((name, False) for name in ("m.joblib.gz", "m.pt", "m.gz", "m.zst", "m.tar.lz4", "m.zip/a", "tar", "m.7z")),
    ],
)
def test_name_promises_an_archive(name: str, is_promise: bool) -> None:
    """A compressed model is none."""
    assert is_promise == is_archive_name(name)


@every_format
@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.tar.zst", "m.zip"])
def test_content_decides_the_format(build: Any, unpacked: Any, how: str, name: str) -> None:
    """Whatever the name, every format is unpacked, empty files included."""
    assert read_files(unpacked(build.packed(FILES, how), name)) == FILES


@every_format
def test_list_of_members_is_what_sha256sum_prints(build: Any, tmp_path: Path, how: str) -> None:
    """Sorted by path, with sizes and digests of what is on the disk."""
    archive, into = io.BytesIO(build.packed(FILES, how)), tmp_path / "into"
    into.mkdir()

    members = extract_archive(archive, "m.tar", into, scratch=tmp_path / "s", budget=Budget(10**6, 9, 1000))

    names = sorted(FILES)
    printed = subprocess.run(["sha256sum", *names], cwd=into, capture_output=True, check=True, text=True).stdout
    assert printed == "".join(f"{each.sha256}  {each.path}\n" for each in members)
    assert [len(FILES[name]) for name in names] == [each.size for each in members]


@every_format
@pytest.mark.parametrize("piece", [1, 511, 4096])
def test_short_reads_make_no_difference(build: Any, unpacked: Any, how: str, piece: int) -> None:
    """Bytes come as the network has them."""
    assert read_files(unpacked(ShortReads(build.packed(FILES, how), piece))) == FILES


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"<!doctype html><title>Sign in</title>", "an HTML or XML page"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"\x80\x04\x95" + bytes(600), "a pickle"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7z archive"),
        (random.Random(2).randbytes(5000), "of an unknown kind"),
        (gzip.compress(b"\x80\x04\x95 a joblib dump" * 100), "gzip data with something in it that is no tar"),
        (gzip.compress(b""), "gzip data with something in it that is no tar"),
        (gzip.compress(gzip.compress(bytes(10_240))), "gzip data with something in it that is no tar"),
    ],
    ids=["empty", "html", "json", "pickle", "7z", "unknown", "gzip of a pickle", "empty gzip", "gzip twice"],
)
def test_name_that_promises_too_much_is_refused(unpacked: Any, content: bytes, what: str) -> None:
    """The message says what the content is, the hint how to keep it."""
    with pytest.raises(ArchiveError) as caught:
        unpacked(content, "model.tar.gz")

    assert f"model.tar.gz: The name promises an archive, but the content is {what}." == caught.value.message
    assert "--no-extract" in caught.value.hint


@pytest.mark.parametrize("how", ["bzip2", "xz", "zstd"])
def test_compressed_file_that_is_no_tar_is_refused(build: Any, unpacked: Any, how: str) -> None:
    """Whatever compressed it."""
    with pytest.raises(ArchiveError, match=f"{how} data with something in it that is no tar"):
        unpacked(build.packers[how](b"no tar" * 1000), "m.tar.xz")


@every_format
def test_archive_without_files_is_refused(build: Any, unpacked: Any, how: str) -> None:
    """An empty model is no model."""
    with pytest.raises(ArchiveError, match="holds no files"):
        unpacked(build.packed({}, how))


@every_format
def test_modes_do_not_depend_on_the_umask(build: Any, unpacked: Any, how: str) -> None:
    """The app may run under another uid; modes are looked at by the fixture."""
    before = os.umask(0o077)
    try:
        unpacked(build.packed(FILES, how))
    finally:
        os.umask(before)


@every_format
def test_truncated_archive_never_passes(build: Any, unpacked: Any, how: str) -> None:
    """Wherever it is cut. Only the zeros that fill a plain tar's last record may be missing."""
    whole = build.packed(FILES, how)
    end = len(whole.rstrip(b"\0")) + 1024 if how == "tar" else len(whole)
    end -= end % 512 if how == "tar" else 0
    cuts = {0, 1, 5, 100, 511, 512, 513, *range(end - 40, end), *random.Random(3).sample(range(end), 80)}
    if how == "tar":
        cuts |= set(range(0, end, 512))
    for cut in sorted(cuts):
        with pytest.raises(ArchiveError):
            unpacked(whole[:cut])


@every_format
def test_flipped_byte_never_changes_a_file(build: Any, unpacked: Any, how: str) -> None:
    """Every format but the plain tar has checksums of its content; a tar has them of its headers."""
    whole = build.packed(FILES, how)
    rng = random.Random(4)
    survived = 0
    for position in (*range(40), *rng.sample(range(len(whole)), 250), *range(len(whole) - 60, len(whole))):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        try:
            root = unpacked(bytes(damaged))
        except WrongBytesError:
            continue
        survived += 1
        assert how == "tar" or read_files(root) == FILES, position
    assert survived < 350 if how == "tar" else survived < 60


@every_format
@pytest.mark.parametrize("junk", [b"x", b"garbage" * 100, b"\0" * 700 + b"\1"])
def test_junk_behind_the_end_is_refused(build: Any, unpacked: Any, how: str, junk: bytes) -> None:
    """Something went wrong where such an archive was made, or somebody hides something."""
    with pytest.raises(ArchiveError):
        unpacked(build.packed(FILES, how) + junk)


@pytest.mark.parametrize("how", ["tar", "gzip", "bzip2", "xz", "zstd"])
def test_zeros_behind_the_end_are_padding(build: Any, unpacked: Any, how: str) -> None:
    """Tapes, dd and tar itself fill up their last record."""
    assert read_files(unpacked(build.packed(FILES, how) + bytes(100_000))) == FILES


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("piece", [7, 100_000])
def test_members_of_a_compressed_stream_are_one(build: Any, unpacked: Any, how: str, piece: int) -> None:
    """As pigz, pbzip2, pzstd and `cat a.gz b.gz` make them; cut anywhere, empty ones among them."""
    pack, plain = build.packers[how], build.packed(FILES, "tar")
    whole = pack(b"") + pack(plain[:700]) + pack(b"") + pack(plain[700:])

    assert read_files(unpacked(ShortReads(whole, piece))) == FILES
    for cut in random.Random(5).sample(range(len(whole)), 30):
        with pytest.raises(ArchiveError):
            unpacked(whole[:cut])


@every_format
def test_failed_transfer_is_no_corrupt_archive(build: Any, unpacked: Any, how: str) -> None:
    """Wherever the stream breaks, even behind the last byte, its own error comes out, the same object."""
    whole = build.packed(FILES, how)
    for cut in (0, 1, 600, len(whole) // 2, len(whole) - 5, len(whole)):
        failure = TransientError("the connection was reset", hint="wait")
        with pytest.raises(TransientError) as caught:
            unpacked(ShortReads(whole[:cut], 1000, failure))
        assert failure is caught.value


def test_error_of_the_stream_stays_as_it_is_whatever_its_class(build: Any, unpacked: Any) -> None:
    """An archive error that comes from below is not told as one of this archive."""
    failure = ArchiveError("something about another archive")
    with pytest.raises(ArchiveError) as caught:
        unpacked(ShortReads(build.packed(FILES, "gzip")[:100], 50, failure))
    assert failure is caught.value


@every_format
def test_budget_of_bytes_is_kept_before_they_are_written(build: Any, unpacked: Any, how: str, tmp_path: Path) -> None:
    """A byte too many is too many; as many as allowed are fine."""
    size = sum(map(len, FILES.values()))
    into = tmp_path / "over"
    into.mkdir()

    with pytest.raises(BudgetError, match=f"more than {size - 1} bytes") as caught:
        unpacked(build.packed(FILES, how), into=into, max_bytes=size - 1)

    assert "MODELFETCH_MAX_BYTES" in caught.value.hint
    assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) < size
    unpacked(build.packed(FILES, how), max_bytes=size)


@every_format
def test_budget_of_members_is_kept(build: Any, unpacked: Any, how: str) -> None:
    """A member too many is too many."""
    with pytest.raises(BudgetError, match="more than 3 files") as caught:
        unpacked(build.packed(FILES, how), max_files=3)

    assert "MODELFETCH_MAX_FILES" in caught.value.hint
    unpacked(build.packed(FILES, how), max_files=4)


@pytest.mark.parametrize("how", ["tar", "zip"])
def test_directories_that_no_member_stands_for_count(build: Any, unpacked: Any, how: str) -> None:
    """One member can ask for hundreds of them."""
    with pytest.raises(BudgetError, match="more than 9 files"):
        unpacked(build.packed({"/".join("abcdefghijk"): b"x"}, how), max_files=9)


def test_names_that_would_fill_the_memory_are_refused(build: Any, unpacked: Any) -> None:
    """Every name is remembered, so all of them together must be short enough."""
    long = ".modelfetch/" + "/".join(["d" * 200] * 20)  # left out, so that nothing is written
    members = [build.pax(("path", f"{long}/{number}")) + build.member("x") for number in range(17_000)]
    with pytest.raises(BudgetError, match="names"):
        unpacked(gzip.compress(build.tar(*members), 1), max_files=10**6, max_ratio=10**6)


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz", "zstd", "zip"])
def test_budget_of_the_ratio_is_kept(build: Any, unpacked: Any, how: str) -> None:
    """A bomb is refused while it unfolds; a small file may be of zeros only."""
    bomb = build.packed({"bomb": bytes(4_000_000)}, how)
    with pytest.raises(BudgetError, match="more than 100 times") as caught:
        unpacked(bomb, max_ratio=100)

    assert "MODELFETCH_MAX_RATIO" in caught.value.hint
    unpacked(bomb, max_ratio=10**6)
    unpacked(build.packed({"zeros": bytes(50_000)}, how), max_ratio=2)


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz", "zstd"])
def test_bomb_behind_the_end_of_the_tar_is_refused(build: Any, unpacked: Any, how: str) -> None:
    """Padding is unpacked too, so it counts."""
    with pytest.raises(BudgetError):
        unpacked(build.packers[how](build.packed(FILES, "tar") + bytes(60_000_000)), max_ratio=20)


def test_archives_inside_are_just_files(build: Any, unpacked: Any) -> None:
    """Nothing is unpacked twice."""
    inner = build.packed(FILES, "gzip")
    assert read_files(unpacked(build.packed({"inner.tar.gz": inner}, "gzip"))) == {"inner.tar.gz": inner}


@every_format
def test_what_an_earlier_pull_left_is_left_out(build: Any, unpacked: Any, how: str) -> None:
    """An archive of a once-pulled directory holds a receipt, which would pass for ours."""
    files = {".modelfetch.json": b"{}", ".modelfetch/part": b"x" * 1000, "m/.modelfetch.json": b"kept", "m/a": b"a"}
    expected = {"m/.modelfetch.json": b"kept", "m/a": b"a"}
    assert read_files(unpacked(build.packed(files, how))) == expected


def test_empty_gzip_members_by_the_thousand_are_no_trap(build: Any, unpacked: Any) -> None:
    """Each of them costs a decompressor, none costs a copy of the whole rest."""
    whole = build.packers["gzip"](b"") * 30_000 + build.packed(FILES, "gzip")
    assert read_files(unpacked(whole)) == FILES


@pytest.mark.parametrize("window_log", [28, 30])
def test_zstd_frame_that_wants_gigabytes_is_refused(build: Any, unpacked: Any, window_log: int) -> None:
    """Its header alone would have them allocated."""
    zstd = build.zstd
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    whole = packer.compress(build.packed(FILES, "tar")) + packer.flush()
    with pytest.raises(ArchiveError, match="128 MiB of memory") as caught:
        unpacked(whole)
    assert "smaller window" in caught.value.hint


def test_zstd_frame_of_the_longest_usual_window_is_taken(build: Any, unpacked: Any) -> None:
    """`zstd --long` makes windows of 128 MiB."""
    zstd = build.zstd
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    assert read_files(unpacked(packer.compress(build.packed(FILES, "tar")) + packer.flush())) == FILES


def test_zstd_skippable_frames_are_skipped(build: Any, unpacked: Any) -> None:
    """Pzstd puts one before every frame."""
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x01\x02\x03\x04"
    assert read_files(unpacked(skippable + build.packed(FILES, "zstd") + skippable)) == FILES


def test_xz_stream_that_wants_gigabytes_is_refused(build: Any, unpacked: Any) -> None:
    """A dictionary of 512 MiB is more than the container has."""
    import lzma  # noqa: PLC0415

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29, "preset": 0}]
    whole = lzma.compress(build.packed(FILES, "tar"), format=lzma.FORMAT_XZ, filters=filters)
    with pytest.raises(ArchiveError, match="128 MiB of memory"):
        unpacked(whole)


MEASURE_SCRIPT = """
import sys
from pathlib import Path
from modelfetch.archive import Budget, extract_archive

place = Path(sys.argv[1])
with (place / "archive").open("rb") as stream:
    extract_archive(stream, "m.tar", place / "into", scratch=place / "s", budget=Budget(2**30, 9, 10**9))
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure")
@pytest.mark.parametrize("how", ["tar", "gzip", "bzip2", "xz", "zstd", "zip", "zip-bzip2"])
def test_memory_does_not_grow_with_what_is_packed(build: Any, tmp_path: Path, how: str) -> None:
    """70 MiB of zeros pass through less than that, interpreter included."""
    zeros = {"zeros": bytes(70 * 2**20)}
    (tmp_path / "into").mkdir()
    archive = build.zip(*zeros.items(), method=12) if how == "zip-bzip2" else build.packed(zeros, how)
    (tmp_path / "archive").write_bytes(archive)

    run = subprocess.run([sys.executable, "-c", MEASURE_SCRIPT, tmp_path], capture_output=True, check=True, text=True)

    assert (tmp_path / "into/zeros").read_bytes() == zeros["zeros"]
    assert int(run.stdout) < 50, "MiB"


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("how", ["v7", "oldgnu", "gnu", "ustar", "pax"])
@pytest.mark.parametrize("packer", [None, "gzip", "bzip2", "xz", "zstd"])
def test_unpacks_what_the_tar_command_makes(unpacked: Any, tmp_path: Path, how: str, packer: str | None) -> None:
    """All its formats, long and non-ASCII names, links, empty directories and odd modes."""
    if packer and shutil.which(packer) is None:
        pytest.skip(f"needs {packer}")
    tree = tmp_path / "tree"
    deep = tree / "/".join(["a" * 40] * (1 if how in ("v7", "ustar") else 6))
    deep.mkdir(parents=True)
    (deep / "wéights.bin").write_bytes(FILES["model/weights.bin"])
    (tree / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tree / "run.sh").chmod(0o6750)
    (tree / "link").symlink_to("run.sh")
    (tree / "dir-link").symlink_to("a" * 40)
    (tree / "again").hardlink_to(tree / "run.sh")
    (tree / "nothing").mkdir(mode=0o2700)
    command = ["tar", "-c", f"--format={how}", *([f"--{packer}"] if packer else []), "."]
    whole = subprocess.run(command, cwd=tree, capture_output=True, check=True).stdout

    root = unpacked(whole)

    assert read_files(root) == read_files(tree)
    assert (root / "nothing").is_dir()
    assert str((root / "link").readlink()) == "run.sh"
    assert (root / "again").samefile(root / "run.sh")
    assert (root / "run.sh").stat().st_mode & 0o7777 == 0o755


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs zip")
@pytest.mark.parametrize("options", [["-9"], ["-0"], ["-Z", "bzip2"], ["-y"], ["-fd"], ["-fz"], ["-X"]])
def test_unpacks_what_the_zip_command_makes(unpacked: Any, tmp_path: Path, options: list[str]) -> None:
    """From a file and from a pipe, with links and non-ASCII names."""
    tree = tmp_path / "tree"
    (tree / "mödel").mkdir(parents=True)
    (tree / "nothing").mkdir()
    (tree / "mödel/日本.bin").write_bytes(FILES["model/weights.bin"])
    (tree / "run.sh").write_bytes(b"#!/bin/sh\n" * 1000)
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("mödel/日本.bin")
    subprocess.run(["zip", "-qr", *options, tmp_path / "file.zip", "."], cwd=tree, check=True)
    wholes = [(tmp_path / "file.zip").read_bytes()]
    if options not in (["-y"], ["-fz"]):  # with these, Info-ZIP 3.0 writes to a pipe what its own unzip cannot read
        piped = subprocess.run(["zip", "-qr", *options, "-", "."], cwd=tree, capture_output=True, check=True)
        wholes.append(piped.stdout)

    for whole in wholes:
        root = unpacked(whole)
        assert read_files(root) == read_files(tree)
        assert (root / "nothing").is_dir()
        assert (root / "link").is_symlink() == ("-y" in options)
        assert (root / "run.sh").stat().st_mode & 0o7777 == 0o755

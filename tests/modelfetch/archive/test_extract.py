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
from modelfetch.volume.staged_tree import StagedTree

FILES = {
    "model/weights.bin": random.Random(1).randbytes(70_000),
    "model/config.json": b'{"layers": 12}\n' * 300,
    "model/empty": b"",
    "vocab.txt": b"token\n" * 5000,
}
FORMATS = ["tar", "gzip", "bzip2", "xz", "zstd", "zip"]
every_format = pytest.mark.parametrize("archive_format", FORMATS)


class ShortReads:
    """Stream that returns few bytes per read, and may fail at the end."""

    def __init__(self, data: bytes, piece: int, failure: Exception | None = None) -> None:
        self._data = io.BytesIO(data)
        self._piece = piece
        self._failure = failure

    def read(self, size: int = -1, /) -> bytes:
        """Return fewer bytes than requested."""
        data = self._data.read(min(size, self._piece) if size >= 0 else self._piece)
        if not data and self._failure:
            raise self._failure
        return data


def read_files(root: Path) -> dict[str, bytes]:
    """Read all files of a directory tree."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "is_promise"),
    [
        *((f"m{suffix}", True) for suffix in (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".zip")),
        *((f"a/b.c/m{suffix}", True) for suffix in (".tar.xz", ".txz", ".tar.zst", ".tzst", ".TAR.GZ", ".Zip")),
        *((name, False) for name in ("m.joblib.gz", "m.pt", "m.gz", "m.zst", "m.tar.lz4", "m.zip/a", "tar", "m.7z")),
    ],
)
def test_archive_suffixes_promise_an_archive_and_model_suffixes_do_not(name: str, is_promise: bool) -> None:
    """Archive suffixes are recognised in any case; a compressed model is no archive."""
    assert is_promise == is_archive_name(name)


@every_format
@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.tar.zst", "m.zip"])
def test_format_follows_the_content_not_the_name(build: Any, extract: Any, archive_format: str, name: str) -> None:
    """Every format is extracted under any archive name, empty files included."""
    assert read_files(extract(build.packed(FILES, archive_format), name)) == FILES


@pytest.mark.process
@every_format
def test_members_returned_match_sha256sum_of_the_files(build: Any, tmp_path: Path, archive_format: str) -> None:
    """Members are sorted by path, with size and digest of the file on disk."""
    archive, into = io.BytesIO(build.packed(FILES, archive_format)), tmp_path / "into"
    into.mkdir()

    members = extract_archive(archive, "m.tar", StagedTree(into), scratch=tmp_path / "s", budget=Budget(10**6, 9, 1000))

    names = sorted(FILES)
    printed = subprocess.run(["sha256sum", *names], cwd=into, capture_output=True, check=True, text=True).stdout
    assert printed == "".join(f"{each.sha256}  {each.path}\n" for each in members)
    assert [len(FILES[name]) for name in names] == [each.size for each in members]


@every_format
@pytest.mark.parametrize("piece", [1, 511, 4096])
def test_short_reads_give_the_same_files(build: Any, extract: Any, archive_format: str, piece: int) -> None:
    """Network reads of any size give the same files."""
    assert read_files(extract(ShortReads(build.packed(FILES, archive_format), piece))) == FILES


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
def test_content_that_is_no_archive_is_refused_with_its_kind(extract: Any, content: bytes, what: str) -> None:
    """The message describes the content, the hint says how to keep the file."""
    with pytest.raises(ArchiveError) as caught:
        extract(content, "model.tar.gz")

    assert f"model.tar.gz: The name promises an archive, but the content is {what}." == caught.value.message
    assert "--no-extract" in caught.value.hint


@pytest.mark.parametrize("archive_format", ["bzip2", "xz", "zstd"])
def test_compressed_content_other_than_tar_is_refused(build: Any, extract: Any, archive_format: str) -> None:
    """A compressed stream without a tar inside is an ArchiveError."""
    with pytest.raises(ArchiveError, match=f"{archive_format} data with something in it that is no tar"):
        extract(build.packers[archive_format](b"no tar" * 1000), "m.tar.xz")


@every_format
def test_archive_without_files_is_refused(build: Any, extract: Any, archive_format: str) -> None:
    """An archive without files holds no model."""
    with pytest.raises(ArchiveError, match="holds no files"):
        extract(build.packed({}, archive_format))


@every_format
def test_modes_are_independent_of_the_umask(build: Any, extract: Any, archive_format: str) -> None:
    """The app may run under another uid; the fixture checks all modes."""
    before = os.umask(0o077)
    try:
        extract(build.packed(FILES, archive_format))
    finally:
        os.umask(before)


@every_format
def test_truncated_archive_is_refused_at_every_cut(build: Any, extract: Any, archive_format: str) -> None:
    """Every cut is an error; only the padding zeros of a plain tar's last record may be missing."""
    archive = build.packed(FILES, archive_format)
    end = len(archive.rstrip(b"\0")) + 1024 if archive_format == "tar" else len(archive)
    end -= end % 512 if archive_format == "tar" else 0
    cuts = {0, 1, 5, 100, 511, 512, 513, *range(end - 40, end), *random.Random(3).sample(range(end), 80)}
    if archive_format == "tar":
        cuts |= set(range(0, end, 512))
    for cut in sorted(cuts):
        with pytest.raises(ArchiveError):
            extract(archive[:cut])


@every_format
def test_flipped_bit_is_refused_or_leaves_the_files_unchanged(build: Any, extract: Any, archive_format: str) -> None:
    """Every format but plain tar has checksums over the content; a tar has checksums over headers only."""
    archive = build.packed(FILES, archive_format)
    rng = random.Random(4)
    survived = 0
    for position in (*range(40), *rng.sample(range(len(archive)), 250), *range(len(archive) - 60, len(archive))):
        damaged = bytearray(archive)
        damaged[position] ^= 1 << rng.randrange(8)
        try:
            root = extract(bytes(damaged))
        except WrongBytesError:
            continue
        survived += 1
        assert archive_format == "tar" or read_files(root) == FILES, position
    assert survived < 350 if archive_format == "tar" else survived < 60


@every_format
@pytest.mark.parametrize("junk", [b"x", b"garbage" * 100, b"\0" * 700 + b"\1"])
def test_junk_after_the_end_is_refused(build: Any, extract: Any, archive_format: str, junk: bytes) -> None:
    """Bytes after the end mean a damaged archive or hidden content."""
    with pytest.raises(ArchiveError):
        extract(build.packed(FILES, archive_format) + junk)


@pytest.mark.parametrize("archive_format", ["tar", "gzip", "bzip2", "xz", "zstd"])
def test_zeros_after_the_end_are_accepted_as_padding(build: Any, extract: Any, archive_format: str) -> None:
    """Tapes, dd and tar itself fill up the last record with zeros."""
    assert read_files(extract(build.packed(FILES, archive_format) + bytes(100_000))) == FILES


@pytest.mark.parametrize("archive_format", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("piece", [7, 100_000])
def test_concatenated_compressed_members_are_one_stream(
    build: Any, extract: Any, archive_format: str, piece: int
) -> None:
    """As pigz, pbzip2, pzstd and `cat a.gz b.gz` write them; empty members are accepted, every cut is refused."""
    pack, plain = build.packers[archive_format], build.packed(FILES, "tar")
    archive = pack(b"") + pack(plain[:700]) + pack(b"") + pack(plain[700:])

    assert read_files(extract(ShortReads(archive, piece))) == FILES
    for cut in random.Random(5).sample(range(len(archive)), 30):
        with pytest.raises(ArchiveError):
            extract(archive[:cut])


@every_format
def test_transfer_failure_is_raised_unchanged_at_every_cut(build: Any, extract: Any, archive_format: str) -> None:
    """A failed stream raises the stream's own error object, even after the last byte."""
    archive = build.packed(FILES, archive_format)
    for cut in (0, 1, 600, len(archive) // 2, len(archive) - 5, len(archive)):
        failure = TransientError("the connection was reset", hint="wait")
        with pytest.raises(TransientError) as caught:
            extract(ShortReads(archive[:cut], 1000, failure))
        assert failure is caught.value


def test_archive_error_raised_by_the_stream_is_passed_on_unchanged(build: Any, extract: Any) -> None:
    """An ArchiveError from the stream is not reported as an error of this archive."""
    failure = ArchiveError("something about another archive")
    with pytest.raises(ArchiveError) as caught:
        extract(ShortReads(build.packed(FILES, "gzip")[:100], 50, failure))
    assert failure is caught.value


@every_format
def test_bytes_over_budget_are_refused_before_writing(
    build: Any, extract: Any, archive_format: str, tmp_path: Path
) -> None:
    """One byte over the budget is refused; exactly the budget is accepted."""
    size = sum(map(len, FILES.values()))
    into = tmp_path / "over"
    into.mkdir()

    with pytest.raises(BudgetError, match=f"more than {size - 1} bytes") as caught:
        extract(build.packed(FILES, archive_format), into=into, max_bytes=size - 1)

    assert "MODELFETCH_MAX_BYTES" in caught.value.hint
    assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) < size
    extract(build.packed(FILES, archive_format), max_bytes=size)


@every_format
def test_members_over_budget_are_refused(build: Any, extract: Any, archive_format: str) -> None:
    """One member over the budget is refused; exactly the budget is accepted."""
    with pytest.raises(BudgetError, match="more than 3 files") as caught:
        extract(build.packed(FILES, archive_format), max_files=3)

    assert "MODELFETCH_MAX_FILES" in caught.value.hint
    extract(build.packed(FILES, archive_format), max_files=4)


@pytest.mark.parametrize("archive_format", ["tar", "zip"])
def test_implied_directories_count_as_members(build: Any, extract: Any, archive_format: str) -> None:
    """One member's path can imply hundreds of directories."""
    with pytest.raises(BudgetError, match="more than 9 files"):
        extract(build.packed({"/".join("abcdefghijk"): b"x"}, archive_format), max_files=9)


def test_names_over_64_mib_in_total_are_refused(build: Any, extract: Any) -> None:
    """All names are kept in memory, with a limit on the total length."""
    long = ".modelfetch/" + "/".join(["d" * 200] * 20)  # left out, so that nothing is written
    members = [build.pax(("path", f"{long}/{number}")) + build.member("x") for number in range(17_000)]
    with pytest.raises(BudgetError, match="names"):
        extract(gzip.compress(build.tar(*members), 1), max_files=10**6, max_ratio=10**6)


@pytest.mark.parametrize("archive_format", ["gzip", "bzip2", "xz", "zstd", "zip"])
def test_compression_ratio_over_budget_is_refused(build: Any, extract: Any, archive_format: str) -> None:
    """A bomb is refused while it expands; a small file of zeros is accepted."""
    bomb = build.packed({"bomb": bytes(4_000_000)}, archive_format)
    with pytest.raises(BudgetError, match="more than 100 times") as caught:
        extract(bomb, max_ratio=100)

    assert "MODELFETCH_MAX_RATIO" in caught.value.hint
    extract(bomb, max_ratio=10**6)
    extract(build.packed({"zeros": bytes(50_000)}, archive_format), max_ratio=2)


@pytest.mark.parametrize("archive_format", ["gzip", "bzip2", "xz", "zstd"])
def test_bomb_after_the_end_of_the_tar_is_refused(build: Any, extract: Any, archive_format: str) -> None:
    """Padding is decompressed and counts towards the ratio."""
    with pytest.raises(BudgetError):
        extract(build.packers[archive_format](build.packed(FILES, "tar") + bytes(60_000_000)), max_ratio=20)


def test_nested_archive_stays_a_file(build: Any, extract: Any) -> None:
    """An archive inside the archive is not extracted."""
    inner = build.packed(FILES, "gzip")
    assert read_files(extract(build.packed({"inner.tar.gz": inner}, "gzip"))) == {"inner.tar.gz": inner}


@every_format
def test_reserved_names_are_left_out_at_every_depth(build: Any, extract: Any, archive_format: str) -> None:
    """The receipt of a packed model would pass for a receipt of this pull."""
    reserved = (".modelfetch-receipt", "m/.modelfetch.json", "m/a.modelfetch-receipt", "m/b.MODELFETCH.json")
    files = dict.fromkeys(reserved, b"{}") | {"m/d/.modelfetch/part": b"x" * 1000, "m/a": b"a"}
    assert read_files(extract(build.packed(files, archive_format))) == {"m/a": b"a"}


def test_thousands_of_empty_gzip_members_are_extracted(build: Any, extract: Any) -> None:
    """Each empty member costs one decompressor and no copy of the remaining input."""
    archive = build.packers["gzip"](b"") * 30_000 + build.packed(FILES, "gzip")
    assert read_files(extract(archive)) == FILES


@pytest.mark.parametrize("window_log", [28, 30])
def test_zstd_frame_with_a_window_above_128_mib_is_refused(build: Any, extract: Any, window_log: int) -> None:
    """The frame header alone would make the decompressor allocate gigabytes."""
    zstd = build.zstd
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    archive = packer.compress(build.packed(FILES, "tar")) + packer.flush()
    with pytest.raises(ArchiveError, match="128 MiB of memory") as caught:
        extract(archive)
    assert "smaller window" in caught.value.hint


def test_zstd_frame_with_a_window_of_128_mib_is_extracted(build: Any, extract: Any) -> None:
    """`zstd --long` writes frames with windows of 128 MiB."""
    zstd = build.zstd
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    assert read_files(extract(packer.compress(build.packed(FILES, "tar")) + packer.flush())) == FILES


def test_zstd_skippable_frames_are_skipped(build: Any, extract: Any) -> None:
    """Skippable frames, as pzstd writes before every frame, are ignored."""
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x01\x02\x03\x04"
    assert read_files(extract(skippable + build.packed(FILES, "zstd") + skippable)) == FILES


def test_xz_stream_with_a_512_mib_dictionary_is_refused(build: Any, extract: Any) -> None:
    """A dictionary of 512 MiB exceeds the memory limit of 128 MiB."""
    import lzma  # noqa: PLC0415

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29, "preset": 0}]
    archive = lzma.compress(build.packed(FILES, "tar"), format=lzma.FORMAT_XZ, filters=filters)
    with pytest.raises(ArchiveError, match="128 MiB of memory"):
        extract(archive)


MEASURE_SCRIPT = """
import sys
from pathlib import Path
from modelfetch.volume.staged_tree import StagedTree
from modelfetch.archive import Budget, extract_archive

place = Path(sys.argv[1])
with (place / "archive").open("rb") as stream:
    extract_archive(stream, "m.tar", StagedTree(place / "into"), scratch=place / "s", budget=Budget(2**30, 9, 10**9))
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure")
@pytest.mark.parametrize("archive_format", ["tar", "gzip", "bzip2", "xz", "zstd", "zip", "zip-bzip2"])
def test_memory_is_independent_of_the_content_size(build: Any, tmp_path: Path, archive_format: str) -> None:
    """70 MiB of zeros are extracted in less than 50 MiB of memory, interpreter included."""
    zeros = {"zeros": bytes(70 * 2**20)}
    (tmp_path / "into").mkdir()
    archive = (
        build.zip(*zeros.items(), method=12) if archive_format == "zip-bzip2" else build.packed(zeros, archive_format)
    )
    (tmp_path / "archive").write_bytes(archive)

    run = subprocess.run([sys.executable, "-c", MEASURE_SCRIPT, tmp_path], capture_output=True, check=True, text=True)

    assert (tmp_path / "into/zeros").read_bytes() == zeros["zeros"]
    assert int(run.stdout) < 50, "MiB"


@pytest.mark.process
@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("archive_format", ["v7", "oldgnu", "gnu", "ustar", "pax"])
@pytest.mark.parametrize("packer", [None, "gzip", "bzip2", "xz", "zstd"])
def test_archives_of_the_tar_command_are_extracted(
    extract: Any, tmp_path: Path, archive_format: str, packer: str | None
) -> None:
    """All formats of tar, with long and non-ASCII names, links, empty directories and odd modes."""
    if packer and shutil.which(packer) is None:
        pytest.skip(f"needs {packer}")
    tree = tmp_path / "tree"
    deep = tree / "/".join(["a" * 40] * (1 if archive_format in ("v7", "ustar") else 6))
    deep.mkdir(parents=True)
    (deep / "wéights.bin").write_bytes(FILES["model/weights.bin"])
    (tree / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tree / "run.sh").chmod(0o6750)
    (tree / "link").symlink_to("run.sh")
    (tree / "dir-link").symlink_to("a" * 40)
    (tree / "again").hardlink_to(tree / "run.sh")
    (tree / "nothing").mkdir(mode=0o2700)
    command = ["tar", "-c", f"--format={archive_format}", *([f"--{packer}"] if packer else []), "."]
    archive = subprocess.run(command, cwd=tree, capture_output=True, check=True).stdout

    root = extract(archive)

    assert read_files(root) == read_files(tree)
    assert (root / "nothing").is_dir()
    assert str((root / "link").readlink()) == "run.sh"
    assert (root / "again").samefile(root / "run.sh")
    assert (root / "run.sh").stat().st_mode & 0o7777 == 0o755


@pytest.mark.process
@pytest.mark.skipif(shutil.which("zip") is None, reason="needs zip")
@pytest.mark.parametrize("options", [["-9"], ["-0"], ["-Z", "bzip2"], ["-y"], ["-fd"], ["-fz"], ["-X"]])
def test_archives_of_the_zip_command_are_extracted(extract: Any, tmp_path: Path, options: list[str]) -> None:
    """Zips written to a file and to a pipe, with symlinks and non-ASCII names."""
    tree = tmp_path / "tree"
    (tree / "mödel").mkdir(parents=True)
    (tree / "nothing").mkdir()
    (tree / "mödel/日本.bin").write_bytes(FILES["model/weights.bin"])
    (tree / "run.sh").write_bytes(b"#!/bin/sh\n" * 1000)
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("mödel/日本.bin")
    subprocess.run(["zip", "-qr", *options, tmp_path / "file.zip", "."], cwd=tree, check=True)
    archives = [(tmp_path / "file.zip").read_bytes()]
    if options not in (["-y"], ["-fz"]):  # with these, Info-ZIP 3.0 writes to a pipe what its own unzip cannot read
        piped = subprocess.run(["zip", "-qr", *options, "-", "."], cwd=tree, capture_output=True, check=True)
        archives.append(piped.stdout)

    for archive in archives:
        root = extract(archive)
        assert read_files(root) == read_files(tree)
        assert (root / "nothing").is_dir()
        assert (root / "link").is_symlink() == ("-y" in options)
        assert (root / "run.sh").stat().st_mode & 0o7777 == 0o755

"""Archives on the command line: recognised by name and content, extracted whole or not at all, in little memory."""

import bz2
import gzip
import importlib
import io
import lzma
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner
from testkit.file_tree import directory_digest, pack_tar, pack_tar_gz, random_bytes, read_files
from testkit.stores import ModelFolder, S3Bucket, Store

zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
MODEL = {"config.json": b"{}", "empty": b"", "weights/0.bin": random_bytes(200_000)}


def make_zip(files: dict[str, bytes]) -> bytes:
    """Build a zip archive of files."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return sink.getvalue()


PLAIN = pack_tar(MODEL)
ARCHIVES = {
    "m.tar": PLAIN,
    "m.tar.gz": gzip.compress(PLAIN),
    "m.tgz": gzip.compress(PLAIN),
    "m.tar.bz2": bz2.compress(PLAIN),
    "m.tar.xz": lzma.compress(PLAIN),
    "m.tar.zst": zstd.compress(PLAIN),
    "m.zip": make_zip(MODEL),
    "really-plain.tar.gz": PLAIN,
}
COMPRESSED_MODELS = {
    "model.pt": make_zip(MODEL),
    "model.joblib.gz": gzip.compress(b"model"),
    "model.tarball": PLAIN,
}


def test_every_format_is_extracted_from_every_store(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """The content, not the name, selects the format."""
    for name, data in ARCHIVES.items():
        store.put(name, data)
    pairs = [part for name in ARCHIVES for part in (store.uri(name), tmp_path / name.replace(".", "-"))]

    run = modelfetch.ok("pull", *pairs, "--output", "json", env=store.env)

    assert [name for name in ARCHIVES if read_files(tmp_path / name.replace(".", "-")) != MODEL] == []
    assert {receipt["digest"] for receipt in run.receipts} == {directory_digest(MODEL)}


def test_compressed_models_stay_as_they_are(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path) -> None:
    """A zip named .pt is a PyTorch model, a gzip named .joblib.gz a joblib model."""
    for name, data in COMPRESSED_MODELS.items():
        folder.put(name, data)
    pairs = [part for name in COMPRESSED_MODELS for part in (folder.uri(name), f"{tmp_path}/")]

    modelfetch.ok("pull", *pairs)

    assert read_files(tmp_path) == COMPRESSED_MODELS


def make_hostile_tar(name: str, **attributes: object) -> bytes:
    """Build a tar with a good member and a bad member."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        good = tarfile.TarInfo("good")
        good.size = 1
        archive.addfile(good, io.BytesIO(b"x"))
        bad = tarfile.TarInfo(name)
        for attribute, value in attributes.items():
            setattr(bad, attribute, value)
        archive.addfile(bad)
    return sink.getvalue()


GZIPPED = ARCHIVES["m.tar.gz"]
BAD_ARCHIVES = {
    "no archive": b"this is no archive at all" * 100,
    "half": GZIPPED[: len(GZIPPED) // 2],
    "no end marker": gzip.compress(PLAIN.rstrip(b"\0")),
    "bad trailer": GZIPPED[:-8] + b"\0" * 8,
    "garbage behind": GZIPPED + b"garbage",
    "outside": make_hostile_tar("../evil"),
    "absolute": make_hostile_tar("/evil"),
    "link outside": make_hostile_tar("link", type=tarfile.SYMTYPE, linkname="../../etc/passwd"),
    "device": make_hostile_tar("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "twice": make_hostile_tar("good"),
}


@pytest.mark.parametrize("data", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES.keys())
def test_bad_archive_exits_65_without_publishing_a_member(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, data: bytes
) -> None:
    """Damaged and hostile archives are refused as a whole."""
    folder.put("m.tar.gz", data)

    run = modelfetch("pull", folder.uri("m.tar.gz"), tmp_path / "x" / "m")

    assert run.code == 65
    assert run.error["reason"] in ("archive", "unsafe_name")
    assert not (tmp_path / "x" / "m" / "good").exists()
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "x" / "evil").exists()


def test_no_extract_pulls_a_file_misnamed_as_an_archive(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """The hint of the refusal names `--no-extract`, and the flag works."""
    folder.put("m.tar.gz", BAD_ARCHIVES["no archive"])

    refused = modelfetch("pull", folder.uri("m.tar.gz"), tmp_path / "d")
    modelfetch.ok("pull", folder.uri("m.tar.gz"), tmp_path / "m", "--no-extract")

    assert "--no-extract" in refused.error["hint"]
    assert (tmp_path / "m").read_bytes() == BAD_ARCHIVES["no archive"]


@pytest.mark.parametrize(("flag", "value"), [("--max-bytes", "100k"), ("--max-files", "2"), ("--max-ratio", "10")])
def test_archive_over_budget_exits_65_with_the_setting(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, flag: str, value: str
) -> None:
    """The hint names the setting for bytes, files or ratio to raise."""
    folder.put("m.tar.gz", pack_tar_gz({"a": bytes(3_000_000), "b": b"1", "c": b"2"}))

    run = modelfetch("pull", folder.uri("m.tar.gz"), tmp_path / "d", flag, value)

    assert (run.code, run.error["reason"]) == (65, "budget")
    assert "MODELFETCH_" + flag[2:].upper().replace("-", "_") in run.error["hint"]
    assert not (tmp_path / "d" / "a").exists()


@pytest.mark.slow
def test_large_models_are_pulled_in_under_200_mib_of_memory(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """A 300 MB object and a 100 MB archive, peak memory of the process."""
    block = random_bytes(1_000_000)
    with (tmp_path / "object").open("wb") as file:
        file.writelines(block for _ in range(300))
    with tarfile.open(tmp_path / "archive", "w:gz", compresslevel=0) as archive:
        member = tarfile.TarInfo("a")
        member.size = 100_000_000
        with (tmp_path / "object").open("rb") as file:
            archive.addfile(member, file)
    for key, name in (("m", "object"), ("m.tar.gz", "archive")):
        with (tmp_path / name).open("rb") as file:
            s3_bucket.server.client.put_object(Bucket=s3_bucket.bucket, Key=key, Body=file)
    measure = "import resource as r, subprocess as s, sys; c = s.call(sys.argv[2:]); "
    measure += "open(sys.argv[1], 'w').write(str(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(c)"
    modelfetch.prefix = [sys.executable, "-c", measure, str(tmp_path / "peak")]

    pairs = [s3_bucket.uri("m"), tmp_path / "m", s3_bucket.uri("m.tar.gz"), tmp_path / "d"]
    modelfetch.ok("pull", *pairs, env=s3_bucket.env, timeout=150)

    assert (tmp_path / "m").stat().st_size == 300_000_000
    assert (tmp_path / "d" / "a").stat().st_size == 100_000_000
    assert int((tmp_path / "peak").read_text()) < 200 * 1024  # ru_maxrss is in KiB

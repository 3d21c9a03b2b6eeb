"""Push of a directory to a target named like an archive."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelfetch.errors import ChangedError, UsageError
from modelfetch.push import local_model
from modelfetch.push.pack import is_packable_name, pack_directory
from testkit.cli_runner import CliRunner
from testkit.file_tree import MANIFEST_NAME, random_bytes, read_files, sha256_hex, write_files
from testkit.stores import S3Bucket, Store

MODEL = {"config.json": b"{}", "empty": b"", "w/ü/0.bin": bytes(100_000), "run.sh": b"#!/bin/sh\n", "n" * 200: b"long"}
KINDS = ["m.tar", "m.tar.gz", "m.TGZ", "m.tar.zst", "m.tzst"]


def write_model(root: Path) -> Path:
    """Write a model directory and return the path."""
    write_files(root, {**MODEL, ".modelfetch-receipt": b"{}"})
    (root / "run.sh").chmod(0o700)
    (root / "logs" / "old").mkdir(parents=True)
    return root


@pytest.mark.parametrize("name", KINDS)
def test_packed_directory_is_pulled_back_unchanged(
    modelfetch: CliRunner, store: Store, tmp_path: Path, name: str
) -> None:
    """The printed sha256 is the archive's; no temporary file remains."""
    model, scratch = write_model(tmp_path / "model"), tmp_path / "scratch"
    scratch.mkdir()

    dest = tmp_path / "dest"
    env = {**store.env, "TMPDIR": str(scratch)}
    pushed = modelfetch.ok("push", model, store.uri(f"v1/{name}"), "-o", "json", env=env).receipt
    modelfetch.ok("pull", pushed["uri"], dest, "--sha256", pushed["sha256"], env=store.env)

    assert store.list_keys() == [f"v1/{name}", f"v1/{name}{MANIFEST_NAME}"]
    assert pushed["sha256"] == sha256_hex(store.get(f"v1/{name}"))
    assert read_files(dest) == MODEL
    assert (dest / "logs" / "old").is_dir()
    assert [os.access(dest / file, os.X_OK) for file in ("run.sh", "empty")] == [True, False]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", KINDS)
def test_same_files_give_the_same_archive_bytes(tmp_path: Path, name: str) -> None:
    """Times and modes of the files do not change the archive."""
    archives = []
    for number, (mode, seconds) in enumerate([(0o644, 1), (0o600, 2_000_000_000)]):
        root = write_model(tmp_path / str(number))
        for path in root.rglob("*[!h]"):
            path.chmod(mode | 0o100 * path.is_dir())
            os.utime(path, (seconds, seconds))
        archives.append(tmp_path / f"{number}-{name}")
        pack_directory(local_model.find_local_model(root), archives[-1])

    assert archives[0].read_bytes() == archives[1].read_bytes()


@pytest.mark.parametrize("name", ["m.zip", "m.tar.xz", "m.tbz2"])
def test_unsupported_archive_suffix_is_a_usage_error(name: str) -> None:
    """The message names the target, the hint the supported suffixes."""
    with pytest.raises(UsageError, match=name) as caught:
        is_packable_name(name)

    assert ".tar.zst" in caught.value.hint


def test_target_with_a_trailing_slash_is_not_packed(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A trailing slash marks a directory, also under an archive's name."""
    model = write_files(tmp_path / "model", {"a": b"1"})

    modelfetch.ok("push", model, s3_bucket.uri("m.tar/"), env=s3_bucket.env)

    assert s3_bucket.list_keys() == ["m.tar/" + MANIFEST_NAME, "m.tar/a"]


@pytest.mark.parametrize("content", [b"", b"other", b"longer"])
def test_file_changed_while_packing_is_refused(tmp_path: Path, content: bytes) -> None:
    """The new content is shorter, equally long, or longer."""
    model = local_model.find_local_model(write_files(tmp_path / "m", {"a": b"first", "b": b"2"}))
    (tmp_path / "m" / "a").write_bytes(content)

    with pytest.raises(ChangedError, match="m/a"):
        pack_directory(model, tmp_path / "m.tar.gz")


def test_full_disk_while_packing_exits_73(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmpfs: Callable[..., Path], tmp_path: Path
) -> None:
    """Without space for the temporary archive, nothing is pushed."""
    model = write_files(tmp_path / "model", {"a": random_bytes(100_000)})
    env = {**s3_bucket.env, "TMPDIR": str(tmpfs("scratch", "size=64k"))}

    run = modelfetch("push", model, s3_bucket.uri("m.tar.zst"), env=env)

    assert (run.code, run.error["reason"]) == (73, "destination")
    assert "No space left" in run.error["message"]
    assert s3_bucket.list_keys() == []

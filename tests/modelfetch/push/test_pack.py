"""A directory that is pushed to a target named like an archive becomes one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelfetch.errors import ChangedError, UsageError
from modelfetch.push import local_model
from modelfetch.push.pack import is_packable_name, pack_directory
from modelfetch.sources import Access
from testkit import tree
from testkit.cli import Cli
from testkit.stores import S3Bucket, Store

MODEL = {"config.json": b"{}", "empty": b"", "w/ü/0.bin": bytes(100_000), "run.sh": b"#!/bin/sh\n", "n" * 200: b"long"}
KINDS = ["m.tar", "m.tar.gz", "m.TGZ", "m.tar.zst", "m.tzst"]


def write_model(root: Path) -> Path:
    """The model's directory."""
    tree.write(root, {**MODEL, ".modelfetch.json": b"{}"})
    (root / "run.sh").chmod(0o700)
    (root / "logs" / "old").mkdir(parents=True)
    return root


@pytest.mark.parametrize("name", KINDS)
def test_a_packed_directory_is_unpacked_as_it_was(modelfetch: Cli, store: Store, tmp_path: Path, name: str) -> None:
    """By what was printed: the sha256 is that of the archive. Nothing is left of the temporary file."""
    here, scratch = write_model(tmp_path / "here"), tmp_path / "scratch"
    scratch.mkdir()

    env = {**store.env, "TMPDIR": str(scratch)}
    told = modelfetch.ok("push", here, store.uri(f"v1/{name}"), "-o", "json", env=env).receipt
    modelfetch.ok("pull", told["uri"], tmp_path / "there", "--sha256", told["sha256"], env=store.env)

    assert store.names() == [f"v1/{name}", f"v1/{name}{tree.MANIFEST}"]
    assert told["sha256"] == tree.sha256(store.get(f"v1/{name}"))
    assert tree.read(tmp_path / "there") == MODEL
    assert (tmp_path / "there" / "logs" / "old").is_dir()
    assert [os.access(tmp_path / "there" / file, os.X_OK) for file in ("run.sh", "empty")] == [True, False]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", KINDS)
def test_the_same_files_make_the_same_archive(tmp_path: Path, name: str) -> None:
    """Whenever and by whomever they were written."""
    archives = []
    for number, (mode, seconds) in enumerate([(0o644, 1), (0o600, 2_000_000_000)]):
        root = write_model(tmp_path / str(number))
        for path in root.rglob("*[!h]"):
            path.chmod(mode | 0o100 * path.is_dir())
            os.utime(path, (seconds, seconds))
        archives.append(tmp_path / f"{number}-{name}")
        pack_directory(local_model.find_local_model(root, Access()), archives[-1])

    assert archives[0].read_bytes() == archives[1].read_bytes()


@pytest.mark.parametrize("name", ["m.zip", "m.tar.xz", "m.tbz2"])
def test_other_archives_are_not_made(name: str) -> None:
    """2, and those that are."""
    with pytest.raises(UsageError, match=name) as caught:
        is_packable_name(name)

    assert ".tar.zst" in caught.value.hint


def test_a_slash_at_the_end_keeps_the_files_as_they_are(modelfetch: Cli, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Then the name is that of a directory."""
    here = tree.write(tmp_path / "here", {"a": b"1"})

    modelfetch.ok("push", here, s3_bucket.uri("m.tar/"), env=s3_bucket.env)

    assert s3_bucket.names() == ["m.tar/" + tree.MANIFEST, "m.tar/a"]


@pytest.mark.parametrize("content", [b"", b"other", b"longer"])
def test_a_file_that_changes_while_it_is_packed_is_noticed(tmp_path: Path, content: bytes) -> None:
    """Shorter, as long as it was, or longer."""
    model = local_model.find_local_model(tree.write(tmp_path / "m", {"a": b"first", "b": b"2"}), Access())
    (tmp_path / "m" / "a").write_bytes(content)

    with pytest.raises(ChangedError, match="m/a"):
        pack_directory(model, tmp_path / "m.tar.gz")


def test_no_room_for_the_archive_is_told(
    modelfetch: Cli, s3_bucket: S3Bucket, tmpfs: Callable[..., Path], tmp_path: Path
) -> None:
    """73, and nothing is pushed."""
    here = tree.write(tmp_path / "here", {"a": tree.noise(100_000)})
    env = {**s3_bucket.env, "TMPDIR": str(tmpfs("scratch", "size=64k"))}

    run = modelfetch("push", here, s3_bucket.uri("m.tar.zst"), env=env)

    assert (run.code, run.error["reason"]) == (73, "destination")
    assert "No space left" in run.error["message"]
    assert s3_bucket.names() == []

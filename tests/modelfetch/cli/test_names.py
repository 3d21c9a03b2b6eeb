"""Object names with special meaning elsewhere, unsafe names, and content encodings."""

import gzip
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner
from testkit.file_tree import random_bytes, read_files, sha256_hex
from testkit.stores import GCSBucket, S3Bucket, Store


def put_files(store: Store, prefix: str, files: dict[str, bytes]) -> None:
    """Store files under a prefix."""
    for name, data in files.items():
        store.put(prefix + name, data)


UNUSUAL_NAMES = [
    "a#b.bin",
    "v#2x",
    "a b+c%20d.bin",
    "é/ü ß.bin",
    "q?x=1",
    "x&y=z;w",
    "-flag",
    "[1]*.bin",
    "x:y@z'\"$",
    "{a}~^`|<>",
]


def test_special_characters_in_names_are_taken_literally(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """Characters with a meaning in URLs, shells or globs have none in a name."""
    files = {name: name.encode() for name in UNUSUAL_NAMES}
    put_files(store, "dir/", files)
    pairs = [
        part for number, name in enumerate(UNUSUAL_NAMES) for part in (store.uri(f"dir/{name}"), tmp_path / f"{number}")
    ]

    modelfetch.ok("pull", *pairs, store.uri("dir/"), tmp_path / "d", env=store.env)

    assert read_files(tmp_path / "d") == files
    assert [(tmp_path / f"{number}").read_bytes().decode() for number in range(len(UNUSUAL_NAMES))] == UNUSUAL_NAMES


def test_digits_after_a_hash_belong_to_the_name_on_s3(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """S3 has no generations: `#2` is part of the key."""
    s3_bucket.put("m#2", b"two")

    modelfetch.ok("pull", "s3://" + s3_bucket.bucket + "/m#2", tmp_path / "m", env=s3_bucket.env)

    assert (tmp_path / "m").read_bytes() == b"two"


@pytest.mark.parametrize("key", ["../../evil", "a//b", "./b", "a\\b", "new\nline", "/absolute"])
def test_unsafe_key_exits_65_with_the_exclude_hint(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path, key: str
) -> None:
    """The message names the key, the hint names `--exclude`."""
    put_files(gcs_bucket, "p/", {"good": b"1", key: b"2"})

    run = modelfetch("pull", gcs_bucket.uri("p/"), tmp_path / "x" / "m", env=gcs_bucket.env)

    assert (run.code, run.error["reason"]) == (65, "unsafe_name")
    assert key.replace("\n", "\\n") in run.error["message"].replace("\\\\", "\\")
    assert "--exclude" in run.error["hint"]
    assert read_files(tmp_path) == {}


def test_unsafe_key_can_be_excluded(modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path) -> None:
    """`--exclude` works as the hint of the refusal says."""
    put_files(gcs_bucket, "", {"p/good": b"1", "p/../../evil": b"2"})

    modelfetch.ok("pull", gcs_bucket.uri("p/"), tmp_path / "m", "--exclude", "*evil*", env=gcs_bucket.env)

    assert read_files(tmp_path) == {"m/good": b"1"}


def test_file_and_directory_of_the_same_name_exit_65(modelfetch: CliRunner, flat_store: Store, tmp_path: Path) -> None:
    """A flat store keeps `a` and `a/b`; a file system cannot."""
    put_files(flat_store, "m/", {"a": b"1", "a/b": b"2"})

    run = modelfetch("pull", flat_store.uri("m/"), tmp_path / "m", env=flat_store.env)

    assert (run.code, run.error["reason"]) == (65, "unsafe_name")


def test_gzip_encoded_gcs_object_is_decoded(modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path) -> None:
    """The receipt describes the decoded file; contentEncoding describes the storage only."""
    data = random_bytes(50_000)
    gcs_bucket.put("m.bin", gzip.compress(data), content_encoding="gzip")

    run = modelfetch.ok("pull", gcs_bucket.uri("m.bin"), tmp_path / "m", "--output", "json", env=gcs_bucket.env)

    assert (tmp_path / "m").read_bytes() == data
    assert run.receipt["files"] == [{"path": "m", "size": len(data), "sha256": sha256_hex(data)}]


def test_gzip_encoded_s3_object_stays_as_stored(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """S3 never decodes; the stored bytes are the model."""
    data = gzip.compress(random_bytes(50_000), mtime=0)
    s3_bucket.put("m.bin", data, ContentEncoding="gzip")

    modelfetch.ok("pull", s3_bucket.uri("m.bin"), tmp_path / "m", env=s3_bucket.env)

    assert (tmp_path / "m").read_bytes() == data

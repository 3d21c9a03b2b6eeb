"""Objects, directories and versions in buckets as sources."""

import json
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner
from testkit.file_tree import random_bytes, read_files, sha256_hex
from testkit.stores import S3Bucket, Store

MODEL = {
    "config.json": b"{}",
    "empty": b"",
    "weights/0.bin": random_bytes(70_000, 1),
    "weights/deep/1.bin": random_bytes(3, 2),
}


def put_files(store: Store, prefix: str, files: dict[str, bytes]) -> None:
    """Store files under a prefix."""
    for name, data in files.items():
        store.put(prefix + name, data)


def test_object_is_pulled_to_a_file_with_a_receipt(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """The receipt beside the file states source, version and digest."""
    data = random_bytes(100_000)
    store.put("bankchurn/model.joblib", data)

    modelfetch.ok("pull", store.uri("bankchurn/model.joblib"), tmp_path / "m", env=store.env)

    receipt = json.loads((tmp_path / "m.modelfetch-receipt").read_text())
    assert (tmp_path / "m").read_bytes() == data
    assert receipt["source"] == store.uri("bankchurn/model.joblib")
    assert receipt["version"] == store.version("bankchurn/model.joblib")
    assert receipt["digest"] == f"sha256:{sha256_hex(data)}"


@pytest.mark.parametrize("slash", ["", "/"])
def test_directory_is_pulled_with_empty_files_and_subdirectories(
    modelfetch: CliRunner, store: Store, tmp_path: Path, slash: str
) -> None:
    """With and without a trailing slash in the URI."""
    put_files(store, "models/churn/", MODEL)

    modelfetch.ok("pull", store.uri("models/churn") + slash, tmp_path / "m", env=store.env)

    assert read_files(tmp_path / "m") == MODEL


def test_sibling_prefixes_are_not_pulled(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """`model` means `model/`, not `model2/`, `model-old/` or `model.bak`."""
    put_files(store, "model/", MODEL)
    put_files(store, "", {"model2/a": b"2", "model-old/a": b"3", "model.bak": b"4", "modelx": b"5"})

    modelfetch.ok("pull", store.uri("model"), tmp_path / "m", env=store.env)

    assert read_files(tmp_path / "m") == MODEL


def test_object_takes_precedence_over_a_directory_of_the_same_name(
    modelfetch: CliRunner, flat_store: Store, tmp_path: Path
) -> None:
    """The directory is pulled if no object has the name, or if the URI ends with a slash."""
    put_files(flat_store, "", {"model": b"object", "model/part": b"directory"})

    modelfetch.ok("pull", flat_store.uri("model"), tmp_path / "file", env=flat_store.env)
    modelfetch.ok("pull", flat_store.uri("model/"), tmp_path / "dir", env=flat_store.env)

    assert (tmp_path / "file").read_bytes() == b"object"
    assert read_files(tmp_path / "dir") == {"part": b"directory"}


def test_every_page_of_a_listing_is_read(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """Stores list at most a thousand names per page."""
    files = {f"{number:04}.bin": b"%d" % number for number in range(1003)}
    store.put_many("many/", files)

    modelfetch.ok("pull", store.uri("many/"), tmp_path / "m", env=store.env)

    assert read_files(tmp_path / "m") == files


def test_empty_path_pulls_the_whole_bucket(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """A URI without a path names the bucket's root as a directory."""
    put_files(store, "", MODEL)

    modelfetch.ok("pull", store.uri(), tmp_path / "m", env=store.env)

    assert read_files(tmp_path / "m") == MODEL


def test_directory_markers_create_directories(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """Consoles create empty objects with a trailing slash in the name."""
    put_files(store, "m/", {"": b"", "file": b"x", "logs/": b""})

    modelfetch.ok("pull", store.uri("m/"), tmp_path / "m", env=store.env)

    assert read_files(tmp_path / "m") == {"file": b"x"}
    assert (tmp_path / "m" / "logs").is_dir()


def test_reserved_names_in_a_bucket_are_not_pulled(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """A pulled directory uploaded again contains the old receipt and staging area."""
    put_files(store, "m/", {"file": b"x", ".modelfetch-receipt": b"{}", ".modelfetch/lock": b""})

    run = modelfetch.ok("pull", store.uri("m/"), tmp_path / "m", "--output", "json", env=store.env)

    assert [file["path"] for file in run.receipt["files"]] == ["file"]
    assert read_files(tmp_path / "m") == {"file": b"x"}


def test_include_and_exclude_patterns_select_files(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Repeated flags and list variables; excluded files are not requested."""
    put_files(s3_bucket, "m/", {"a.bin": b"1", "b.bin": b"2", "c.json": b"3", "d.tmp": b"4"})

    def chosen(name: str, *flags: str, **env: str) -> set[str]:
        modelfetch.ok("pull", s3_bucket.uri("m/"), tmp_path / name, *flags, env={**s3_bucket.env, **env})
        return set(read_files(tmp_path / name))

    assert chosen("1", "--include", "*.bin", "--include", "c.json", "--exclude", "b.*") == {"a.bin", "c.json"}
    assert chosen("2", "--exclude", "*.tmp", "--exclude", "a*") == {"b.bin", "c.json"}
    assert chosen("3", MODELFETCH_EXCLUDE="*.tmp,a*", MODELFETCH_INCLUDE="?.*") == {"b.bin", "c.json"}


def test_pinned_version_is_pulled_after_a_replacement(
    modelfetch: CliRunner, versioned_store: Store, tmp_path: Path
) -> None:
    """`?versionId=` on S3, `#generation` on GCS; the receipt names the version."""
    versioned_store.put("m", b"old")
    old = versioned_store.version("m")
    versioned_store.put("m", b"new")
    uri = versioned_store.pinned_uri("m", old)

    run = modelfetch.ok("pull", uri, tmp_path / "m", "--output", "json", env=versioned_store.env)
    modelfetch.ok("pull", versioned_store.uri("m"), tmp_path / "now", env=versioned_store.env)

    assert ((tmp_path / "m").read_bytes(), (tmp_path / "now").read_bytes()) == (b"old", b"new")
    assert run.receipt["version"] == old

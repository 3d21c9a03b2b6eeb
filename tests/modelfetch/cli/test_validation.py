"""Validation of content: sizes, the stores' checksums and the caller's pin."""

import base64
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import directory_digest, pack_tar_gz, random_bytes, read_files, sha256_hex
from testkit.stores import GCSBucket, S3Bucket, Store, crc_base64

Proxied = Callable[[str], FaultProxy]
DATA = random_bytes(200_000)
FLIPPED = DATA[:150_000] + bytes([DATA[150_000] ^ 1]) + DATA[150_001:]
PART = random_bytes(5 * 1024**2, 3)  # the least that S3 takes for a part that is not the last


def encode_checksum(name: str, data: bytes) -> str:
    """Return a checksum in base64, as in the S3 API."""
    if name.startswith("crc"):
        return str(crc_base64(name, data))
    return base64.b64encode(hashlib.new(name, data).digest()).decode()


def hex_checksum(name: str, data: bytes) -> str:
    """Return a checksum in hexadecimal digits."""
    return base64.b64decode(encode_checksum(name, data)).hex()


def put_with_checksum(bucket: S3Bucket, key: str, name: str) -> None:
    """Store DATA with a single kind of checksum; md5 stands for the ETag of a single-part upload."""
    if name == "md5":
        bucket.put_without_checksum(key, DATA)
    else:
        bucket.put(key, DATA, **{f"Checksum{name.upper()}": encode_checksum(name, DATA)})


def assert_flip_is_refused(run: Any, checks: list[str], *, expected: bytes = DATA, got: bytes = FLIPPED) -> None:
    """Check for exit code 65 and a message with both values of one of these checks."""
    assert (run.code, run.error["code"], run.error["reason"]) == (65, 65, "mismatch")
    both = [name for name in checks if hex_checksum(name, expected) in run.error["message"]]
    assert both
    assert hex_checksum(both[0], got) in run.error["message"]


S3_CHECKSUMS = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "md5"]


def test_every_s3_checksum_is_listed_in_the_receipt(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The receipt lists the store's checksum, and the size in every case."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto keeps no checksums, or wrong ones")
    for name in S3_CHECKSUMS:
        put_with_checksum(s3_bucket, name, name)
    pairs = [part for name in S3_CHECKSUMS for part in (s3_bucket.uri(name), tmp_path / name)]

    run = modelfetch.ok("pull", *pairs, "--output", "json", env=s3_bucket.env)

    assert [(tmp_path / name).read_bytes() == DATA for name in S3_CHECKSUMS] == [True] * len(S3_CHECKSUMS)
    checked = dict(zip(S3_CHECKSUMS, (set(receipt["checks"]) for receipt in run.receipts), strict=True))
    assert [name for name in S3_CHECKSUMS if not {"size", name} <= checked[name]] == []


@pytest.mark.parametrize("name", S3_CHECKSUMS)
def test_flipped_byte_fails_every_s3_checksum(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path, name: str
) -> None:
    """The object is fetched once more from scratch, then refused with both values; nothing is published."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto keeps no checksums, or wrong ones")
    put_with_checksum(s3_bucket, "m", name)
    proxy = fault_proxy(s3_bucket.endpoint)
    flip = proxy.add_rule(**s3_bucket.download_filter("m"), flip_at=150_000, times=None)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env_at(proxy.url))

    assert_flip_is_refused(run, [name])
    assert flip.hits == 2
    assert read_files(tmp_path) == {}


@pytest.mark.parametrize("size", [200_000, 200_001])
def test_gcs_checksums_are_listed_in_the_receipt(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path, size: int
) -> None:
    """Every object has a crc32c, and all but composed objects an md5."""
    gcs_bucket.put("m", random_bytes(size))

    run = modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", "--output", "json", env=gcs_bucket.env)

    assert "size" in run.receipt["checks"]
    assert {"crc32c", "md5"} & set(run.receipt["checks"])


def test_flipped_byte_fails_the_gcs_checksum(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The object is fetched once more from scratch, then refused with both values; nothing is published."""
    gcs_bucket.put("m", DATA)
    proxy = fault_proxy(gcs_bucket.endpoint)
    flip = proxy.add_rule(**gcs_bucket.download_filter("m"), flip_at=150_000, times=None)

    run = modelfetch("pull", gcs_bucket.uri("m"), tmp_path / "m", env=gcs_bucket.env_at(proxy.url))

    assert_flip_is_refused(run, ["crc32c", "md5"])
    assert flip.hits == 2
    assert read_files(tmp_path) == {}


def test_object_damaged_once_is_fetched_again(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A mismatch is retried from scratch and counts as one retry; progress restarts."""
    s3_bucket.put("m", DATA)
    proxy = fault_proxy(s3_bucket.endpoint)
    flip = proxy.add_rule(**s3_bucket.download_filter("m"), flip_at=150_000)

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json", env=s3_bucket.env_at(proxy.url))

    assert flip.hits == 1
    assert (tmp_path / "m").read_bytes() == DATA
    assert run.receipt["retries"] == 1
    assert max(line.get("percent", 0) for line in run.log) <= 100


def test_gzip_encoded_object_damaged_once_is_fetched_again(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A decoding error after a flipped byte is damage in transit, not a bad archive."""
    gcs_bucket.put("m", gzip.compress(DATA), content_encoding="gzip")
    proxy = fault_proxy(gcs_bucket.endpoint)
    flip = proxy.add_rule(**gcs_bucket.download_filter("m"), flip_at=0)

    modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", env=gcs_bucket.env_at(proxy.url))

    assert flip.hits == 1
    assert (tmp_path / "m").read_bytes() == DATA


def test_damaged_file_in_a_directory_is_named(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """One damaged file of many fails the whole pull."""
    for name in ("a", "b", "c"):
        s3_bucket.put(f"d/{name}", DATA)
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("d/b"), flip_at=150_000, times=None)

    run = modelfetch("pull", s3_bucket.uri("d/"), tmp_path / "d", env=s3_bucket.env_at(proxy.url))

    assert_flip_is_refused(run, ["crc32", "crc32c", "md5"])
    assert "b arrived damaged" in run.error["message"]
    assert read_files(tmp_path) == {}


def test_multipart_upload_is_checked_by_the_full_object_crc64nvme(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The CRC64NVME is combined from ranges; the ETag of a multipart upload is no md5."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto keeps no checksums, or wrong ones")
    s3_bucket.put_parts("m", [PART, DATA])
    proxy = fault_proxy(s3_bucket.endpoint)

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json", env=s3_bucket.env)
    proxy.add_rule(**s3_bucket.download_filter("m"), flip_at=len(PART) + 150_000, times=None)
    flipped = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "n", env=s3_bucket.env_at(proxy.url))

    assert (tmp_path / "m").read_bytes() == PART + DATA
    assert "crc64nvme" in run.receipt["checks"]
    assert_flip_is_refused(flipped, ["crc64nvme"], expected=PART + DATA, got=PART + FLIPPED)


def test_composite_checksum_is_not_listed_as_a_check(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """A checksum of checksums proves nothing about the whole object; the size still counts."""
    s3_bucket.put_parts("m", [PART, DATA], full_object=False)

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json", env=s3_bucket.env)

    assert (tmp_path / "m").read_bytes() == PART + DATA
    assert "size" in run.receipt["checks"]
    assert not {"crc32", "md5"} & set(run.receipt["checks"])


def test_pin_detects_damage_without_a_full_object_checksum(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The caller's sha256 catches damage invisible to the store's composite checksum."""
    s3_bucket.put_parts("m", [PART, DATA], full_object=False)
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("m"), flip_at=len(PART) + 150_000, times=None)
    pin = sha256_hex(PART + DATA)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", pin, env=s3_bucket.env_at(proxy.url))

    assert_flip_is_refused(run, ["sha256"], expected=PART + DATA, got=PART + FLIPPED)
    assert read_files(tmp_path) == {}


@pytest.mark.parametrize("spelt", [str, str.upper])
def test_matching_pin_is_accepted_in_upper_and_lower_case(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, spelt: Callable[[str], str]
) -> None:
    """The pin is given by flag and by variable."""
    s3_bucket.put("m", DATA)
    pin = spelt(sha256_hex(DATA))

    run = modelfetch.ok(
        "pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", pin, "--output", "json", env=s3_bucket.env
    )
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "n", env={**s3_bucket.env, "MODELFETCH_SHA256": pin})

    assert "pin" in run.receipt["checks"]
    assert (tmp_path / "n").read_bytes() == DATA


def test_wrong_pin_is_refused_with_both_values(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The object is undamaged but has another digest."""
    s3_bucket.put("m", DATA)
    pin = sha256_hex(b"another")

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", pin, env=s3_bucket.env)

    assert_flip_is_refused(run, ["sha256"], expected=b"another", got=DATA)
    assert read_files(tmp_path) == {}


def test_wrong_pin_refuses_an_existing_model(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A model pulled without a pin is not up to date under a pin with another digest."""
    s3_bucket.put("m", DATA)
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", sha256_hex(b"another"), env=s3_bucket.env)

    assert run.code == 65


def test_directory_is_pinned_by_the_receipt_digest(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The right digest is accepted, another digest is exit 65 with the actual value."""
    files = {"a": b"1", "b/c": b"2"}
    for name, data in files.items():
        s3_bucket.put(f"d/{name}", data)
    digest = directory_digest(files)

    run = modelfetch.ok(
        "pull", s3_bucket.uri("d/"), tmp_path / "d", "--sha256", digest, "--output", "json", env=s3_bucket.env
    )
    wrong = modelfetch("pull", s3_bucket.uri("d/"), tmp_path / "w", "--sha256", sha256_hex(b""), env=s3_bucket.env)

    assert run.receipt["digest"] == digest
    assert wrong.code == 65
    assert digest.removeprefix("sha256:") in wrong.error["message"]


def test_archive_is_pinned_by_the_sha256_of_the_archive_file(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The pin is the output of `sha256sum model.tar.gz`; a wrong pin publishes nothing."""
    archive = pack_tar_gz({"a": b"1", "b/c": DATA})
    s3_bucket.put("m.tar.gz", archive)

    modelfetch.ok("pull", s3_bucket.uri("m.tar.gz"), tmp_path / "m", "--sha256", sha256_hex(archive), env=s3_bucket.env)
    wrong = modelfetch(
        "pull", s3_bucket.uri("m.tar.gz"), tmp_path / "w", "--sha256", sha256_hex(b""), env=s3_bucket.env
    )

    assert read_files(tmp_path / "m") == {"a": b"1", "b/c": DATA}
    assert wrong.code == 65
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("pin", ["abc", "g" * 64, "sha512:" + "0" * 64])
def test_invalid_pin_exits_2_from_a_flag_and_78_from_a_variable(
    modelfetch: CliRunner, tmp_path: Path, pin: str
) -> None:
    """An invalid digest is a usage or configuration error, before any request."""
    by_flag = modelfetch("pull", "s3://b/m", tmp_path / "m", "--sha256", pin)
    by_variable = modelfetch("pull", "s3://b/m", tmp_path / "m", env={"MODELFETCH_SHA256": pin})

    assert (by_flag.code, by_variable.code) == (2, 78)
    assert "MODELFETCH_SHA256" in by_variable.error["message"]


def test_empty_object_exits_65(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """A single empty object is the result of a failed upload, not a model."""
    store.put("m", b"")

    run = modelfetch("pull", store.uri("m"), tmp_path / "m", env=store.env)

    assert (run.code, run.error["code"]) == (65, 65)
    assert "empty" in run.error["message"]
    assert read_files(tmp_path) == {}


def test_receipt_has_the_keys_of_schema_1(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Every key of schema 1, with the values known in advance."""
    s3_bucket.put("d/a", DATA)
    s3_bucket.put("d/b/c", b"")

    receipt = modelfetch.ok("pull", s3_bucket.uri("d/"), tmp_path / "d", "--output", "json", env=s3_bucket.env).receipt

    assert receipt["schema"] == 1
    assert receipt["tool"].startswith("modelfetch/")
    assert receipt["digest"] == directory_digest({"a": DATA, "b/c": b""})
    assert sorted(receipt["files"], key=lambda file: file["path"]) == [
        {"path": "a", "size": len(DATA), "sha256": sha256_hex(DATA)},
        {"path": "b/c", "size": 0, "sha256": sha256_hex(b"")},
    ]
    assert (receipt["bytes"], receipt["resumed_bytes"], receipt["retries"]) == (len(DATA), 0, 0)
    assert receipt["started"] <= receipt["finished"]
    assert receipt["finished"].endswith("Z")
    assert receipt["seconds"] > 0

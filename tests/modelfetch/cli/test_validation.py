"""The right bytes, or nothing: sizes, the stores' checksums and the caller's pin."""

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
    """A checksum in base64, as S3's API has it."""
    if name.startswith("crc"):
        return str(crc_base64(name, data))
    return base64.b64encode(hashlib.new(name, data).digest()).decode()


def hex_checksum(name: str, data: bytes) -> str:
    """A checksum in hexadecimal."""
    return base64.b64decode(encode_checksum(name, data)).hex()


def put_with_checksum(bucket: S3Bucket, key: str, name: str) -> None:
    """Store DATA with one kind of checksum; md5 stands for the ETag of a single-part upload."""
    if name == "md5":
        bucket.put_without_checksum(key, DATA)
    else:
        bucket.put(key, DATA, **{f"Checksum{name.upper()}": encode_checksum(name, DATA)})


def assert_flip_is_refused(run: Any, checks: list[str], *, expected: bytes = DATA, got: bytes = FLIPPED) -> None:
    """One line with both values of one of these checks, and exit code 65."""
    assert (run.code, run.error["code"], run.error["reason"]) == (65, 65, "mismatch")
    both = [name for name in checks if hex_checksum(name, expected) in run.error["message"]]
    assert both
    assert hex_checksum(both[0], got) in run.error["message"]


S3_CHECKSUMS = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "md5"]


def test_every_checksum_of_s3_is_checked(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The receipt says which; size always."""
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
def test_a_flipped_byte_fails_every_checksum_of_s3(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path, name: str
) -> None:
    """It is fetched once more from scratch, then refused with both values; nothing is published."""
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
def test_both_checksums_of_gcs_are_known(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path, size: int
) -> None:
    """Every object has a crc32c, and all but composed ones an md5."""
    gcs_bucket.put("m", random_bytes(size))

    run = modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", "--output", "json", env=gcs_bucket.env)

    assert "size" in run.receipt["checks"]
    assert {"crc32c", "md5"} & set(run.receipt["checks"])


def test_a_flipped_byte_fails_the_checksum_of_gcs(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """It is fetched once more from scratch, then refused with both values; nothing is published."""
    gcs_bucket.put("m", DATA)
    proxy = fault_proxy(gcs_bucket.endpoint)
    flip = proxy.add_rule(**gcs_bucket.download_filter("m"), flip_at=150_000, times=None)

    run = modelfetch("pull", gcs_bucket.uri("m"), tmp_path / "m", env=gcs_bucket.env_at(proxy.url))

    assert_flip_is_refused(run, ["crc32c", "md5"])
    assert flip.hits == 2
    assert read_files(tmp_path) == {}


def test_bytes_damaged_once_are_fetched_again(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A mismatch is retried from scratch, and the second try counts; the progress begins anew."""
    s3_bucket.put("m", DATA)
    proxy = fault_proxy(s3_bucket.endpoint)
    flip = proxy.add_rule(**s3_bucket.download_filter("m"), flip_at=150_000)

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json", env=s3_bucket.env_at(proxy.url))

    assert flip.hits == 1
    assert (tmp_path / "m").read_bytes() == DATA
    assert run.receipt["retries"] == 1
    assert max(line.get("percent", 0) for line in run.log) <= 100


def test_a_compressed_object_damaged_once_is_fetched_again(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """What cannot be decoded for a flipped byte is damaged, and not a bad archive."""
    gcs_bucket.put("m", gzip.compress(DATA), content_encoding="gzip")
    proxy = fault_proxy(gcs_bucket.endpoint)
    flip = proxy.add_rule(**gcs_bucket.download_filter("m"), flip_at=0)

    modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", env=gcs_bucket.env_at(proxy.url))

    assert flip.hits == 1
    assert (tmp_path / "m").read_bytes() == DATA


def test_a_file_damaged_in_a_directory_is_named(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """One bad file of many fails the whole: half a model is none."""
    for name in ("a", "b", "c"):
        s3_bucket.put(f"d/{name}", DATA)
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("d/b"), flip_at=150_000, times=None)

    run = modelfetch("pull", s3_bucket.uri("d/"), tmp_path / "d", env=s3_bucket.env_at(proxy.url))

    assert_flip_is_refused(run, ["crc32", "crc32c", "md5"])
    assert "b arrived damaged" in run.error["message"]
    assert read_files(tmp_path) == {}


def test_the_whole_of_a_multipart_upload_is_checked(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Its CRC64NVME of the full object, combined from ranges; its ETag is no md5."""
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


def test_a_composite_checksum_is_not_taken_for_the_whole_objects(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """A checksum of checksums says nothing that a receipt could claim; the size still counts."""
    s3_bucket.put_parts("m", [PART, DATA], full_object=False)

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json", env=s3_bucket.env)

    assert (tmp_path / "m").read_bytes() == PART + DATA
    assert "size" in run.receipt["checks"]
    assert not {"crc32", "md5"} & set(run.receipt["checks"])


def test_a_pin_protects_what_has_no_checksum(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The caller's sha256 catches what the store's composite checksum cannot."""
    s3_bucket.put_parts("m", [PART, DATA], full_object=False)
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("m"), flip_at=len(PART) + 150_000, times=None)
    pin = sha256_hex(PART + DATA)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", pin, env=s3_bucket.env_at(proxy.url))

    assert_flip_is_refused(run, ["sha256"], expected=PART + DATA, got=PART + FLIPPED)
    assert read_files(tmp_path) == {}


@pytest.mark.parametrize("spelt", [str, str.upper])
def test_the_right_pin_is_accepted_in_either_case(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, spelt: Callable[[str], str]
) -> None:
    """By flag and by variable."""
    s3_bucket.put("m", DATA)
    pin = spelt(sha256_hex(DATA))

    run = modelfetch.ok(
        "pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", pin, "--output", "json", env=s3_bucket.env
    )
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "n", env={**s3_bucket.env, "MODELFETCH_SHA256": pin})

    assert "pin" in run.receipt["checks"]
    assert (tmp_path / "n").read_bytes() == DATA


def test_the_wrong_pin_is_refused_with_both_values(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Whole and undamaged, but not the model that was asked for."""
    s3_bucket.put("m", DATA)
    pin = sha256_hex(b"another")

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", pin, env=s3_bucket.env)

    assert_flip_is_refused(run, ["sha256"], expected=b"another", got=DATA)
    assert read_files(tmp_path) == {}


def test_a_wrong_pin_refuses_what_is_already_there(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A model that was pulled without a pin is not called done under one that it does not match."""
    s3_bucket.put("m", DATA)
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--sha256", sha256_hex(b"another"), env=s3_bucket.env)

    assert run.code == 65


def test_a_directory_is_pinned_by_its_digest(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The one that its receipt states."""
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


def test_an_archive_is_pinned_by_its_own_sha256(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """What `sha256sum model.tar.gz` prints; a wrong one leaves nothing of its content."""
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
def test_a_pin_that_is_no_sha256_is_a_mistake_of_the_caller(modelfetch: CliRunner, tmp_path: Path, pin: str) -> None:
    """Usage on the command line, configuration in the environment; no request is made."""
    by_flag = modelfetch("pull", "s3://b/m", tmp_path / "m", "--sha256", pin)
    by_variable = modelfetch("pull", "s3://b/m", tmp_path / "m", env={"MODELFETCH_SHA256": pin})

    assert (by_flag.code, by_variable.code) == (2, 78)
    assert "MODELFETCH_SHA256" in by_variable.error["message"]


def test_an_empty_object_is_no_model(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """A single object must hold something: an upload that failed leaves nothing."""
    store.put("m", b"")

    run = modelfetch("pull", store.uri("m"), tmp_path / "m", env=store.env)

    assert (run.code, run.error["code"]) == (65, 65)
    assert "empty" in run.error["message"]
    assert read_files(tmp_path) == {}


def test_the_receipt_is_what_the_contract_says(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Schema 1: every key, with the values that can be known beforehand."""
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

"""The commands config, inspect, push and verify."""

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import (
    MANIFEST_NAME,
    RECEIPT_NAME,
    directory_digest,
    pack_tar_gz,
    random_bytes,
    read_files,
    sha256_hex,
    write_files,
)
from testkit.stores import S3Bucket, Store, crc_base64

Proxied = Callable[[str], FaultProxy]
DATA = random_bytes(100_000)
MODEL = {"config.json": b"{}", "empty": b"", "weights/0.bin": DATA}


# --- config --------------------------------------------------------------------------------------------------------


def test_config_shows_value_and_origin_of_every_setting(modelfetch: CliRunner) -> None:
    """Default, variable or flag; variables of the SDKs, too."""
    env = {"MODELFETCH_RETRIES": "5", "S3_BUCKET": "models", "AWS_REGION": "eu-west-1"}

    run = modelfetch.ok("config", "--retry-wait", "7s", env={**env, "MODELFETCH_RETRY_WAIT": "9s"})

    rows = {line.split()[0]: line for line in run.stdout.splitlines() if line.split()}
    assert "5" in rows["retries"]
    assert "MODELFETCH_RETRIES" in rows["retries"]
    assert re.search(r"\b7", rows["retry_wait"])
    assert "flag" in rows["retry_wait"]
    assert "default" in rows["stall_timeout"]
    assert "models" in rows["S3_BUCKET"]
    assert "eu-west-1" in rows["AWS_REGION"]


def test_config_masks_secrets(modelfetch: CliRunner) -> None:
    """Secret variables are listed as set, without the value."""
    secrets = ("MODELFETCH_BEARER_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    env = {**{name: f"secret-of-{name}" for name in secrets}, "HTTPS_PROXY": "http://me:secret-of-proxy@proxy:3128"}

    for flags in ([], ["--output", "json"]):
        run = modelfetch.ok("config", *flags, env=env)

        assert "secret-of" not in run.all_output
        assert "AWS_SECRET_ACCESS_KEY" in run.stdout
        assert "proxy:3128" in run.stdout


# --- inspect -------------------------------------------------------------------------------------------------------


def test_inspect_shows_version_size_and_checksums_without_a_download(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied
) -> None:
    """No byte of the object is requested."""
    store.put("m", DATA)
    proxy = fault_proxy(store.endpoint)

    run = modelfetch.ok("inspect", store.uri("m"), "--output", "json", env=store.env_at(proxy.url))

    name = "crc32" if store.scheme == "s3" else "crc32c"
    assert run.receipt["version"] == store.version("m")
    assert str(len(DATA)) in run.stdout
    assert base64.b64decode(crc_base64(name, DATA)).hex() in run.stdout
    assert proxy.matching_requests(**store.download_filter("m")) == []


def test_inspect_lists_every_file_of_a_directory_with_size(modelfetch: CliRunner, store: Store) -> None:
    """The text output names every file; the JSON output has the sizes."""
    for name, data in MODEL.items():
        store.put(f"d/{name}", data)

    text = modelfetch.ok("inspect", store.uri("d/"), env=store.env).stdout
    found = modelfetch.ok("inspect", store.uri("d/"), "--output", "json", env=store.env).receipt

    assert [name for name in MODEL if name not in text] == []
    assert {file["path"]: file["size"] for file in found["files"]} == {n: len(d) for n, d in MODEL.items()}


def test_inspect_of_a_missing_object_exits_66(modelfetch: CliRunner, store: Store) -> None:
    """Code and reason are equal to a pull of the same URI."""
    run = modelfetch("inspect", store.uri("none"), env=store.env)

    assert (run.code, run.error["reason"]) == (66, "not_found")


# --- push ----------------------------------------------------------------------------------------------------------


def test_push_prints_the_pinned_uri_and_sha256_for_a_pull(
    modelfetch: CliRunner, versioned_store: Store, tmp_path: Path
) -> None:
    """A pull with both gets the pushed file, even after a replacement."""
    data = random_bytes(20_000_000)
    (tmp_path / "m.bin").write_bytes(data)

    pushed = modelfetch.ok("push", tmp_path / "m.bin", versioned_store.uri("dir/m.bin"), env=versioned_store.env)
    uri = versioned_store.pinned_uri("dir/m.bin", versioned_store.version("dir/m.bin"))
    pin = sha256_hex(data)
    versioned_store.put("dir/m.bin", b"another")

    assert uri in pushed.stdout
    assert pin in pushed.stdout
    modelfetch.ok("pull", uri, tmp_path / "back", "--sha256", pin, env=versioned_store.env)
    assert (tmp_path / "back").read_bytes() == data


def test_pushed_directory_is_pulled_back_with_the_same_digest(
    modelfetch: CliRunner, store: Store, tmp_path: Path
) -> None:
    """The digest is printed; reserved names of an earlier pull are not uploaded."""
    write_files(tmp_path / "d", MODEL | {RECEIPT_NAME: b"{}", ".modelfetch/x": b"1"})

    pushed = modelfetch.ok("push", tmp_path / "d", store.uri("models/d/"), env=store.env)
    run = modelfetch.ok("pull", store.uri("models/d/"), tmp_path / "back", "--output", "json", env=store.env)

    assert [key for key in store.list_keys() if "/.modelfetch" in key] == ["models/d/" + MANIFEST_NAME]
    assert read_files(tmp_path / "back") == MODEL
    assert run.receipt["digest"] == directory_digest(MODEL)
    assert directory_digest(MODEL).removeprefix("sha256:") in pushed.stdout


def test_multipart_push_stores_a_full_object_checksum(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """A later pull can check every byte."""
    (tmp_path / "m").write_bytes(random_bytes(20_000_000))

    modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env)
    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "back", "--output", "json", env=s3_bucket.env)

    assert {"crc64nvme", "crc32c", "crc32", "sha256", "sha1", "md5"} & set(run.receipt["checks"])


def test_push_of_a_missing_file_or_to_a_missing_bucket_exits_66(
    modelfetch: CliRunner, store: Store, tmp_path: Path
) -> None:
    """The message names the file or the bucket."""
    (tmp_path / "m").write_bytes(b"x")

    no_file = modelfetch("push", tmp_path / "none", store.uri("m"), env=store.env)
    no_bucket = modelfetch("push", tmp_path / "m", f"{store.scheme}://no-such-bucket-here/m", env=store.env)

    assert (no_file.code, no_bucket.code) == (66, 66)
    assert str(tmp_path / "none") in no_file.error["message"]
    assert "no-such-bucket-here" in no_bucket.error["message"]


# --- verify --------------------------------------------------------------------------------------------------------


def test_verify_accepts_an_unchanged_file_directory_and_archive(modelfetch: CliRunner, tmp_path: Path) -> None:
    """The check needs no network."""
    write_files(tmp_path / "from", MODEL)
    (tmp_path / "from.tar.gz").write_bytes(pack_tar_gz(MODEL))
    names = {"from/config.json": "file", "from": "dir", "from.tar.gz": "unpacked"}
    for source, dest in names.items():
        modelfetch.ok("pull", tmp_path / source, tmp_path / dest)

    for dest in names.values():
        modelfetch.ok("verify", tmp_path / dest)


def test_verify_exits_65_and_names_every_difference(modelfetch: CliRunner, tmp_path: Path) -> None:
    """A changed byte and a missing file are differences, a changed mtime is not."""
    write_files(tmp_path / "from", MODEL)
    modelfetch.ok("pull", tmp_path / "from", tmp_path / "d")
    (tmp_path / "d" / "weights" / "0.bin").write_bytes(DATA[:-1] + b"x")
    (tmp_path / "d" / "config.json").unlink()
    (tmp_path / "d" / "empty").touch()

    run = modelfetch("verify", tmp_path / "d")

    assert run.code == 65
    assert "weights/0.bin" in run.error["message"]
    assert "config.json" in run.error["message"]
    assert "empty" not in run.error["message"]


def test_verify_exits_66_when_no_receipt_exists(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Without a receipt, `verify` reports not_found."""
    (tmp_path / "m").write_bytes(b"x")

    run = modelfetch("verify", tmp_path / "m")

    assert (run.code, run.error["reason"]) == (66, "not_found")


def test_directory_digest_equals_the_output_of_sha256sum(modelfetch: CliRunner, tmp_path: Path) -> None:
    """A shell with find, sort and sha256sum recomputes the digest."""
    write_files(tmp_path / "from", MODEL)
    modelfetch.ok("pull", tmp_path / "from", tmp_path / "d")
    shell = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"

    printed = subprocess.check_output(shell, shell=True, cwd=tmp_path / "d", text=True)

    digest = json.loads((tmp_path / "d" / RECEIPT_NAME).read_text())["digest"]
    assert digest == f"sha256:{printed.split()[0]}"

"""`modelfetch push`: what is uploaded is what was here, and what is printed pulls it; or an error says why not."""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelfetch.errors import MismatchError, ModelfetchError
from modelfetch.progress import SilentProgress
from modelfetch.push.push import push
from modelfetch.sources import SourceOptions, WritableSource, open_source, parse_uri
from modelfetch.sources.gcs.spec import GCSOptions
from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import MANIFEST_NAME, directory_digest, random_bytes, read_files, sha256_hex, write_files
from testkit.stores import GCSBucket, S3Bucket
from testkit.stores import Store as Bucket

Proxied = Callable[[str], FaultProxy]
MODEL = {"config.json": b"{}", "empty": b"", "a #1?b+c%20 é/0.bin": random_bytes(70_000, 1), "w/deep/1.bin": b"x"}


def printed(run: Run) -> tuple[str, str]:
    """The URI and the sha256 of the two lines on stdout."""
    uri, second = run.stdout.splitlines()
    word, digest = second.split()
    assert word == "sha256"
    return uri, digest


def failed(run: Run, code: int, reason: str, *said: str) -> None:
    """It ended with this code, told why and what to do, and printed nothing to pull."""
    assert (run.code, run.error["reason"], run.stdout) == (code, reason, ""), run.stderr
    assert run.error["hint"]
    assert [word for word in said if word not in run.error["message"] + run.error["hint"]] == []


def uploads(bucket: Bucket) -> dict[str, str]:
    """What tells uploads from all other requests, for `FaultProxy.add` and `came`."""
    return {"method": "POST", "path": "^/upload/"} if bucket.scheme == "gs" else {"method": "PUT"}


# --- what is pushed can be pulled ------------------------------------------------------------------------------------


def test_a_pushed_file_is_pulled_by_what_was_printed(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """The URI names the object, the sha256 is that of the file."""
    data = random_bytes(100_000)
    (tmp_path / "model.joblib").write_bytes(data)

    uri, digest = printed(modelfetch.ok("push", tmp_path / "model.joblib", store.uri("churn/m.joblib"), env=store.env))
    modelfetch.ok("pull", uri, tmp_path / "m", "--sha256", digest, env=store.env)

    assert digest == sha256_hex(data)
    assert store.get("churn/m.joblib") == (tmp_path / "m").read_bytes() == data


def test_a_pushed_directory_is_pulled_by_what_was_printed(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """Odd names, empty files and empty folders included; what an earlier pull left there stays behind."""
    here = write_files(tmp_path / "here", {**MODEL, ".modelfetch.json": b"{}", ".modelfetch/x.lock": b""})
    (here / "logs" / "old").mkdir(parents=True)

    uri, digest = printed(modelfetch.ok("push", here, store.uri("churn/v1"), env=store.env))
    pulled = modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, "-o", "json", env=store.env)

    assert uri == store.uri("churn/v1/")
    assert read_files(tmp_path / "there") == MODEL
    assert (tmp_path / "there" / "logs" / "old").is_dir()
    assert pulled.receipt["digest"] == f"sha256:{digest}" == directory_digest(MODEL)


def test_moto_takes_files_directories_and_parts(modelfetch: CliRunner, moto_bucket: S3Bucket, tmp_path: Path) -> None:
    """The store of `make demo`, which states no checksum of small files but their md5."""
    large = random_bytes(65 * 1024**2)
    here = write_files(tmp_path / "here", {"small": b"x", "d/empty": b"", "large": large})

    uri, digest = printed(modelfetch.ok("push", here, moto_bucket.uri("m"), env=moto_bucket.env))
    modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, env=moto_bucket.env)

    assert read_files(tmp_path / "there") == {"small": b"x", "d/empty": b"", "large": large}


def test_a_large_file_goes_in_parts_and_is_checked_whole(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """What the pull then checks is a checksum of the whole object that the store computed itself."""
    (tmp_path / "m").write_bytes(random_bytes(80_000_000))

    uri, digest = printed(modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env))
    seen = modelfetch.ok("inspect", uri, "-o", "json", env=store.env).receipt
    pulled = modelfetch.ok("pull", uri, tmp_path / "p", "--sha256", digest, "-o", "json", env=store.env).receipt

    assert seen["bytes"] == 80_000_000
    assert {"size", "crc32c" if store.scheme == "gs" else "crc32", "pin"} <= set(pulled["checks"])


@pytest.mark.parametrize(("target", "file"), [("d/", "d/m.joblib"), ("", "m.joblib"), ("d", "d")])
def test_a_file_keeps_its_name_under_a_slash(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, target: str, file: str
) -> None:
    """As `cp` has it; the bare bucket is a directory."""
    (tmp_path / "m.joblib").write_bytes(b"x")

    modelfetch.ok("push", tmp_path / "m.joblib", s3_bucket.uri(target), env=s3_bucket.env)

    assert s3_bucket.list_keys() == [file, file + MANIFEST_NAME]


def test_a_directory_can_be_a_whole_bucket(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """With or without the slash after its name."""
    here = write_files(tmp_path / "here", {"a": b"1", "d/b": b"2"})

    uri, _ = printed(modelfetch.ok("push", here, f"s3://{s3_bucket.bucket}", env=s3_bucket.env))

    assert (uri, s3_bucket.list_keys()) == (s3_bucket.uri(), [MANIFEST_NAME, "a", "d/b"])


def test_each_version_has_a_uri_of_its_own(modelfetch: CliRunner, versioned_store: Bucket, tmp_path: Path) -> None:
    """The older one is still there after the newer one was pushed to the same name."""
    bucket, model = versioned_store, tmp_path / "m"
    uris = []
    for content in (b"old", b"new"):
        model.write_bytes(content)
        uris.append(printed(modelfetch.ok("push", model, bucket.uri("m"), env=bucket.env))[0])
    for number, uri in enumerate(uris):
        modelfetch.ok("pull", uri, tmp_path / str(number), env=bucket.env)

    assert uris[1] == bucket.pinned_uri("m", bucket.version("m"))
    assert [(tmp_path / name).read_bytes() for name in "01"] == [b"old", b"new"]


def test_a_bucket_without_versions_gives_a_plain_uri(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """An ETag is no version that could be asked for."""
    (tmp_path / "m").write_bytes(b"x")

    assert printed(modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env))[0] == s3_bucket.uri(
        "m"
    )


@pytest.mark.parametrize("path", ["m/config.json", "m"])
def test_json_tells_what_a_receipt_will_have(modelfetch: CliRunner, store: Bucket, tmp_path: Path, path: str) -> None:
    """Version, bytes and files are those of a pull."""
    write_files(tmp_path / "m", MODEL)

    told = modelfetch.ok("push", tmp_path / path, store.uri("p"), "--output", "json", env=store.env).receipt
    pulled = modelfetch.ok("pull", told["uri"], tmp_path / "there", "-o", "json", env=store.env).receipt

    assert set(told) == {"uri", "sha256", "version", "bytes", "files"}
    assert told["version"] == pulled["version"]
    assert f"sha256:{told['sha256']}" == pulled["digest"]
    assert (told["bytes"], told["files"]) == (sum(f["size"] for f in pulled["files"]), len(pulled["files"]))


def test_links_are_followed(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """To files and to directories, as a Hugging Face cache has them."""
    write_files(tmp_path, {"blobs/1": b"weights", "real/a": b"1", "m/own": b"2"})
    (tmp_path / "m" / "link.bin").symlink_to("../blobs/1")
    (tmp_path / "m" / "dir").symlink_to("../real")

    uri, digest = printed(modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env))
    modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, env=store.env)

    assert read_files(tmp_path / "there") == {"own": b"2", "link.bin": b"weights", "dir/a": b"1"}


# --- what else is there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", ["m/old.bin", "m/w/old/", "m/config.json/x"])
def test_a_prefix_that_holds_something_else_is_refused(
    modelfetch: CliRunner, store: Bucket, tmp_path: Path, stale: str
) -> None:
    """It would become part of the model; nothing is uploaded."""
    store.put(stale, b"" if stale.endswith("/") else b"x")
    for name in ("m/empty", "m2/sibling"):
        store.put(name, b"")
    here = write_files(tmp_path / "here", MODEL)

    failed(modelfetch("push", here, store.uri("m"), env=store.env), 73, "destination", "1 other", stale[2:].rstrip("/"))

    assert store.list_keys() == sorted([stale, "m/empty", "m2/sibling"])


def test_the_same_files_may_be_pushed_again(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """With new content; the old receipt and the markers of folders are no strangers."""
    here = write_files(tmp_path / "here", MODEL)
    for name in ("m/.modelfetch.json", "m/", "m/w/"):
        store.put(name, b"")
    modelfetch.ok("push", here, store.uri("m"), env=store.env)
    (here / "config.json").write_bytes(b"[]")

    uri, digest = printed(modelfetch.ok("push", here, store.uri("m/"), env=store.env))
    modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, env=store.env)

    assert read_files(tmp_path / "there") == {**MODEL, "config.json": b"[]"}


# --- checksums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 65 * 1024**2])
def test_s3_stores_nothing_if_other_bytes_arrive(
    s3_bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The checksum of the whole file goes along, in one piece or in parts; MinIO compares."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto compares no checksums")
    (tmp_path / "m").write_bytes(bytes(size))
    for name, value in s3_bucket.env.items():
        monkeypatch.setenv(name, value)
    store = open_source(parse_uri(s3_bucket.uri("m")), SourceOptions(write=True))
    assert isinstance(store, WritableSource)

    with pytest.raises(MismatchError, match="not stored"):
        store.upload(tmp_path / "m", "m", "00000001", lambda _: None)

    assert s3_bucket.list_keys() == []


def test_a_bad_object_on_s3_is_told_with_both_values(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A store that keeps what it should have refused: its own statement is compared too."""
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(method="HEAD", headers={"x-amz-checksum-crc32": "AAAAAQ=="})
    (tmp_path / "m").write_bytes(b"123456789")

    run = modelfetch("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env_at(proxy.url))

    failed(run, 65, "mismatch", s3_bucket.uri("m"), "cbf43926", "00000001")


def test_a_bad_object_on_gcs_is_told_with_both_values(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """As above."""
    stored = {"name": "m", "bucket": gcs_bucket.bucket, "size": "9", "generation": "1", "crc32c": "AAAAAQ=="}
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(**uploads(gcs_bucket), status=200, body=json.dumps(stored).encode())
    (tmp_path / "m").write_bytes(b"123456789")

    run = modelfetch("push", tmp_path / "m", gcs_bucket.uri("m"), env=gcs_bucket.env_at(proxy.url))

    failed(run, 65, "mismatch", gcs_bucket.uri("m"), "e3069283", "00000001")


def test_a_store_that_refuses_checksums_gets_none(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The SDK's own variable says so; what the store states by itself is compared all the same."""
    proxy = fault_proxy(s3_bucket.endpoint)
    (tmp_path / "m").write_bytes(b"123456789")
    env = {**s3_bucket.env_at(proxy.url), "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}

    run = modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=env)

    put, _ = proxy.matching_requests("PUT")
    assert [name for name in put.headers if "checksum" in name or name == "x-amz-trailer"] == []
    assert "checksum" not in run.stderr


def test_a_store_without_checksums_is_taken_with_a_warning(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Old servers state none of an object in parts; the size is all that can be compared."""
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(method="HEAD", headers={"ETag": '"0123-2"'}, drop=("x-amz-checksum-crc32", "x-amz-checksum-type"))
    (tmp_path / "m").write_bytes(b"123456789")

    run = modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env_at(proxy.url))

    assert ["1 of 1" in line["message"] for line in run.log if line["level"] == "warning"] == [True]


def test_a_file_that_changes_meanwhile_is_noticed(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """75: neither the old file nor the new one was pushed."""
    model = tmp_path / "m"
    model.write_bytes(b"old")
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**uploads(store), before=lambda: model.write_bytes(b"new"))

    failed(modelfetch("push", model, store.uri("m"), env=store.env_at(proxy.url)), 75, "changed", str(model))


# --- when it fails ---------------------------------------------------------------------------------------------------


def refused(path: Path, target: str) -> ModelfetchError:
    """What a push ends with before it asks any server; none listens where this one would."""
    with pytest.raises(ModelfetchError) as caught:
        push(path, parse_uri(target), GCSOptions(emulator="http://127.0.0.1:9", write=True), SilentProgress())
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://host/m", "s3://bucket/path"),
        ("file:///tmp/m", "s3://bucket/path"),
        ("/tmp/m", "gs://bucket/path"),
        ("gs://b/m#123", "123"),
        ("s3://b/m?versionId=abc", "abc"),
    ],
)
def test_a_target_that_cannot_be_one_is_a_usage_error(tmp_path: Path, target: str, said: str) -> None:
    """2, and what is possible; the path is not looked at."""
    error = refused(tmp_path / "m", target)

    assert (error.code, said in error.message + error.hint) == (2, True)


def _not_there(_: Path) -> None:
    pass


def _empty_file(path: Path) -> None:
    path.touch()


def _empty_directory(path: Path) -> None:
    (path / "d").mkdir(parents=True)


def _only_a_receipt(path: Path) -> None:
    write_files(path, {".modelfetch.json": b"{}"})


def _link_to_nothing(path: Path) -> None:
    write_files(path, {"a": b"1"})
    (path / "b").symlink_to("nothing")


def _link_to_itself(path: Path) -> None:
    write_files(path, {"a": b"1"})
    (path / "b").symlink_to(".")


def _pipe(path: Path) -> None:
    write_files(path, {"a": b"1"})
    os.mkfifo(path / "pipe")


def _backslash(path: Path) -> None:
    write_files(path, {"a\\b": b"1"})


def _line_break_in_a_folder(path: Path) -> None:
    write_files(path, {"a": b"1"})
    (path / "b\nc").mkdir()


@pytest.mark.parametrize(
    ("make", "code", "reason", "said"),
    [
        (_not_there, 66, "not_found", "m"),
        (_empty_file, 65, "wrong_bytes", "0 bytes"),
        (_empty_directory, 66, "not_found", "no file"),
        (_only_a_receipt, 66, "not_found", "no file"),
        (_link_to_nothing, 66, "not_found", "m"),
        (_link_to_itself, 69, "refused", "b"),
        (_pipe, 69, "refused", "pipe"),
        (_backslash, 65, "unsafe_name", "backslash"),
        (_line_break_in_a_folder, 65, "unsafe_name", "control character"),
    ],
)
def test_a_path_that_could_not_be_pulled_is_not_pushed(
    tmp_path: Path, make: Callable[[Path], None], code: int, reason: str, said: str
) -> None:
    """It is told before anything is uploaded."""
    make(tmp_path / "m")

    error = refused(tmp_path / "m", "gs://b/m")

    assert (error.code, error.reason, said in error.message) == (code, reason, True)


@pytest.fixture
def unreadable() -> Iterator[Path]:
    """A file that this process cannot read."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "m")
        path.write_bytes(b"x")
        path.chmod(0)
        if os.geteuid() != 0:
            yield path
            return
        os.seteuid(65534)
        try:
            yield path
        finally:
            os.seteuid(0)


def test_a_file_that_may_not_be_read_is_named(unreadable: Path) -> None:
    """77, with what to look at."""
    error = refused(unreadable, "gs://b/m")

    assert (error.code, error.hint) == (77, "Check its owner and mode.")
    assert str(unreadable) in error.message


@pytest.mark.parametrize("path", ["m", "m/config.json"])
def test_a_bucket_that_is_not_there_is_named(modelfetch: CliRunner, store: Bucket, tmp_path: Path, path: str) -> None:
    """66; no bucket is made."""
    write_files(tmp_path / "m", MODEL)

    run = modelfetch("push", tmp_path / path, f"{store.scheme}://no-such-bucket-here/m", env=store.env)

    failed(run, 66, "not_found", "no-such-bucket-here")


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "credentials", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no_credentials", "AWS_ACCESS_KEY_ID"),
        ({"MODELFETCH_ANONYMOUS": "true"}, "credentials", "s3:PutObject"),
    ],
)
def test_credentials_that_may_not_write_to_s3(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, change: dict[str, str | None], reason: str, said: str
) -> None:
    """77, and what to allow."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto checks no credentials")
    (tmp_path / "m").write_bytes(b"x")

    run = modelfetch("push", tmp_path / "m", s3_bucket.uri("m"), env={**s3_bucket.env, **change})

    failed(run, 77, reason, said)


def test_credentials_that_may_not_write_to_gcs(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """77, and which role to give."""
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(**uploads(gcs_bucket), status=403, body=b'{"error": {"code": 403, "message": "no create for you"}}')
    (tmp_path / "m").write_bytes(b"x")

    run = modelfetch("push", tmp_path / "m", gcs_bucket.uri("m"), env=gcs_bucket.env_at(proxy.url))

    failed(run, 77, "credentials", "no create for you", "Storage Object User")


@pytest.mark.parametrize("size", [9, 9_000_000])
def test_a_busy_store_is_asked_again(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path, size: int
) -> None:
    """Twice in vain, whether the file goes in one request or more."""
    data = random_bytes(size)
    (tmp_path / "m").write_bytes(data)
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**uploads(store), status=503)
    proxy.add_rule(**uploads(store), reset=True)

    modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env_at(proxy.url))

    assert store.get("m") == data
    assert len(proxy.matching_requests(**uploads(store))) == 3 + 1  # the manifest


def test_only_the_part_that_broke_is_sent_again(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """One of five parts of a large file."""
    (tmp_path / "m").write_bytes(random_bytes(65 * 1024**2))
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(method="PUT", query="partNumber=2", status=500)

    modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env_at(proxy.url))

    assert len(proxy.matching_requests("PUT", query="partNumber=")) == 6


def test_a_store_that_stays_busy_is_a_transient_failure(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """75, once the retries are spent; the other files of the directory are not waited for."""
    here = write_files(tmp_path / "m", {"a": b"1", "b": b"2", "c/d": b"3"})
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**uploads(store), status=503, times=None)

    failed(modelfetch("push", here, store.uri("m"), env=store.env_at(proxy.url)), 75, "transient", "503", "again later")


def test_a_signal_ends_it_while_the_store_says_nothing(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """143, long before the connection would count as dead."""
    (tmp_path / "m").write_bytes(b"x")
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**uploads(store), silent=True)

    running = modelfetch.start(
        "push", tmp_path / "m", store.uri("m"), "--stall-timeout", "10m", env=store.env_at(proxy.url)
    )
    proxy.wait_for(lambda: proxy.matching_requests(**uploads(store)))
    run = running.send_signal(signal.SIGTERM)

    assert (run.code, run.error["reason"]) == (143, "interrupted")

"""`modelfetch push`: uploads are byte-exact, the printed address and sha256 pull the model, failures are explained."""

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


def read_output(run: Run) -> tuple[str, str]:
    """Return the URI and the sha256 from the two lines on stdout."""
    uri, second = run.stdout.splitlines()
    word, digest = second.split()
    assert word == "sha256"
    return uri, digest


def check_failure(run: Run, code: int, reason: str, *expected: str) -> None:
    """Check exit code, reason and message of a failed push; stdout is empty."""
    assert (run.code, run.error["reason"], run.stdout) == (code, reason, ""), run.stderr
    assert run.error["hint"]
    assert [word for word in expected if word not in run.error["message"] + run.error["hint"]] == []


def match_uploads(bucket: Bucket) -> dict[str, str]:
    """Return the fields that match upload requests, for `FaultProxy.add_rule` and `matching_requests`."""
    return {"method": "POST", "path": "^/upload/"} if bucket.scheme == "gs" else {"method": "PUT"}


# --- round trips: push, then pull ------------------------------------------------------------------------------------


def test_printed_uri_and_sha256_pull_the_pushed_file(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """The printed URI names the object, the printed sha256 is the file's."""
    data = random_bytes(100_000)
    (tmp_path / "model.joblib").write_bytes(data)

    uri, digest = read_output(
        modelfetch.ok("push", tmp_path / "model.joblib", store.uri("churn/m.joblib"), env=store.env)
    )
    modelfetch.ok("pull", uri, tmp_path / "m", "--sha256", digest, env=store.env)

    assert digest == sha256_hex(data)
    assert store.get("churn/m.joblib") == (tmp_path / "m").read_bytes() == data


def test_printed_uri_and_sha256_pull_the_pushed_directory(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """Unusual names, empty files and empty folders are pushed; files left by an earlier pull are not."""
    here = write_files(tmp_path / "here", {**MODEL, ".modelfetch-receipt": b"{}", ".modelfetch/x.lock": b""})
    (here / "logs" / "old").mkdir(parents=True)

    uri, digest = read_output(modelfetch.ok("push", here, store.uri("churn/v1"), env=store.env))
    pulled = modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, "-o", "json", env=store.env)

    assert uri == store.uri("churn/v1/")
    assert read_files(tmp_path / "there") == MODEL
    assert (tmp_path / "there" / "logs" / "old").is_dir()
    assert pulled.receipt["digest"] == f"sha256:{digest}" == directory_digest(MODEL)


def test_moto_accepts_files_directories_and_parts(modelfetch: CliRunner, moto_bucket: S3Bucket, tmp_path: Path) -> None:
    """The store of `make demo` states only md5 for small files; pushed bytes are pulled back."""
    large = random_bytes(65 * 1024**2)
    here = write_files(tmp_path / "here", {"small": b"x", "d/empty": b"", "large": large})

    uri, digest = read_output(modelfetch.ok("push", here, moto_bucket.uri("m"), env=moto_bucket.env))
    modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, env=moto_bucket.env)

    assert read_files(tmp_path / "there") == {"small": b"x", "d/empty": b"", "large": large}


def test_large_file_is_uploaded_in_parts_and_checked_as_a_whole(
    modelfetch: CliRunner, store: Bucket, tmp_path: Path
) -> None:
    """A later pull checks the whole object's checksum, computed by the store."""
    (tmp_path / "m").write_bytes(random_bytes(80_000_000))

    uri, digest = read_output(modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env))
    seen = modelfetch.ok("inspect", uri, "-o", "json", env=store.env).receipt
    pulled = modelfetch.ok("pull", uri, tmp_path / "p", "--sha256", digest, "-o", "json", env=store.env).receipt

    assert seen["bytes"] == 80_000_000
    assert {"size", "crc32c" if store.scheme == "gs" else "crc32", "pin"} <= set(pulled["checks"])


@pytest.mark.parametrize(("target", "file"), [("d/", "d/m.joblib"), ("", "m.joblib"), ("d", "d")])
def test_target_with_a_trailing_slash_keeps_the_file_name(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, target: str, file: str
) -> None:
    """Like `cp`, a trailing slash keeps the file's name; a bare bucket is a directory."""
    (tmp_path / "m.joblib").write_bytes(b"x")

    modelfetch.ok("push", tmp_path / "m.joblib", s3_bucket.uri(target), env=s3_bucket.env)

    assert s3_bucket.list_keys() == [file, file + MANIFEST_NAME]


def test_directory_is_pushed_to_a_bucket_root(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A bucket without key or trailing slash is a valid target."""
    here = write_files(tmp_path / "here", {"a": b"1", "d/b": b"2"})

    uri, _ = read_output(modelfetch.ok("push", here, f"s3://{s3_bucket.bucket}", env=s3_bucket.env))

    assert (uri, s3_bucket.list_keys()) == (s3_bucket.uri(), [MANIFEST_NAME, "a", "d/b"])


def test_each_pushed_version_has_its_own_uri(modelfetch: CliRunner, versioned_store: Bucket, tmp_path: Path) -> None:
    """After a second push to the same name, the first printed URI still pulls the first content."""
    bucket, model = versioned_store, tmp_path / "m"
    uris = []
    for content in (b"old", b"new"):
        model.write_bytes(content)
        uris.append(read_output(modelfetch.ok("push", model, bucket.uri("m"), env=bucket.env))[0])
    for number, uri in enumerate(uris):
        modelfetch.ok("pull", uri, tmp_path / str(number), env=bucket.env)

    assert uris[1] == bucket.pinned_uri("m", bucket.version("m"))
    assert [(tmp_path / name).read_bytes() for name in "01"] == [b"old", b"new"]


def test_bucket_without_versions_prints_a_plain_uri(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Without versioning, the printed URI holds no version; an ETag cannot be requested."""
    (tmp_path / "m").write_bytes(b"x")

    uri, _ = read_output(modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env))

    assert uri == s3_bucket.uri("m")


@pytest.mark.parametrize("path", ["m/config.json", "m"])
def test_json_output_equals_the_receipt_of_a_pull(
    modelfetch: CliRunner, store: Bucket, tmp_path: Path, path: str
) -> None:
    """Version, digest, bytes and files equal the values in a pull's receipt."""
    write_files(tmp_path / "m", MODEL)

    summary = modelfetch.ok("push", tmp_path / path, store.uri("p"), "--output", "json", env=store.env).receipt
    pulled = modelfetch.ok("pull", summary["uri"], tmp_path / "there", "-o", "json", env=store.env).receipt

    assert set(summary) == {"uri", "sha256", "version", "bytes", "files"}
    assert summary["version"] == pulled["version"]
    assert f"sha256:{summary['sha256']}" == pulled["digest"]
    assert (summary["bytes"], summary["files"]) == (sum(f["size"] for f in pulled["files"]), len(pulled["files"]))


def test_links_are_pushed_as_their_targets(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """Links to files and directories, as in a Hugging Face cache, are pushed with their targets' content."""
    write_files(tmp_path, {"blobs/1": b"weights", "real/a": b"1", "m/own": b"2"})
    (tmp_path / "m" / "link.bin").symlink_to("../blobs/1")
    (tmp_path / "m" / "dir").symlink_to("../real")

    uri, digest = read_output(modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env))
    modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, env=store.env)

    assert read_files(tmp_path / "there") == {"own": b"2", "link.bin": b"weights", "dir/a": b"1"}


# --- other objects at the target -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", ["m/old.bin", "m/w/old/", "m/config.json/x"])
def test_prefix_with_foreign_objects_is_refused(
    modelfetch: CliRunner, store: Bucket, tmp_path: Path, stale: str
) -> None:
    """Foreign objects would become part of the model: exit 73, nothing uploaded."""
    store.put(stale, b"" if stale.endswith("/") else b"x")
    for name in ("m/empty", "m2/sibling"):
        store.put(name, b"")
    here = write_files(tmp_path / "here", MODEL)

    check_failure(
        modelfetch("push", here, store.uri("m"), env=store.env), 73, "destination", "1 other", stale[2:].rstrip("/")
    )

    assert store.list_keys() == sorted([stale, "m/empty", "m2/sibling"])


def test_second_push_replaces_the_files_of_the_first(modelfetch: CliRunner, store: Bucket, tmp_path: Path) -> None:
    """Old receipts and folder markers are not foreign; new content replaces the old."""
    here = write_files(tmp_path / "here", MODEL)
    for name in ("m/.modelfetch-receipt", "m/", "m/w/"):
        store.put(name, b"")
    modelfetch.ok("push", here, store.uri("m"), env=store.env)
    (here / "config.json").write_bytes(b"[]")

    uri, digest = read_output(modelfetch.ok("push", here, store.uri("m/"), env=store.env))
    modelfetch.ok("pull", uri, tmp_path / "there", "--sha256", digest, env=store.env)

    assert read_files(tmp_path / "there") == {**MODEL, "config.json": b"[]"}


# --- checksums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 65 * 1024**2])
def test_s3_stores_nothing_if_the_checksum_differs(
    s3_bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """With a wrong checksum of the whole file, in one request or in parts, MinIO stores nothing."""
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


def test_s3_checksum_mismatch_names_both_values(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """If the store keeps damaged bytes, its stated checksum differs: exit 65 with both values."""
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(method="HEAD", path="/m$", headers={"x-amz-checksum-crc32": "AAAAAQ=="})
    (tmp_path / "m").write_bytes(b"123456789")

    run = modelfetch("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env_at(proxy.url))

    check_failure(run, 65, "mismatch", s3_bucket.uri("m"), "cbf43926", "00000001")


def test_gcs_checksum_mismatch_names_both_values(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The crc32c in the upload's response differs: exit 65 with both values."""
    stored = {"name": "m", "bucket": gcs_bucket.bucket, "size": "9", "generation": "1", "crc32c": "AAAAAQ=="}
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(**match_uploads(gcs_bucket), status=200, body=json.dumps(stored).encode())
    (tmp_path / "m").write_bytes(b"123456789")

    run = modelfetch("push", tmp_path / "m", gcs_bucket.uri("m"), env=gcs_bucket.env_at(proxy.url))

    check_failure(run, 65, "mismatch", gcs_bucket.uri("m"), "e3069283", "00000001")


def test_checksum_calculation_when_required_sends_no_checksum(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """With the SDK's variable set, no checksum is sent; the store's stated checksum is still compared."""
    proxy = fault_proxy(s3_bucket.endpoint)
    (tmp_path / "m").write_bytes(b"123456789")
    env = {**s3_bucket.env_at(proxy.url), "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}

    run = modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=env)

    put, _ = proxy.matching_requests("PUT")
    assert [name for name in put.headers if "checksum" in name or name == "x-amz-trailer"] == []
    assert "checksum" not in run.stderr


def test_store_without_checksums_is_accepted_with_a_warning(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Old servers state no checksum for objects in parts: only sizes are compared, with a warning."""
    proxy = fault_proxy(s3_bucket.endpoint)
    dropped = ("x-amz-checksum-crc32", "x-amz-checksum-type")
    proxy.add_rule(method="HEAD", path="/m$", headers={"ETag": '"0123-2"'}, drop=dropped, times=None)
    (tmp_path / "m").write_bytes(b"123456789")

    run = modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env_at(proxy.url))

    assert ["1 of 1" in line["message"] for line in run.log if line["level"] == "warning"] == [True]


def test_file_changed_during_the_push_exits_75(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A file changed during the upload is neither the old nor the new content."""
    model = tmp_path / "m"
    model.write_bytes(b"old")
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**match_uploads(store), before=lambda: model.write_bytes(b"new"))

    check_failure(modelfetch("push", model, store.uri("m"), env=store.env_at(proxy.url)), 75, "changed", str(model))


# --- failures --------------------------------------------------------------------------------------------------------


def push_error(path: Path, target: str) -> ModelfetchError:
    """Return the error of a push before any request; no server listens at this endpoint."""
    with pytest.raises(ModelfetchError) as caught:
        push(path, parse_uri(target), GCSOptions(emulator="http://127.0.0.1:9", write=True), SilentProgress())
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://host/m", "s3://bucket/path"),
        ("file:///tmp/m", "s3://bucket/path"),
        ("/tmp/m", "gs://bucket/path"),
        ("gs://b/m#123", "123"),
        ("s3://b/m?versionId=abc", "abc"),
    ],
)
def test_invalid_target_is_a_usage_error(tmp_path: Path, target: str, expected: str) -> None:
    """An invalid target exits 2 with the valid forms, before the path is read."""
    error = push_error(tmp_path / "m", target)

    assert (error.code, expected in error.message + error.hint) == (2, True)


def _make_nothing(_: Path) -> None:
    pass


def _make_empty_file(path: Path) -> None:
    path.touch()


def _make_empty_directory(path: Path) -> None:
    (path / "d").mkdir(parents=True)


def _make_receipt_only(path: Path) -> None:
    write_files(path, {".modelfetch-receipt": b"{}"})


def _make_broken_link(path: Path) -> None:
    write_files(path, {"a": b"1"})
    (path / "b").symlink_to("nothing")


def _make_link_loop(path: Path) -> None:
    write_files(path, {"a": b"1"})
    (path / "b").symlink_to(".")


def _make_pipe(path: Path) -> None:
    write_files(path, {"a": b"1"})
    os.mkfifo(path / "pipe")


def _make_backslash_name(path: Path) -> None:
    write_files(path, {"a\\b": b"1"})


def _make_folder_with_line_break(path: Path) -> None:
    write_files(path, {"a": b"1"})
    (path / "b\nc").mkdir()


@pytest.mark.parametrize(
    ("make", "code", "reason", "expected"),
    [
        (_make_nothing, 66, "not_found", "m"),
        (_make_empty_file, 65, "wrong_bytes", "0 bytes"),
        (_make_empty_directory, 66, "not_found", "no file"),
        (_make_receipt_only, 66, "not_found", "no file"),
        (_make_broken_link, 66, "not_found", "m"),
        (_make_link_loop, 69, "refused", "b"),
        (_make_pipe, 69, "refused", "pipe"),
        (_make_backslash_name, 65, "unsafe_name", "backslash"),
        (_make_folder_with_line_break, 65, "unsafe_name", "control character"),
    ],
)
def test_path_that_cannot_be_pulled_is_refused_before_upload(
    tmp_path: Path, make: Callable[[Path], None], code: int, reason: str, expected: str
) -> None:
    """Missing or empty paths, special files and unsafe names are refused before any upload."""
    make(tmp_path / "m")

    error = push_error(tmp_path / "m", "gs://b/m")

    assert (error.code, error.reason, expected in error.message) == (code, reason, True)


@pytest.fixture
def unreadable() -> Iterator[Path]:
    """Yield a file without read permission for this process."""
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


def test_unreadable_file_exits_77_with_its_path(unreadable: Path) -> None:
    """A permission error names the file; the hint names owner and mode."""
    error = push_error(unreadable, "gs://b/m")

    assert (error.code, error.hint) == (77, "Check its owner and mode.")
    assert str(unreadable) in error.message


@pytest.mark.parametrize("path", ["m", "m/config.json"])
def test_missing_bucket_exits_66_with_its_name(modelfetch: CliRunner, store: Bucket, tmp_path: Path, path: str) -> None:
    """A missing bucket is named, and not created."""
    write_files(tmp_path / "m", MODEL)

    run = modelfetch("push", tmp_path / path, f"{store.scheme}://no-such-bucket-here/m", env=store.env)

    check_failure(run, 66, "not_found", "no-such-bucket-here")


@pytest.mark.parametrize(
    ("change", "reason", "expected"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "credentials", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no_credentials", "AWS_ACCESS_KEY_ID"),
        ({"MODELFETCH_ANONYMOUS": "true"}, "credentials", "s3:PutObject"),
    ],
)
def test_s3_credentials_without_write_access_exit_77(
    modelfetch: CliRunner,
    s3_bucket: S3Bucket,
    tmp_path: Path,
    change: dict[str, str | None],
    reason: str,
    expected: str,
) -> None:
    """Wrong, missing or anonymous credentials exit 77; the message names the variable or permission."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto checks no credentials")
    (tmp_path / "m").write_bytes(b"x")

    run = modelfetch("push", tmp_path / "m", s3_bucket.uri("m"), env={**s3_bucket.env, **change})

    check_failure(run, 77, reason, expected)


def test_gcs_credentials_without_write_access_exit_77(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A 403 from GCS exits 77 with the server's message and the role to grant."""
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(
        **match_uploads(gcs_bucket), status=403, body=b'{"error": {"code": 403, "message": "no create for you"}}'
    )
    (tmp_path / "m").write_bytes(b"x")

    run = modelfetch("push", tmp_path / "m", gcs_bucket.uri("m"), env=gcs_bucket.env_at(proxy.url))

    check_failure(run, 77, "credentials", "no create for you", "Storage Object User")


@pytest.mark.parametrize("size", [9, 9_000_000])
def test_failed_upload_is_retried(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path, size: int
) -> None:
    """After a 503 and a reset, the third request succeeds, for uploads in one or several requests."""
    data = random_bytes(size)
    (tmp_path / "m").write_bytes(data)
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**match_uploads(store), status=503)
    proxy.add_rule(**match_uploads(store), reset=True)

    modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env_at(proxy.url))

    assert store.get("m") == data
    assert len(proxy.matching_requests(**match_uploads(store))) == 3 + 1  # the manifest


def test_failed_part_alone_is_sent_again(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """After a failure in one of five parts, only this part is uploaded again."""
    (tmp_path / "m").write_bytes(random_bytes(65 * 1024**2))
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(method="PUT", query="partNumber=2", status=500)

    modelfetch.ok("push", tmp_path / "m", s3_bucket.uri("m"), env=s3_bucket.env_at(proxy.url))

    assert len(proxy.matching_requests("PUT", query="partNumber=")) == 6


def test_persistent_503_exits_75(modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path) -> None:
    """After the last retry, the push exits 75 without waiting for the other files."""
    here = write_files(tmp_path / "m", {"a": b"1", "b": b"2", "c/d": b"3"})
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**match_uploads(store), status=503, times=None)

    check_failure(
        modelfetch("push", here, store.uri("m"), env=store.env_at(proxy.url)), 75, "transient", "503", "again later"
    )


def test_sigterm_ends_a_push_to_a_silent_store(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """SIGTERM ends the push with 143 long before the stall timeout."""
    (tmp_path / "m").write_bytes(b"x")
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**match_uploads(store), silent=True)

    running = modelfetch.start(
        "push", tmp_path / "m", store.uri("m"), "--stall-timeout", "10m", env=store.env_at(proxy.url)
    )
    proxy.wait_for(lambda: proxy.matching_requests(**match_uploads(store)))
    run = running.send_signal(signal.SIGTERM)

    assert (run.code, run.error["reason"]) == (143, "interrupted")


@pytest.mark.parametrize("kind", ["object", "directory"])
def test_second_push_at_the_same_time_says_so(
    modelfetch: CliRunner, store: Bucket, fault_proxy: Proxied, tmp_path: Path, kind: str
) -> None:
    """One of two pushes reports the other; what stands there afterwards can be pulled, or the failure is reported."""
    for name in ("first", "second"):
        write_files(tmp_path / name, {"model": name.encode() * 1000})
    target = "m/" if kind == "directory" else "m"
    at = {name: tmp_path / name if kind == "directory" else tmp_path / name / "model" for name in ("first", "second")}
    proxy = fault_proxy(store.endpoint)
    # The second push runs whole while the first one is about to store its last manifest.
    gcs, s3 = {"method": "POST", "query": "uploadType=multipart"}, {"method": "PUT", "path": "manifest"}
    earlier = (1 if store.scheme == "gs" else 0) + (
        kind == "directory"
    )  # uploads before: the object, the first manifest
    codes: list[int] = []

    def push_second() -> None:
        codes.append(modelfetch("push", at["second"], store.uri(target), env=store.env).code)

    proxy.add_rule(**(gcs if store.scheme == "gs" else s3), before=push_second, nth=earlier + 1)

    first = modelfetch("push", at["first"], store.uri(target), env=store.env_at(proxy.url))

    assert codes == [0]
    assert first.code == 75, first.stderr
    assert "Another push" in first.error["message"]
    modelfetch.ok("pull", store.uri(target), f"{tmp_path}/d/", "--require-manifest", env=store.env)
    assert (tmp_path / "d" / ("model" if kind == "directory" else "m")).read_bytes() == b"second" * 1000


def test_object_overwritten_after_its_upload_fails_the_push(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Another writer replaces a file by one of equal size before the push ends: sizes alone would not tell."""
    write_files(tmp_path / "model", {"a": b"1", "b": b"2"})
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(method="GET", query="list-type", before=lambda: s3_bucket.put("m/a", b"X"), nth=2)

    run = modelfetch("push", tmp_path / "model", s3_bucket.uri("m/"), env=s3_bucket.env_at(proxy.url))

    assert run.code == 75, run.stderr
    assert "Another push" in run.error["message"]
    assert modelfetch("pull", s3_bucket.uri("m/"), tmp_path / "d", "--retries", "1", env=s3_bucket.env).code == 75

"""Manifests: a half-pushed model is never pulled, and a copy is checked against the pushed files."""

import gzip
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from modelfetch.errors import BudgetError, UsageError
from modelfetch.progress import SilentProgress
from modelfetch.provenance import manifest
from modelfetch.push import local_model, push
from modelfetch.sources import parse_uri
from modelfetch.sources.gcs.spec import GCSOptions
from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import (
    MANIFEST_NAME,
    directory_digest,
    manifest_json,
    random_bytes,
    read_files,
    sha256_hex,
    write_files,
)
from testkit.https_server import HttpsServer
from testkit.stores import GCSBucket, ModelFolder, S3Bucket, Store

Proxied = Callable[[str], FaultProxy]
V1 = {"config.json": b"{}", "w/1.bin": random_bytes(70_000, 1), "w/2.bin": random_bytes(70_000, 2)}
V2 = {"config.json": b"[]", "w/1.bin": random_bytes(70_000, 3), "w/2.bin": random_bytes(70_000, 4)}
SINGLE_TRY = {"MODELFETCH_RETRIES": "1"}


def upload_filter(store: Store) -> dict[str, str]:
    """Return the fault proxy's filter for upload requests."""
    return {"method": "POST", "path": "^/upload/"} if store.scheme == "gs" else {"method": "PUT"}


def assert_failed(run: Run, code: int, reason: str, *words: str) -> None:
    """Check exit code and reason, and words of message and hint."""
    assert (run.code, run.error["reason"], run.stdout) == (code, reason, ""), run.stderr
    assert run.error["hint"]
    assert [word for word in words if word not in run.error["message"] + run.error["hint"]] == []


def kill_push(modelfetch: CliRunner, store: Store, proxy: FaultProxy, model: Path, held_upload: int) -> None:
    """Push a directory to `m/` and kill the push while upload number `held_upload` (from 1) gets no response."""
    proxy.clear()
    proxy.add_rule(**upload_filter(store), nth=held_upload, silent=True)
    running = modelfetch.start("push", model, store.uri("m/"), "--stall-timeout", "10m", env=store.env_at(proxy.url))
    running.wait_for(
        lambda: len([request for request in proxy.matching_requests(**upload_filter(store)) if request.rule]) == 1
    )
    run = running.send_signal(signal.SIGKILL)
    assert run.code == -signal.SIGKILL


# --- pushes that are cut short ---------------------------------------------------------------------------------------


def test_killed_push_is_not_pulled_until_pushed_again(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A pull after the kill exits with 75; after another push the model is pulled."""
    model = write_files(tmp_path / "model", V1)
    kill_push(modelfetch, store, fault_proxy(store.endpoint), model, 3)

    run = modelfetch("pull", store.uri("m"), tmp_path / "dest", env=store.env | SINGLE_TRY)
    published = (tmp_path / "dest").exists()
    modelfetch.ok("push", model, store.uri("m"), env=store.env)
    pulled = modelfetch.ok("pull", store.uri("m"), tmp_path / "dest", "--require-manifest", "-o", "json", env=store.env)

    assert_failed(
        run, 75, "transient", store.uri("m"), "a push is under way, or was interrupted", "push the model again"
    )
    assert not published
    assert read_files(tmp_path / "dest") == V1
    assert "manifest" in pulled.receipt["checks"]


def test_push_killed_before_the_manifest_leaves_nothing(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A pull exits with 66, as before the push."""
    kill_push(modelfetch, s3_bucket, fault_proxy(s3_bucket.endpoint), write_files(tmp_path / "model", V1), 1)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "dest", env=s3_bucket.env)

    assert_failed(run, 66, "not_found", s3_bucket.uri("m"))


def test_half_overwritten_model_is_not_pulled(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Neither version nor a mixture is pulled, even with only the last manifest missing; a pulled version stays."""
    store, model = s3_bucket, write_files(tmp_path / "model", V1)
    modelfetch.ok("push", model, store.uri("m"), env=store.env)
    modelfetch.ok("pull", store.uri("m"), tmp_path / "old", env=store.env)
    kill_push(modelfetch, store, fault_proxy(store.endpoint), write_files(model, V2), 5)

    for name in ("old", "new"):
        run = modelfetch("pull", store.uri("m"), tmp_path / name, env=store.env | SINGLE_TRY)
        assert_failed(run, 75, "transient", "a push is under way")

    assert (read_files(tmp_path / "old"), (tmp_path / "new").exists()) == (V1, False)


def test_pull_during_a_push_succeeds_after_the_push_ends(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """A later try within the retries finds the complete model."""
    write_files(folder.root, V1 | {MANIFEST_NAME: manifest_json({}, complete=False)})

    running = modelfetch.start("pull", folder.root, tmp_path / "dest", "--retries", "9")
    running.wait_for(lambda: any(line.get("reason") == "transient" for line in running.log))
    folder.put("manifest.new", manifest_json(V1))
    (folder.root / "manifest.new").replace(folder.root / MANIFEST_NAME)
    run = running.finish()

    assert run.code == 0, run.stderr
    assert read_files(tmp_path / "dest") == V1


def test_manifest_is_the_first_and_the_last_upload(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The first manifest marks the push as incomplete, the last lists all files."""
    manifests: list[bytes] = []
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(
        **upload_filter(store), nth=2, times=None, before=lambda: manifests.append(store.get("m/" + MANIFEST_NAME))
    )

    modelfetch.ok("push", write_files(tmp_path / "model", V1), store.uri("m"), env=store.env_at(proxy.url))

    before = [json.loads(text) for text in manifests]
    after = json.loads(store.get("m/" + MANIFEST_NAME))
    assert [(earlier["schema"], earlier["complete"], earlier["files"]) for earlier in before] == [(1, False, [])] * (
        len(V1) + 1
    )
    assert (after["schema"], after["complete"], after["digest"]) == (1, True, directory_digest(V1))
    assert {f["path"]: (f["size"], f["sha256"]) for f in after["files"]} == {
        name: (len(data), sha256_hex(data)) for name, data in V1.items()
    }
    if store.scheme == "s3":
        paths = [request.path for request in proxy.matching_requests("PUT")]
        assert [paths[0], paths[-1]] == [f"/{store.bucket}/m/{MANIFEST_NAME}"] * 2
        assert len(paths) == len(V1) + 2


# --- a single object -------------------------------------------------------------------------------------------------


def test_manifest_of_an_object_is_requested_on_the_first_pull_only(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The second pull is one request, as without a manifest."""
    (tmp_path / "m").write_bytes(V1["w/1.bin"])
    modelfetch.ok("push", tmp_path / "m", store.uri("d/m"), env=store.env)
    proxy = fault_proxy(store.endpoint)
    pull = ("pull", store.uri("d/m"), tmp_path / "p", "--require-manifest", "-o", "json")

    first = modelfetch.ok(*pull, env=store.env_at(proxy.url)).receipt
    manifest_requests = proxy.matching_requests(path="manifest")
    proxy.clear()
    second = modelfetch.ok(*pull, env=store.env_at(proxy.url)).receipt
    stored_manifest = json.loads(store.get("d/m" + MANIFEST_NAME))

    assert "manifest" in first["checks"]
    assert len(manifest_requests) == 2  # HEAD or metadata, then the content
    assert (len(proxy.requests), second) == (1, first)
    assert (stored_manifest["version"], stored_manifest["digest"]) == (store.version("d/m"), first["digest"])
    assert [file["path"] for file in stored_manifest["files"]] == ["m"]


def test_object_replaced_without_a_push_is_refused(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Another size is refused before the first byte, other content after the download; the old model stays."""
    store = s3_bucket
    (tmp_path / "m").write_bytes(b"pushed weights")
    modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env)
    modelfetch.ok("pull", store.uri("m"), tmp_path / "p", env=store.env)
    proxy = fault_proxy(store.endpoint)
    pull = ("pull", store.uri("m"), tmp_path / "p")

    store.put("m", b"a longer weight")
    longer = modelfetch(*pull, env=store.env_at(proxy.url))
    downloads = len(proxy.matching_requests(**store.download_filter("m")))
    store.put("m", b"another weight")
    another = modelfetch(*pull, env=store.env_at(proxy.url))

    assert_failed(longer, 65, "mismatch", "15 bytes, not 14")
    assert_failed(another, 65, "mismatch", sha256_hex(b"pushed weights"), sha256_hex(b"another weight"))
    assert (downloads, len(proxy.matching_requests(**store.download_filter("m")))) == (0, 2)
    assert (tmp_path / "p").read_bytes() == b"pushed weights"


def test_pinned_older_version_ignores_the_manifest_of_a_newer_version(
    modelfetch: CliRunner, s3_versioned: S3Bucket, tmp_path: Path
) -> None:
    """With --require-manifest the older version is refused."""
    store, uris = s3_versioned, []
    for content in (b"old", b"new"):
        (tmp_path / "m").write_bytes(content)
        uris.append(modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env).stdout.split()[0])

    old = modelfetch.ok("pull", uris[0], tmp_path / "old", "-o", "json", env=store.env).receipt
    refused = modelfetch("pull", uris[0], tmp_path / "none", "--require-manifest", env=store.env)
    new = modelfetch.ok("pull", uris[1], tmp_path / "new", "--require-manifest", "-o", "json", env=store.env).receipt

    assert ("manifest" in old["checks"], "manifest" in new["checks"]) == (False, True)
    assert [(tmp_path / name).read_bytes() for name in ("old", "new")] == [b"old", b"new"]
    assert_failed(refused, 65, "wrong_bytes", old["version"], new["version"])
    assert not (tmp_path / "none").exists()


def test_403_for_the_manifest_counts_as_missing_unless_required(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """S3 answers 403 for missing objects to readers without list permission."""
    s3_bucket.put("m", b"weights")
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(path="manifest", status=403, times=None)
    env = s3_bucket.env_at(proxy.url)

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "p", env=env)
    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "q", "--require-manifest", env=env)

    assert_failed(run, 77, "credentials", MANIFEST_NAME)
    assert not (tmp_path / "q").exists()


def test_archive_has_a_manifest_of_the_archive_file(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The manifest describes the archive, not the members."""
    store, model = s3_bucket, write_files(tmp_path / "model", V1)
    modelfetch.ok("push", model, store.uri("m.tar.gz"), env=store.env)

    run = modelfetch.ok(
        "pull", store.uri("m.tar.gz"), tmp_path / "p", "--require-manifest", "-o", "json", env=store.env
    )

    assert "manifest" in run.receipt["checks"]
    assert read_files(tmp_path / "p") == V1


# --- a manifest that is required -------------------------------------------------------------------------------------


def test_require_manifest_pulls_an_unchecked_model_again(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """A model pulled without a manifest counts as up to date only after a comparison."""
    folder.put("m/w", b"weights")
    pull = ("pull", folder.uri("m/"), tmp_path / "p", "-o", "json")
    required = {"MODELFETCH_REQUIRE_MANIFEST": "true"}
    first = modelfetch.ok(*pull).receipt

    run = modelfetch(*pull, env=required)
    folder.put("m/" + MANIFEST_NAME, manifest_json({"w": b"weights"}))
    receipts = [modelfetch.ok(*pull, env=required).receipt for _ in range(2)]

    assert_failed(run, 65, "wrong_bytes", "no manifest", "modelfetch push", "--require-manifest")
    assert (first["checks"], receipts[0]["checks"]) == (["size"], ["size", "manifest"])
    assert receipts[0]["version"] == first["version"]
    assert receipts[0] == receipts[1]


def test_model_of_empty_files_is_compared_with_the_manifest(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """No bytes are fetched, and the receipt still lists the manifest check."""
    folder.put("m/" + MANIFEST_NAME, manifest_json({"a": b"", "b": b""}))
    for name in ("m/a", "m/b"):
        folder.put(name, b"")

    run = modelfetch.ok("pull", folder.uri("m/"), tmp_path / "p", "--require-manifest", "-o", "json")

    assert run.receipt["checks"] == ["size", "manifest"]


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> Path:
    """Return a model pushed to S3 and copied to disk by another tool."""
    modelfetch.ok("push", write_files(tmp_path / "pushed", V1), s3_bucket.uri("m"), env=s3_bucket.env)
    shutil.rmtree(tmp_path / "pushed")
    for key in s3_bucket.list_keys():
        write_files(tmp_path / "copy", {key.removeprefix("m/"): s3_bucket.get(key)})
    return tmp_path / "copy"


def test_copy_by_another_tool_is_checked_against_the_manifest(
    modelfetch: CliRunner, copy: Path, tmp_path: Path
) -> None:
    """Altered, lost and added files are reported; the manifest was copied as an ordinary object."""
    pull = ("pull", copy, tmp_path / "dest", "-o", "json")
    good = modelfetch.ok(*pull, "--require-manifest").receipt
    shutil.rmtree(tmp_path / "dest")

    write_files(copy, {"w/1.bin": V2["w/1.bin"]})
    altered = modelfetch(*pull)
    write_files(copy, {"w/1.bin": V1["w/1.bin"], "notes.txt": b"mine"})
    added = modelfetch(*pull)
    (copy / "config.json").unlink()
    lost = modelfetch(*pull)
    published = (tmp_path / "dest").exists()
    rest = modelfetch.ok(*pull, "--exclude", "notes.txt,config.json", "--require-manifest").receipt

    assert (good["checks"], good["digest"]) == (["size", "manifest"], directory_digest(V1))
    assert_failed(altered, 65, "mismatch", "w/1.bin", sha256_hex(V1["w/1.bin"]), sha256_hex(V2["w/1.bin"]))
    assert [line["message"] for line in altered.log if "once more" in line["message"]]
    assert_failed(added, 65, "mismatch", "'notes.txt' is not in the manifest", "--exclude")
    assert_failed(lost, 65, "mismatch", "'config.json' is missing; 'notes.txt' is not in the manifest")
    assert [line for line in lost.log if line["message"].startswith("Fetching")] == []
    assert not published
    assert "manifest" in rest["checks"]


def test_manifest_on_the_web_is_requested_only_if_required(
    modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path
) -> None:
    """The manifest is beside the file, before the query string."""
    https_server.files = {"/d/m": b"weights"}
    pull = ("pull", f"{https_server.url}/d/m?v=1", tmp_path / "p", "-o", "json")
    required = (*pull, "--require-manifest")

    modelfetch.ok(*pull, env=https_server.env)
    manifest_requests = [path for _, path, _ in https_server.requests if "manifest" in path]
    none = modelfetch(*required, env=https_server.env)
    https_server.files["/d/m" + MANIFEST_NAME] = manifest_json({"m": b"weights"}, directory=False, version="3")
    compared = modelfetch.ok(*required, env=https_server.env).receipt

    assert manifest_requests == []
    assert_failed(none, 65, "wrong_bytes", "no manifest")
    assert "manifest" in compared["checks"]
    assert {path for _, path, _ in https_server.requests if "manifest" in path} == {
        f"/d/m{MANIFEST_NAME}?v=1",
        f"/d/m{MANIFEST_NAME}.json?v=1",  # the old name, asked for where the new one is missing
    }


def test_gzip_encoded_gcs_objects_are_compared_after_decoding(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path
) -> None:
    """Copying with contentEncoding gzip changes the stored bytes, of the manifest too."""
    for name, data in {**V1, MANIFEST_NAME: manifest_json(V1)}.items():
        gcs_bucket.put(f"m/{name}", gzip.compress(data), content_encoding="gzip")

    run = modelfetch.ok(
        "pull", gcs_bucket.uri("m"), tmp_path / "p", "--require-manifest", "-o", "json", env=gcs_bucket.env
    )

    assert "manifest" in run.receipt["checks"]
    assert read_files(tmp_path / "p") == V1


# --- the manifest on its way -----------------------------------------------------------------------------------------


def test_damaged_manifest_is_fetched_once_more(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The manifest is compared with the store's checksum like every object; damaged twice is 65."""
    store.put_many("m/", V1 | {MANIFEST_NAME: manifest_json(V1)})
    proxy = fault_proxy(store.endpoint)
    download = store.download_filter("m/" + MANIFEST_NAME)

    proxy.add_rule(**download, flip_at=2)
    modelfetch.ok("pull", store.uri("m"), tmp_path / "once", env=store.env_at(proxy.url))
    proxy.clear()
    proxy.add_rule(**download, flip_at=2, times=None)
    run = modelfetch("pull", store.uri("m"), tmp_path / "ever", env=store.env_at(proxy.url))

    assert read_files(tmp_path / "once") == V1
    assert_failed(run, 65, "mismatch", MANIFEST_NAME, "arrived damaged")


def test_manifest_replaced_after_the_listing_is_detected(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A push that begins in between is reported as changed, not as damage."""
    store.put_many("m/", V1 | {MANIFEST_NAME: manifest_json(V1)})
    proxy = fault_proxy(store.endpoint)
    begun = manifest_json({}, complete=False)
    proxy.add_rule(**store.download_filter("m/" + MANIFEST_NAME), before=lambda: store.put("m/" + MANIFEST_NAME, begun))

    run = modelfetch("pull", store.uri("m"), tmp_path / "p", "--retries", "2", env=store.env_at(proxy.url))

    assert_failed(run, 75, "transient", "a push is under way")
    assert [line["reason"] for line in run.log if line["level"] == "warning"] == ["changed"]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    "data", [b"", b"[" * 100_000, manifest_json({"../../evil": b"1"}), manifest_json(V1, schema=2)]
)
def test_unreadable_manifest_exits_65(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, data: bytes) -> None:
    """The message names the manifest, required or not, and nothing is published."""
    write_files(folder.root, V1 | {MANIFEST_NAME: data})

    run = modelfetch("pull", folder.root, tmp_path / "p")

    assert_failed(run, 65, "wrong_bytes", str(folder.root / MANIFEST_NAME), "Push the model again")
    assert json.loads(run.termination)["code"] == 65
    assert not (tmp_path / "p").exists()


# --- manifests in the way of a push ---------------------------------------------------------------


def test_manifests_inside_a_directory_are_not_pushed(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """Manifests copied with a directory describe an earlier state."""
    stale = manifest_json({}, complete=False)
    model = write_files(
        tmp_path / "model",
        {"a/m": b"1", "a/" + MANIFEST_NAME: stale, "a/m" + MANIFEST_NAME: stale, MANIFEST_NAME: stale},
    )

    modelfetch.ok("push", model, s3_bucket.uri("m"), env=s3_bucket.env)
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "p", "--require-manifest", env=s3_bucket.env)

    assert s3_bucket.list_keys() == ["m/" + MANIFEST_NAME, "m/a/m"]
    assert read_files(tmp_path / "p") == {"a/m": b"1"}


def test_existing_manifest_below_the_target_exits_73(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The manifest would contradict the pushed files."""
    s3_bucket.put("m/a/" + MANIFEST_NAME, manifest_json({"m": b"1"}))
    model = write_files(tmp_path / "model", {"a/m": b"2"})

    run = modelfetch("push", model, s3_bucket.uri("m"), env=s3_bucket.env)

    assert_failed(run, 73, "destination", "a/" + MANIFEST_NAME, "delete them first")


@pytest.mark.parametrize("name", ["m" + MANIFEST_NAME, "é" * 120, "d/" * 503 + "m"])
def test_target_name_without_room_for_the_manifest_name_is_refused(tmp_path: Path, name: str) -> None:
    """The refusal comes before any upload: no server listens."""
    (tmp_path / "m").write_bytes(b"1")

    with pytest.raises(UsageError, match="manifest") as caught:
        push.push(
            tmp_path / "m",
            parse_uri(f"gs://b/{name}"),
            GCSOptions(emulator="http://127.0.0.1:9", write=True),
            SilentProgress(),
        )

    assert caught.value.hint


def test_more_files_than_a_manifest_can_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names an archive, which holds any number of files."""
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", 1000)
    few = local_model.find_local_model(write_files(tmp_path / "few", {str(number): b"" for number in range(5)}))
    many = local_model.find_local_model(write_files(tmp_path / "many", {str(number): b"" for number in range(20)}))

    push._check_manifest_size(few)
    with pytest.raises(BudgetError, match="20 files") as caught:
        push._check_manifest_size(many)

    assert ".tar.zst" in caught.value.hint


# --- inspect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "companion"), [("m/", "m/" + MANIFEST_NAME), ("m/w", "m/w" + MANIFEST_NAME)])
def test_inspect_reports_the_presence_of_a_manifest(
    modelfetch: CliRunner, folder: ModelFolder, path: str, companion: str
) -> None:
    """For a directory and for a file; the text output says yes or no."""
    folder.put("m/w", b"weights")
    inspect = ("inspect", folder.uri(path))

    before = modelfetch.ok(*inspect, "-o", "json").receipt["manifest"]
    folder.put(companion, b"")

    assert (before, "manifest yes" in modelfetch.ok(*inspect).stdout) == (False, True)

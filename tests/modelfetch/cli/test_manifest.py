"""A half-pushed model is never pulled, and what was pushed is what arrives, wherever it was copied to."""

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
ONCE = {"MODELFETCH_RETRIES": "1"}


def uploads(store: Store) -> dict[str, str]:
    """What tells uploads from all other requests."""
    return {"method": "POST", "path": "^/upload/"} if store.scheme == "gs" else {"method": "PUT"}


def failed(run: Run, code: int, reason: str, *said: str) -> None:
    """It ended with this code, and told why and what to do."""
    assert (run.code, run.error["reason"], run.stdout) == (code, reason, ""), run.stderr
    assert run.error["hint"]
    assert [word for word in said if word not in run.error["message"] + run.error["hint"]] == []


def killed_push(modelfetch: CliRunner, store: Store, proxy: FaultProxy, here: Path, held: int) -> None:
    """Push a directory to `m/`; kill it while the store says nothing to an upload, the first being number one."""
    proxy.clear()
    proxy.add_rule(**uploads(store), nth=held, mute=True)
    running = modelfetch.start("push", here, store.uri("m/"), "--stall-timeout", "10m", env=store.env_at(proxy.url))
    running.wait_for(lambda: len([one for one in proxy.matching_requests(**uploads(store)) if one.rule]) == 1)
    run = running.send_signal(signal.SIGKILL)
    assert run.code == -signal.SIGKILL


# --- pushes that are cut short ---------------------------------------------------------------------------------------


def test_a_push_that_was_killed_midway_is_never_pulled(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A push that comes after heals it."""
    here = write_files(tmp_path / "here", V1)
    killed_push(modelfetch, store, fault_proxy(store.endpoint), here, 3)

    run = modelfetch("pull", store.uri("m"), tmp_path / "there", env=store.env | ONCE)
    left = (tmp_path / "there").exists()
    modelfetch.ok("push", here, store.uri("m"), env=store.env)
    healed = modelfetch.ok(
        "pull", store.uri("m"), tmp_path / "there", "--require-manifest", "-o", "json", env=store.env
    )

    failed(run, 75, "transient", store.uri("m"), "a push is under way, or was interrupted", "push the model again")
    assert not left
    assert read_files(tmp_path / "there") == V1
    assert "manifest" in healed.receipt["checks"]


def test_a_push_that_was_killed_before_its_first_word_leaves_nothing(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """66, as if it had not begun."""
    killed_push(modelfetch, s3_bucket, fault_proxy(s3_bucket.endpoint), write_files(tmp_path / "here", V1), 1)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "there", env=s3_bucket.env)

    failed(run, 66, "not_found", s3_bucket.uri("m"))


def test_an_older_version_that_is_half_overwritten_is_no_model_either(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Neither is pulled, nor a mixture, also if only the last word is missing; whoever has the old one keeps it."""
    store, here = s3_bucket, write_files(tmp_path / "here", V1)
    modelfetch.ok("push", here, store.uri("m"), env=store.env)
    modelfetch.ok("pull", store.uri("m"), tmp_path / "old", env=store.env)
    killed_push(modelfetch, store, fault_proxy(store.endpoint), write_files(here, V2), 5)

    for name in ("old", "new"):
        run = modelfetch("pull", store.uri("m"), tmp_path / name, env=store.env | ONCE)
        failed(run, 75, "transient", "a push is under way")

    assert (read_files(tmp_path / "old"), (tmp_path / "new").exists()) == (V1, False)


def test_a_pull_that_comes_during_a_push_waits_for_its_end(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """Within its retries: a later try finds the model whole."""
    write_files(folder.root, V1 | {MANIFEST_NAME: manifest_json({}, complete=False)})

    running = modelfetch.start("pull", folder.root, tmp_path / "there", "--retries", "9")
    running.wait_for(lambda: any(line.get("reason") == "transient" for line in running.log))
    folder.put("manifest.new", manifest_json(V1))
    (folder.root / "manifest.new").replace(folder.root / MANIFEST_NAME)
    run = running.finish()

    assert run.code == 0, run.stderr
    assert read_files(tmp_path / "there") == V1


def test_the_manifest_is_the_first_word_of_a_push_and_the_last(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """It says that more is to come while files are uploaded, and what they are when all are there."""
    said: list[bytes] = []
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**uploads(store), nth=2, times=None, before=lambda: said.append(store.get("m/" + MANIFEST_NAME)))

    modelfetch.ok("push", write_files(tmp_path / "here", V1), store.uri("m"), env=store.env_at(proxy.url))

    before = [json.loads(text) for text in said]
    after = json.loads(store.get("m/" + MANIFEST_NAME))
    assert [(one["schema"], one["complete"], one["files"]) for one in before] == [(1, False, [])] * (len(V1) + 1)
    assert (after["schema"], after["complete"], after["digest"]) == (1, True, directory_digest(V1))
    assert {f["path"]: (f["size"], f["sha256"]) for f in after["files"]} == {
        name: (len(data), sha256_hex(data)) for name, data in V1.items()
    }
    if store.scheme == "s3":
        paths = [request.path for request in proxy.matching_requests("PUT")]
        assert [paths[0], paths[-1]] == [f"/{store.bucket}/m/{MANIFEST_NAME}"] * 2
        assert len(paths) == len(V1) + 2


# --- a single object -------------------------------------------------------------------------------------------------


def test_a_single_objects_manifest_is_asked_for_once(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """On the first pull; the second is one request, as without a manifest."""
    (tmp_path / "m").write_bytes(V1["w/1.bin"])
    modelfetch.ok("push", tmp_path / "m", store.uri("d/m"), env=store.env)
    proxy = fault_proxy(store.endpoint)
    pull = ("pull", store.uri("d/m"), tmp_path / "p", "--require-manifest", "-o", "json")

    first = modelfetch.ok(*pull, env=store.env_at(proxy.url)).receipt
    asked = proxy.matching_requests(path="manifest")
    proxy.clear()
    second = modelfetch.ok(*pull, env=store.env_at(proxy.url)).receipt
    said = json.loads(store.get("d/m" + MANIFEST_NAME))

    assert "manifest" in first["checks"]
    assert len(asked) == 2  # whether it is there, and what it says
    assert (len(proxy.requests), second) == (1, first)
    assert (said["version"], said["digest"]) == (store.version("d/m"), first["digest"])
    assert [file["path"] for file in said["files"]] == ["m"]


def test_an_object_that_was_replaced_without_a_push_is_refused(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Another size before the first byte, another content after it, with both values; the old model stays."""
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

    failed(longer, 65, "mismatch", "15 bytes, not 14")
    failed(another, 65, "mismatch", sha256_hex(b"pushed weights"), sha256_hex(b"another weight"))
    assert (downloads, len(proxy.matching_requests(**store.download_filter("m")))) == (0, 2)
    assert (tmp_path / "p").read_bytes() == b"pushed weights"


def test_an_older_version_is_pulled_without_the_manifest_of_a_newer_one(
    modelfetch: CliRunner, s3_versioned: S3Bucket, tmp_path: Path
) -> None:
    """Its pin says which it is; if a manifest is required, that is not enough."""
    store, uris = s3_versioned, []
    for content in (b"old", b"new"):
        (tmp_path / "m").write_bytes(content)
        uris.append(modelfetch.ok("push", tmp_path / "m", store.uri("m"), env=store.env).stdout.split()[0])

    old = modelfetch.ok("pull", uris[0], tmp_path / "old", "-o", "json", env=store.env).receipt
    refused = modelfetch("pull", uris[0], tmp_path / "none", "--require-manifest", env=store.env)
    new = modelfetch.ok("pull", uris[1], tmp_path / "new", "--require-manifest", "-o", "json", env=store.env).receipt

    assert ("manifest" in old["checks"], "manifest" in new["checks"]) == (False, True)
    assert [(tmp_path / name).read_bytes() for name in ("old", "new")] == [b"old", b"new"]
    failed(refused, 65, "wrong_bytes", old["version"], new["version"])
    assert not (tmp_path / "none").exists()


def test_s3_may_deny_what_is_not_there(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """As it does to who may read but not list: no manifest then, unless one is required."""
    s3_bucket.put("m", b"weights")
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(path="manifest", status=403, times=None)
    env = s3_bucket.env_at(proxy.url)

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "p", env=env)
    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "q", "--require-manifest", env=env)

    failed(run, 77, "credentials", MANIFEST_NAME)
    assert not (tmp_path / "q").exists()


def test_an_archive_has_a_manifest_like_any_object(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Of the archive, not of what is in it."""
    store, here = s3_bucket, write_files(tmp_path / "here", V1)
    modelfetch.ok("push", here, store.uri("m.tar.gz"), env=store.env)

    run = modelfetch.ok(
        "pull", store.uri("m.tar.gz"), tmp_path / "p", "--require-manifest", "-o", "json", env=store.env
    )

    assert "manifest" in run.receipt["checks"]
    assert read_files(tmp_path / "p") == V1


# --- a manifest that is required -------------------------------------------------------------------------------------


def test_what_was_pulled_without_a_manifest_is_pulled_again_if_one_is_required(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """It counts as done only if it was compared with one then."""
    folder.put("m/w", b"weights")
    pull = ("pull", folder.uri("m/"), tmp_path / "p", "-o", "json")
    required = {"MODELFETCH_REQUIRE_MANIFEST": "true"}
    first = modelfetch.ok(*pull).receipt

    run = modelfetch(*pull, env=required)
    folder.put("m/" + MANIFEST_NAME, manifest_json({"w": b"weights"}))
    receipts = [modelfetch.ok(*pull, env=required).receipt for _ in range(2)]

    failed(run, 65, "wrong_bytes", "no manifest", "modelfetch push", "--require-manifest")
    assert (first["checks"], receipts[0]["checks"]) == (["size"], ["size", "manifest"])
    assert receipts[0]["version"] == first["version"]
    assert receipts[0] == receipts[1]


def test_a_model_of_empty_files_can_have_a_manifest_too(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """Nothing was fetched for them, and yet they were compared."""
    folder.put("m/" + MANIFEST_NAME, manifest_json({"a": b"", "b": b""}))
    for name in ("m/a", "m/b"):
        folder.put(name, b"")

    run = modelfetch.ok("pull", folder.uri("m/"), tmp_path / "p", "--require-manifest", "-o", "json")

    assert run.receipt["checks"] == ["size", "manifest"]


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> Path:
    """A model that was pushed to S3 and brought here by another tool."""
    modelfetch.ok("push", write_files(tmp_path / "pushed", V1), s3_bucket.uri("m"), env=s3_bucket.env)
    shutil.rmtree(tmp_path / "pushed")
    for key in s3_bucket.list_keys():
        write_files(tmp_path / "copy", {key.removeprefix("m/"): s3_bucket.get(key)})
    return tmp_path / "copy"


def test_a_copy_made_by_other_tools_is_still_checked(modelfetch: CliRunner, copy: Path, tmp_path: Path) -> None:
    """The manifest came along as an ordinary object; what was altered, lost or added on the way is told."""
    pull = ("pull", copy, tmp_path / "there", "-o", "json")
    good = modelfetch.ok(*pull, "--require-manifest").receipt
    shutil.rmtree(tmp_path / "there")

    write_files(copy, {"w/1.bin": V2["w/1.bin"]})
    altered = modelfetch(*pull)
    write_files(copy, {"w/1.bin": V1["w/1.bin"], "notes.txt": b"mine"})
    added = modelfetch(*pull)
    (copy / "config.json").unlink()
    lost = modelfetch(*pull)
    published = (tmp_path / "there").exists()
    rest = modelfetch.ok(*pull, "--exclude", "notes.txt,config.json", "--require-manifest").receipt

    assert (good["checks"], good["digest"]) == (["size", "manifest"], directory_digest(V1))
    failed(altered, 65, "mismatch", "w/1.bin", sha256_hex(V1["w/1.bin"]), sha256_hex(V2["w/1.bin"]))
    assert [line["message"] for line in altered.log if "once more" in line["message"]]
    failed(added, 65, "mismatch", "'notes.txt' is not in the manifest", "--exclude")
    failed(lost, 65, "mismatch", "'config.json' is missing; 'notes.txt' is not in the manifest")
    assert [line for line in lost.log if line["message"].startswith("Fetching")] == []
    assert not published
    assert "manifest" in rest["checks"]


def test_a_copy_on_the_web_is_checked_if_that_is_asked_for(
    modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path
) -> None:
    """The manifest stands beside the file, before the query; nobody asks for it otherwise."""
    https_server.files = {"/d/m": b"weights"}
    pull = ("pull", f"{https_server.url}/d/m?v=1", tmp_path / "p", "-o", "json")
    required = (*pull, "--require-manifest")

    modelfetch.ok(*pull, env=https_server.env)
    asked = [path for _, path, _ in https_server.requests if "manifest" in path]
    none = modelfetch(*required, env=https_server.env)
    https_server.files["/d/m" + MANIFEST_NAME] = manifest_json({"m": b"weights"}, directory=False, version="3")
    compared = modelfetch.ok(*required, env=https_server.env).receipt

    assert asked == []
    failed(none, 65, "wrong_bytes", "no manifest")
    assert "manifest" in compared["checks"]
    assert {path for _, path, _ in https_server.requests if "manifest" in path} == {f"/d/m{MANIFEST_NAME}?v=1"}


def test_what_gcs_stores_encoded_is_compared_decoded(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path
) -> None:
    """A tool that copies with `gzip` as contentEncoding changes the stored bytes, of the manifest too."""
    for name, data in {**V1, MANIFEST_NAME: manifest_json(V1)}.items():
        gcs_bucket.put(f"m/{name}", gzip.compress(data), content_encoding="gzip")

    run = modelfetch.ok(
        "pull", gcs_bucket.uri("m"), tmp_path / "p", "--require-manifest", "-o", "json", env=gcs_bucket.env
    )

    assert "manifest" in run.receipt["checks"]
    assert read_files(tmp_path / "p") == V1


# --- the manifest on its way -----------------------------------------------------------------------------------------


def test_a_manifest_that_arrives_damaged_is_fetched_once_more(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """It is compared with the store's checksum like every object; twice damaged is 65."""
    store.put_many("m/", V1 | {MANIFEST_NAME: manifest_json(V1)})
    proxy = fault_proxy(store.endpoint)
    download = store.download_filter("m/" + MANIFEST_NAME)

    proxy.add_rule(**download, flip_at=2)
    modelfetch.ok("pull", store.uri("m"), tmp_path / "once", env=store.env_at(proxy.url))
    proxy.clear()
    proxy.add_rule(**download, flip_at=2, times=None)
    run = modelfetch("pull", store.uri("m"), tmp_path / "ever", env=store.env_at(proxy.url))

    assert read_files(tmp_path / "once") == V1
    failed(run, 65, "mismatch", MANIFEST_NAME, "arrived damaged")


def test_a_manifest_that_is_replaced_after_the_listing_is_noticed(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A push that begins between the two is not overlooked, and not taken for damage."""
    store.put_many("m/", V1 | {MANIFEST_NAME: manifest_json(V1)})
    proxy = fault_proxy(store.endpoint)
    begun = manifest_json({}, complete=False)
    proxy.add_rule(**store.download_filter("m/" + MANIFEST_NAME), before=lambda: store.put("m/" + MANIFEST_NAME, begun))

    run = modelfetch("pull", store.uri("m"), tmp_path / "p", "--retries", "2", env=store.env_at(proxy.url))

    failed(run, 75, "transient", "a push is under way")
    assert [line["reason"] for line in run.log if line["level"] == "warning"] == ["changed"]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    "data", [b"", b"[" * 100_000, manifest_json({"../../evil": b"1"}), manifest_json(V1, schema=2)]
)
def test_a_manifest_that_cannot_be_read_is_no_manifest(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, data: bytes
) -> None:
    """65 and one line that names it, and nothing is published, whether it is required or not."""
    write_files(folder.root, V1 | {MANIFEST_NAME: data})

    run = modelfetch("pull", folder.root, tmp_path / "p")

    failed(run, 65, "wrong_bytes", str(folder.root / MANIFEST_NAME), "Push the model again")
    assert json.loads(run.termination)["code"] == 65
    assert not (tmp_path / "p").exists()


# --- what push does with manifests that are there --------------------------------------------------------------------


def test_manifests_of_other_pushes_are_not_pushed(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Those that copies left in a directory are about what was there before."""
    stale = manifest_json({}, complete=False)
    here = write_files(
        tmp_path / "here",
        {"a/m": b"1", "a/" + MANIFEST_NAME: stale, "a/m" + MANIFEST_NAME: stale, MANIFEST_NAME: stale},
    )

    modelfetch.ok("push", here, s3_bucket.uri("m"), env=s3_bucket.env)
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "p", "--require-manifest", env=s3_bucket.env)

    assert s3_bucket.list_keys() == ["m/" + MANIFEST_NAME, "m/a/m"]
    assert read_files(tmp_path / "p") == {"a/m": b"1"}


def test_the_manifest_of_a_part_is_in_the_way(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """It would contradict what is pushed now."""
    s3_bucket.put("m/a/" + MANIFEST_NAME, manifest_json({"m": b"1"}))
    here = write_files(tmp_path / "here", {"a/m": b"2"})

    run = modelfetch("push", here, s3_bucket.uri("m"), env=s3_bucket.env)

    failed(run, 73, "destination", "a/" + MANIFEST_NAME, "delete them first")


@pytest.mark.parametrize("name", ["m" + MANIFEST_NAME, "é" * 120, "d/" * 500 + "m"])
def test_a_name_that_leaves_none_for_the_manifest_is_refused(tmp_path: Path, name: str) -> None:
    """Before anything is uploaded: no server listens."""
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
    """An archive holds as many as you like."""
    monkeypatch.setattr(manifest, "MAX_BYTES", 1000)
    few = local_model.find_local_model(write_files(tmp_path / "few", {str(number): b"" for number in range(5)}))
    many = local_model.find_local_model(write_files(tmp_path / "many", {str(number): b"" for number in range(20)}))

    push._check_manifest_size(few)
    with pytest.raises(BudgetError, match="20 files") as caught:
        push._check_manifest_size(many)

    assert ".tar.zst" in caught.value.hint


# --- inspect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "companion"), [("m/", "m/" + MANIFEST_NAME), ("m/w", "m/w" + MANIFEST_NAME)])
def test_inspect_says_whether_there_is_a_manifest(
    modelfetch: CliRunner, folder: ModelFolder, path: str, companion: str
) -> None:
    """Of a directory or of a file; a person reads yes or no."""
    folder.put("m/w", b"weights")
    inspect = ("inspect", folder.uri(path))

    before = modelfetch.ok(*inspect, "-o", "json").receipt["manifest"]
    folder.put(companion, b"")

    assert (before, "manifest yes" in modelfetch.ok(*inspect).stdout) == (False, True)

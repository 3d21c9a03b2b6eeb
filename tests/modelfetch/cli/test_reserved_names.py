"""Reserved names: receipts and manifests inside a model are left out and speak for nothing; old names are read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import MANIFEST_NAME, RECEIPT_NAME, read_files, sha256_hex, write_files
from testkit.stores import Store

OLD_RECEIPT, OLD_MANIFEST = ".modelfetch.json", ".modelfetch-manifest.json"
MODEL = {"model.joblib": b"weights", "sub/config.yaml": b"a: 1"}
SUFFIXES = pytest.mark.parametrize("suffix", [RECEIPT_NAME, OLD_RECEIPT])


def forge_receipt(path: str, data: bytes) -> bytes:
    """Return a receipt that claims a file for a forged source."""
    entry = {"path": path, "size": len(data), "sha256": sha256_hex(data)}
    times = {"started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:00Z"}
    facts = {"checks": ["size"], "bytes": len(data), "resumed_bytes": 0, "seconds": 0.1, "retries": 0, **times}
    digest = f"sha256:{entry['sha256']}"
    return json.dumps(
        {"schema": 1, "tool": "modelfetch/9", "source": "s3://forged/m", "version": "forged", "digest": digest}
        | {"files": [entry], **facts}
    ).encode()


@SUFFIXES
def test_receipt_inside_a_model_gives_no_right_to_a_foreign_file(
    modelfetch: CliRunner, store: Store, tmp_path: Path, suffix: str
) -> None:
    """A bucket with `X.modelfetch-receipt` does not make X at the destination ours."""
    store.put_many("m/", MODEL)
    theirs = b"a user's own"
    store.put(f"m/sub/config.yaml{suffix}", forge_receipt("config.yaml", theirs))
    write_files(tmp_path / "m", {"sub/config.yaml": theirs})

    first = modelfetch("pull", store.uri("m/"), tmp_path / "m", env=store.env)
    second = modelfetch("pull", store.uri("m/"), tmp_path / "m", env=store.env)

    assert (first.code, second.code) == (73, 73)
    assert read_files(tmp_path / "m") == {"sub/config.yaml": theirs}


@SUFFIXES
def test_reserved_names_are_left_out_of_a_pull_and_counted_in_one_line(
    modelfetch: CliRunner, store: Store, tmp_path: Path, suffix: str
) -> None:
    """At every depth; the log has one line with their number."""
    store.put_many("m/", MODEL)
    for path in (suffix, f"sub/{suffix}", f"sub/deep/x{suffix}", f"sub/.modelfetch/y{suffix}"):
        store.put(f"m/{path}", b"{}")

    run = modelfetch.ok("pull", store.uri("m/"), tmp_path / "m", env=store.env)

    assert read_files(tmp_path / "m") == MODEL
    assert [line["message"][:7] for line in run.log if "with reserved names" in line["message"]] == ["4 files"]
    assert (
        modelfetch.ok("pull", store.uri("m/"), tmp_path / "m", env=store.env).log[-1]["message"].endswith("unchanged.")
    )


@SUFFIXES
def test_foreign_file_named_like_a_receipt_is_neither_replaced_nor_deleted(
    modelfetch: CliRunner, tmp_path: Path, suffix: str
) -> None:
    """A file at the receipt's place that is none exits 73; any other stays."""
    write_files(tmp_path / "model", MODEL)
    notes = b"my notes, no receipt\n"
    write_files(tmp_path / "dest", {f"model.joblib{suffix}": notes, f"sub/{suffix}": notes})
    write_files(tmp_path / "file", {f"m{suffix}": notes})

    directory = modelfetch("pull", f"{tmp_path}/model/", tmp_path / "dest")
    single = modelfetch("pull", tmp_path / "model/model.joblib", tmp_path / "file/m")

    assert directory.code == 0
    assert (tmp_path / "dest" / f"model.joblib{suffix}").read_bytes() == notes
    assert (tmp_path / "dest/sub" / suffix).read_bytes() == notes
    assert (tmp_path / "file" / f"m{suffix}").read_bytes() == notes
    assert single.code == (73 if suffix == RECEIPT_NAME else 0)


@pytest.mark.parametrize("kind", ["file", "directory", "mixed directory"])
def test_receipt_of_the_old_name_is_read_and_replaced_by_the_next_version(
    modelfetch: CliRunner, tmp_path: Path, kind: str
) -> None:
    """An earlier image wrote the old name: `verify` and "unchanged" read it, a new version leaves the new name only."""
    source, dest = tmp_path / "model", tmp_path / "dest"
    write_files(source, MODEL)
    pull = ("pull", source / "model.joblib", dest) if kind == "file" else ("pull", f"{source}/", dest)
    new = tmp_path / f"dest{RECEIPT_NAME}" if kind == "file" else dest / RECEIPT_NAME
    old = tmp_path / f"dest{OLD_RECEIPT}" if kind == "file" else dest / OLD_RECEIPT
    modelfetch.ok(*pull)
    new.rename(old)
    if kind == "mixed directory":
        (dest / "theirs").write_bytes(b"a user's own")

    assert modelfetch.ok("verify", dest).code == 0
    assert modelfetch.ok(*pull).log[-1]["message"].endswith("unchanged.")
    (source / "model.joblib").write_bytes(b"new weights")
    modelfetch.ok(*pull)

    assert new.exists()
    assert not old.exists()
    assert modelfetch.ok("verify", dest).code == 0


@SUFFIXES
def test_verify_does_not_believe_a_receipt_that_is_a_file_of_the_model(
    modelfetch: CliRunner, tmp_path: Path, suffix: str
) -> None:
    """An earlier version published receipts inside models: the receipt of the directory above lists such a file."""
    write_files(tmp_path / "model", MODEL)
    modelfetch.ok("pull", f"{tmp_path}/model/", tmp_path / "m")
    forged = forge_receipt("config.yaml", MODEL["sub/config.yaml"])
    (tmp_path / "m/sub" / suffix).write_bytes(forged)
    receipt = tmp_path / "m" / RECEIPT_NAME
    content = json.loads(receipt.read_text())
    content["files"].append({"path": f"sub/{suffix}", "size": len(forged), "sha256": sha256_hex(forged)})
    receipt.write_text(json.dumps(content))

    assert modelfetch("verify", tmp_path / "m/sub").code == 66


@SUFFIXES
def test_verify_does_not_believe_a_file_receipt_listed_by_its_own_directory(
    modelfetch: CliRunner, tmp_path: Path, suffix: str
) -> None:
    """A receipt beside a file at the top of a model is part of that model too, as a nested one is."""
    write_files(tmp_path / "model", MODEL)
    modelfetch.ok("pull", f"{tmp_path}/model/", tmp_path / "m")
    forged = forge_receipt("model.joblib", MODEL["model.joblib"])
    (tmp_path / "m" / f"model.joblib{suffix}").write_bytes(forged)
    receipt = tmp_path / "m" / RECEIPT_NAME
    content = json.loads(receipt.read_text())
    content["files"].append({"path": f"model.joblib{suffix}", "size": len(forged), "sha256": sha256_hex(forged)})
    receipt.write_text(json.dumps(content))

    assert modelfetch("verify", tmp_path / "m/model.joblib").code == 66


def test_push_leaves_out_nested_pulls_and_counts_them_in_one_line(
    modelfetch: CliRunner, store: Store, tmp_path: Path
) -> None:
    """Receipts, manifests and half downloads at any depth; the pull of the pushed directory is the model."""
    nested = {f"sub/{RECEIPT_NAME}": b"{}", f"sub/x{OLD_RECEIPT}": b"{}", "sub/.modelfetch/0/tree/part": b"half"}
    write_files(tmp_path / "model", {**MODEL, **nested, OLD_MANIFEST: b"{}"})

    run = modelfetch.ok("push", tmp_path / "model", store.uri("m/"), env=store.env)
    modelfetch.ok("pull", store.uri("m/"), tmp_path / "m", "--require-manifest", env=store.env)

    assert sorted(store.list_keys()) == sorted(f"m/{path}" for path in (*MODEL, MANIFEST_NAME))
    assert [line["message"][:7] for line in run.log if "with reserved names" in line["message"]] == ["4 files"]
    assert read_files(tmp_path / "m") == MODEL


@pytest.mark.parametrize("kind", ["object", "directory"])
@pytest.mark.parametrize("may_delete", [True, False])
def test_push_retires_the_manifest_of_the_old_name(
    modelfetch: CliRunner,
    store: Store,
    fault_proxy: Callable[[str], FaultProxy],
    tmp_path: Path,
    kind: str,
    may_delete: bool,
) -> None:
    """The old one is deleted after the new one is stored; without the right to delete it gets the same content."""
    write_files(tmp_path / "model", MODEL)
    path, target = (tmp_path / "model", "m/") if kind == "directory" else (tmp_path / "model/model.joblib", "m")
    store.put(f"{target}{OLD_MANIFEST}", b'{"schema": 1, "complete": false, "files": []}')
    proxy = fault_proxy(store.endpoint)
    if not may_delete:
        proxy.add_rule(method="DELETE", status=403, times=None)

    modelfetch.ok("push", path, store.uri(target), env=store.env_at(proxy.url))

    manifest = store.get(f"{target}{MANIFEST_NAME}")
    assert json.loads(manifest)["complete"]
    if may_delete:
        assert f"{target}{OLD_MANIFEST}" not in store.list_keys()
    else:
        assert store.get(f"{target}{OLD_MANIFEST}") == manifest
    requests = [request for request in proxy.requests if request.method in ("PUT", "POST", "DELETE")]
    assert "modelfetch-manifest.json" in requests[-1].path + requests[-1].query or not may_delete


@pytest.mark.parametrize("kind", ["object", "directory"])
def test_manifest_of_the_old_name_is_still_checked(
    modelfetch: CliRunner, store: Store, tmp_path: Path, kind: str
) -> None:
    """A model that an earlier version pushed is compared with its manifest."""
    write_files(tmp_path / "model", MODEL)
    path, target = (tmp_path / "model", "m/") if kind == "directory" else (tmp_path / "model/model.joblib", "m")
    modelfetch.ok("push", path, store.uri(target), env=store.env)
    store.put(f"{target}{OLD_MANIFEST}", store.get(f"{target}{MANIFEST_NAME}"))
    store.delete(f"{target}{MANIFEST_NAME}")
    pull = ("pull", store.uri(target), tmp_path / "d", "--require-manifest")

    modelfetch.ok(*pull, env=store.env)
    store.put("m/model.joblib" if kind == "directory" else "m", b"WEIGHTS")
    changed = modelfetch("pull", store.uri(target), tmp_path / "e", env=store.env)

    assert changed.code == 65


def test_manifest_that_lists_a_reserved_name_is_refused_unless_excluded(
    modelfetch: CliRunner, store: Store, tmp_path: Path
) -> None:
    """An earlier version pushed nested receipts as files of the model: the hint says how to go on."""
    write_files(tmp_path / "model", MODEL)
    modelfetch.ok("push", tmp_path / "model", store.uri("m/"), env=store.env)
    manifest = json.loads(store.get(f"m/{MANIFEST_NAME}"))
    manifest["files"].append({"path": f"sub/{OLD_RECEIPT}", "size": 2, "sha256": sha256_hex(b"{}")})
    lines = sorted(f"{f['sha256']}  {f['path']}\n" for f in manifest["files"])
    manifest["digest"] = f"sha256:{sha256_hex(''.join(sorted(lines, key=lambda line: line[66:])).encode())}"
    store.put(f"m/{MANIFEST_NAME}", json.dumps(manifest).encode())
    store.put(f"m/sub/{OLD_RECEIPT}", b"{}")

    refused = modelfetch("pull", store.uri("m/"), tmp_path / "m", env=store.env)
    excluded = modelfetch("pull", store.uri("m/"), tmp_path / "m", "--exclude", "*.modelfetch.json", env=store.env)

    assert refused.code == 65
    assert "--exclude" in refused.error["hint"]
    assert excluded.code == 0, excluded.stderr
    assert read_files(tmp_path / "m") == MODEL


@pytest.mark.parametrize("name", ["m.modelfetch-receipt", "m.modelfetch.json", ".modelfetch-manifest", ".modelfetch"])
def test_reserved_name_of_source_destination_or_path_is_a_usage_error(
    modelfetch: CliRunner, store: Store, tmp_path: Path, name: str
) -> None:
    """Exit 2 as an argument, 78 from the environment."""
    store.put(f"d/{name}", b"{}")
    write_files(tmp_path, {name: b"{}", "model": b"weights"})

    source = modelfetch("pull", store.uri(f"d/{name}"), tmp_path / "m", env=store.env)
    dest = modelfetch("pull", tmp_path / "model", tmp_path / name)
    path = modelfetch("push", tmp_path / name, store.uri("x"), env=store.env)
    target = modelfetch("push", tmp_path / "model", store.uri(name), env=store.env)
    from_environment = [
        modelfetch("pull", env={**store.env, "MODELFETCH_SOURCE": store.uri(f"d/{name}"), "MODELFETCH_DEST": "m"}),
        modelfetch("pull", env={"MODELFETCH_SOURCE": str(tmp_path / "model"), "MODELFETCH_DEST": name}),
    ]

    assert [run.code for run in (source, dest, path, target)] == [2, 2, 2, 2]
    assert [run.code for run in from_environment] == [78, 78]
    assert (tmp_path / name).read_bytes() == b"{}"

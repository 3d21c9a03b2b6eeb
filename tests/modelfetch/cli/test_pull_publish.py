"""Publishing: where a model goes, which files stay there, and the second pull."""

import json
import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import (
    RECEIPT_NAME,
    STAGING_NAME,
    directory_digest,
    pack_tar_gz,
    random_bytes,
    read_files,
    sha256_hex,
    write_files,
)
from testkit.stores import ModelFolder, S3Bucket, Store

Proxied = Callable[[str], FaultProxy]
DATA = random_bytes(100_000)
V1 = {"config.json": b"{}", "old.bin": b"1", "weights/0.bin": DATA}
V2 = {"config.json": b"{2}", "new.bin": b"2", "weights/0.bin": DATA[::-1], "weights/1.bin": b""}


def fill_prefix(store: Store | ModelFolder, prefix: str, files: dict[str, bytes]) -> None:
    """Store exactly these files under a prefix."""
    for key in store.list_keys():
        if key.startswith(prefix):
            store.delete(key)
    for name, data in files.items():
        store.put(prefix + name, data)


def read_receipt(dest: Path) -> dict[str, Any]:
    """Read the receipt of a directory, or of a file."""
    found = dest / RECEIPT_NAME if dest.is_dir() else dest.with_name(dest.name + RECEIPT_NAME)
    return dict(json.loads(found.read_text()))


def list_staged(root: Path) -> list[Path]:
    """List files left in any staging area below a directory."""
    return [
        path for area in root.rglob(STAGING_NAME) for path in area.rglob("*") if path.is_dir() or path.stat().st_size
    ]


# --- DEST -----------------------------------------------------------------------------------------------------------


def test_object_is_published_where_cp_would_copy(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path) -> None:
    """To the file DEST; into DEST if a directory exists there or the path ends with a slash."""
    folder.put("a/model.joblib", DATA)
    (tmp_path / "existing").mkdir()
    uri = folder.uri("a/model.joblib")

    pairs = [uri, tmp_path / "named.bin", uri, tmp_path / "existing", uri, f"{tmp_path}/made/here/"]
    modelfetch.ok("pull", *pairs)

    files = {"named.bin": DATA, "existing/model.joblib": DATA, "made/here/model.joblib": DATA}
    assert read_files(tmp_path) == files
    assert [read_receipt(tmp_path / name)["files"][0]["path"] for name in files] == [Path(name).name for name in files]


def test_archive_is_extracted_into_the_destination_directory(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """Into DEST; into the parent if DEST is named like the archive; unchanged with --no-extract."""
    archive = pack_tar_gz(V1)
    folder.put("model.tar.gz", archive)
    uri = folder.uri("model.tar.gz")

    modelfetch.ok("pull", uri, tmp_path / "dest", uri, tmp_path / "like" / "model.tar.gz")
    modelfetch.ok("pull", uri, f"{tmp_path}/kept/", "--no-extract")

    assert read_files(tmp_path / "dest") == V1
    assert read_files(tmp_path / "like") == V1
    assert read_files(tmp_path / "kept") == {"model.tar.gz": archive}
    assert read_receipt(tmp_path / "like")["digest"] == directory_digest(V1)


def test_archive_inside_a_prefix_stays_a_file(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path) -> None:
    """A directory is published as stored."""
    files = {"model.tar.gz": pack_tar_gz(V1), "readme": b"x"}
    fill_prefix(folder, "d/", files)

    modelfetch.ok("pull", folder.uri("d/"), tmp_path / "d")

    assert read_files(tmp_path / "d") == files


def test_destination_symlink_is_followed(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path) -> None:
    """The symlink stays, and the target is changed: a directory, and a file."""
    fill_prefix(folder, "d/", V1)
    (tmp_path / "real").mkdir()
    (tmp_path / "dir").symlink_to("real")
    (tmp_path / "file").symlink_to("elsewhere.bin")

    pairs = [folder.uri("d/"), tmp_path / "dir", folder.uri("d/old.bin"), tmp_path / "file"]
    modelfetch.ok("pull", *pairs)

    assert (tmp_path / "dir").readlink() == Path("real")
    assert (tmp_path / "file").readlink() == Path("elsewhere.bin")
    assert read_files(tmp_path / "real") == V1
    assert (tmp_path / "elsewhere.bin").read_bytes() == b"1"


def test_published_modes_are_independent_of_the_umask(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """0644 and 0755, receipts included, because the app may run under another uid."""
    fill_prefix(folder, "d/", V1)

    pairs = [folder.uri("d/"), tmp_path / "d", folder.uri("d/old.bin"), tmp_path / "new" / "m"]
    run = modelfetch("pull", *pairs, umask=0o077)

    found = {
        path.relative_to(tmp_path).as_posix(): path
        for path in (*tmp_path.rglob("*"),)
        if STAGING_NAME not in path.parts
    }
    modes = {name: oct(stat.S_IMODE(path.stat().st_mode)) for name, path in found.items()}
    assert run.code == 0
    assert modes == {name: "0o755" if path.is_dir() else "0o644" for name, path in found.items()}
    assert "d/weights" in modes


def test_mtime_of_published_files_equals_the_receipt(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """Readers compare the mtime with `finished`, in whole seconds, to detect later changes."""
    fill_prefix(folder, "d/", V1)

    modelfetch.ok("pull", folder.uri("d/"), tmp_path / "d")

    finished = datetime.fromisoformat(read_receipt(tmp_path / "d")["finished"]).timestamp()
    assert {(tmp_path / "d" / name).stat().st_mtime_ns for name in V1} == {int(finished) * 10**9}


# --- the second pull ------------------------------------------------------------------------------------------------


def test_second_pull_of_an_object_is_one_request(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The version is compared and nothing changes, also through another endpoint."""
    store.put("m", DATA)
    proxy = fault_proxy(store.endpoint)
    modelfetch.ok("pull", store.uri("m"), tmp_path / "m", env=store.env)
    before = (tmp_path / "m").stat(), (tmp_path / "m.modelfetch-receipt").read_bytes()

    run = modelfetch.ok("pull", store.uri("m"), tmp_path / "m", "--output", "json", env=store.env_at(proxy.url))

    assert len(proxy.requests) == 1
    assert proxy.matching_requests(**store.download_filter()) == []
    assert ((tmp_path / "m").stat(), (tmp_path / "m.modelfetch-receipt").read_bytes()) == before
    assert run.receipt["digest"] == f"sha256:{sha256_hex(DATA)}"


def test_second_pull_of_a_directory_is_one_listing(
    modelfetch: CliRunner, store: Store, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """One request for any number of files."""
    fill_prefix(store, "d/", V1)
    proxy = fault_proxy(store.endpoint)
    modelfetch.ok("pull", store.uri("d/"), tmp_path / "d", env=store.env)

    modelfetch.ok("pull", store.uri("d/"), tmp_path / "d", env=store.env_at(proxy.url))

    assert len(proxy.requests) == 1
    assert read_files(tmp_path / "d") == V1


def test_second_pull_of_an_archive_is_one_request(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The archive is neither fetched nor extracted again."""
    s3_bucket.put("m.tar.gz", pack_tar_gz(V1))
    proxy = fault_proxy(s3_bucket.endpoint)
    modelfetch.ok("pull", s3_bucket.uri("m.tar.gz"), tmp_path / "d", env=s3_bucket.env)

    modelfetch.ok("pull", s3_bucket.uri("m.tar.gz"), tmp_path / "d", env=s3_bucket.env_at(proxy.url))

    assert len(proxy.requests) == 1
    assert read_files(tmp_path / "d") == V1


def test_new_version_replaces_the_old_version(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """For a file and for a directory; files missing in the new model are removed."""
    s3_bucket.put("m", b"one")
    fill_prefix(s3_bucket, "d/", V1)
    pairs = [s3_bucket.uri("m"), tmp_path / "m", s3_bucket.uri("d/"), tmp_path / "d"]
    modelfetch.ok("pull", *pairs, env=s3_bucket.env)
    s3_bucket.put("m", b"two")
    fill_prefix(s3_bucket, "d/", V2)

    modelfetch.ok("pull", *pairs, env=s3_bucket.env)

    assert (tmp_path / "m").read_bytes() == b"two"
    assert read_files(tmp_path / "d") == V2
    assert read_receipt(tmp_path / "d")["digest"] == directory_digest(V2)


@pytest.mark.parametrize("mounted", [False, True])
def test_foreign_files_stay_when_the_model_is_replaced(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, tmpfs: Callable[..., Path], *, mounted: bool
) -> None:
    """Foreign files are never deleted, in a directory and in a mount point."""
    dest = tmpfs("d") if mounted else tmp_path / "d"
    fill_prefix(folder, "d/", V1)
    write_files(dest, {"lost+found/x": b"s", "notes.txt": b"s", "weights/mine": b"s"})
    modelfetch.ok("pull", folder.uri("d/"), dest)
    fill_prefix(folder, "d/", V2)

    modelfetch.ok("pull", folder.uri("d/"), dest)

    foreign = {"lost+found/x": b"s", "notes.txt": b"s", "weights/mine": b"s"}
    assert {k: v for k, v in read_files(dest).items() if not k.startswith(STAGING_NAME + "/")} == V2 | foreign
    assert list_staged(tmp_path) == []


def test_mount_point_is_filled_and_updated(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, tmpfs: Callable[..., Path]
) -> None:
    """An emptyDir cannot be exchanged as a directory; files are moved one by one."""
    dest = tmpfs("volume")
    fill_prefix(folder, "d/", V1)
    modelfetch.ok("pull", folder.uri("d/"), dest)
    first = {k: v for k, v in read_files(dest).items() if not k.startswith(STAGING_NAME + "/")}
    fill_prefix(folder, "d/", V2)

    modelfetch.ok("pull", folder.uri("d/"), dest)

    assert first == V1
    assert {k: v for k, v in read_files(dest).items() if not k.startswith(STAGING_NAME + "/")} == V2
    assert read_receipt(dest)["digest"] == directory_digest(V2)


@pytest.mark.parametrize("name", ["old.bin", "weights"])
def test_foreign_file_in_the_way_exits_73(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, name: str
) -> None:
    """The message names the foreign file, and nothing else has changed."""
    fill_prefix(folder, "d/", V1)
    write_files(tmp_path / "d", {name: b"foreign"})

    run = modelfetch("pull", folder.uri("d/"), tmp_path / "d")

    assert (run.code, run.error["reason"]) == (73, "destination")
    assert str(tmp_path / "d" / name) in run.error["message"]
    assert {k: v for k, v in read_files(tmp_path / "d").items() if STAGING_NAME not in k} == {name: b"foreign"}


def test_foreign_file_at_a_file_destination_exits_73(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """A file without a receipt is foreign and stays."""
    folder.put("m", DATA)
    (tmp_path / "m").write_bytes(b"foreign")

    run = modelfetch("pull", folder.uri("m"), tmp_path / "m")

    assert (run.code, run.error["reason"]) == (73, "destination")
    assert (tmp_path / "m").read_bytes() == b"foreign"


def test_two_models_share_a_directory(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Each file has a receipt; an update of one model leaves the other."""
    s3_bucket.put("a", b"a1")
    s3_bucket.put("b", b"b1")
    for key in ("a", "b"):
        modelfetch.ok("pull", s3_bucket.uri(key), f"{tmp_path}/", env=s3_bucket.env)
    s3_bucket.put("a", b"a2")

    modelfetch.ok("pull", s3_bucket.uri("a"), f"{tmp_path}/", env=s3_bucket.env)

    assert read_files(tmp_path) == {"a": b"a2", "b": b"b1"}


# --- tampering ------------------------------------------------------------------------------------------------------


def append_byte(path: Path) -> None:
    """Change the size of a file."""
    path.write_bytes(path.read_bytes() + b"x")


def reset_mtime(path: Path) -> None:
    """Change the mtime of a file."""
    os.utime(path, (1, 1))


@pytest.mark.parametrize("tamper", [append_byte, reset_mtime, Path.unlink])
def test_changed_or_missing_file_is_pulled_again(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    """A changed size or mtime, or a missing file, is detected by the next pull."""
    fill_prefix(folder, "d/", V1)
    modelfetch.ok("pull", folder.uri("d/"), tmp_path / "d")
    tamper(tmp_path / "d" / "weights" / "0.bin")

    modelfetch.ok("pull", folder.uri("d/"), tmp_path / "d")

    assert read_files(tmp_path / "d") == V1


def test_recheck_repairs_content_changed_under_the_same_size_and_mtime(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """Damaged bytes on disk are found by hash with --recheck only."""
    folder.put("m", DATA)
    modelfetch.ok("pull", folder.uri("m"), tmp_path / "m")
    state = (tmp_path / "m").stat()
    (tmp_path / "m").write_bytes(b"\0" * len(DATA))
    os.utime(tmp_path / "m", ns=(state.st_mtime_ns, state.st_mtime_ns))

    modelfetch.ok("pull", folder.uri("m"), tmp_path / "m")
    unnoticed = (tmp_path / "m").read_bytes() != DATA
    modelfetch.ok("pull", folder.uri("m"), tmp_path / "m", "--recheck")

    assert unnoticed
    assert (tmp_path / "m").read_bytes() == DATA


def test_damaged_receipt_is_replaced(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path) -> None:
    """A damaged receipt counts as missing; a file equal to the new receipt's content is ours."""
    folder.put("m", DATA)
    modelfetch.ok("pull", folder.uri("m"), tmp_path / "m")
    (tmp_path / "m").unlink()
    (tmp_path / "m.modelfetch-receipt").write_text("{")

    modelfetch.ok("pull", folder.uri("m"), tmp_path / "m")

    assert (tmp_path / "m").read_bytes() == DATA
    assert read_receipt(tmp_path / "m")["digest"] == f"sha256:{sha256_hex(DATA)}"


@pytest.mark.parametrize("kept", [0, 1])
def test_receipt_listing_other_files_than_the_model_is_ignored(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, kept: int
) -> None:
    """A pull never reports a model as complete while files are missing."""
    fill_prefix(folder, "d/", V1)
    modelfetch.ok("pull", folder.uri("d/"), tmp_path / "d")
    edited_receipt = read_receipt(tmp_path / "d")
    missing = [entry["path"] for entry in edited_receipt["files"][kept:]]
    edited_receipt["files"] = edited_receipt["files"][:kept]
    (tmp_path / "d" / RECEIPT_NAME).write_text(json.dumps(edited_receipt))
    for path in missing:
        (tmp_path / "d" / path).unlink()

    modelfetch.ok("pull", folder.uri("d/"), tmp_path / "d")

    assert read_files(tmp_path / "d") == V1

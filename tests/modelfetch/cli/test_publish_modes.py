"""How a directory is replaced: by one rename or entry by entry, with the admin's attributes, also amid mounts."""

import json
import os
import stat
from pathlib import Path

import pytest

from testkit import mounts, strace
from testkit.cli_runner import CliRunner
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, read_files, write_files

V1, V2 = {"model.joblib": b"one", "sub/a": b"1"}, {"model.joblib": b"two", "sub/b": b"2"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Create the directory to pull from, with the first version."""
    return write_files(tmp_path / "source", V1)


def update(source: Path) -> None:
    """Replace the first version by the second."""
    (source / "sub/a").unlink()
    write_files(source, V2)


@pytest.mark.parametrize("mode", [0o2775, 0o700, 0o1777])
def test_mode_and_owner_of_the_destination_stay(modelfetch: CliRunner, source: Path, tmp_path: Path, mode: int) -> None:
    """The directory is the admin's: an exchange keeps mode, setgid, owner and extended attributes."""
    dest = tmp_path / "dest"
    modelfetch.ok("pull", f"{source}/", dest)
    dest.chmod(mode)
    if os.geteuid() == 0:
        os.chown(dest, 1234, 4321)
        dest.chmod(mode)
    try:
        os.setxattr(dest, "user.team", b"churn")
    except OSError as error:
        pytest.skip(f"the file system has no extended attributes: {error}")
    before = dest.stat()
    update(source)

    modelfetch.ok("pull", f"{source}/", dest)

    after = dest.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == mode
    assert os.getxattr(dest, "user.team") == b"churn"
    assert read_files(dest) == V2


def test_directory_whose_attributes_cannot_be_copied_is_updated_entry_by_entry(
    modelfetch: CliRunner, source: Path, tmp_path: Path
) -> None:
    """The directory itself stays, and with it what only the admin may set."""
    if reason := strace.unavailable_reason():
        pytest.skip(reason)
    dest = tmp_path / "dest"
    modelfetch.ok("pull", f"{source}/", dest)
    try:
        os.setxattr(dest, "user.team", b"churn")
    except OSError as error:
        pytest.skip(f"the file system has no extended attributes: {error}")
    inode = dest.stat().st_ino
    update(source)
    injection = "inject=setxattr:error=EPERM"
    modelfetch.prefix = ["strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=setxattr", "-e", injection]

    modelfetch.ok("pull", f"{source}/", dest)

    assert dest.stat().st_ino == inode
    assert os.getxattr(dest, "user.team") == b"churn"
    assert read_files(dest) == V2


def test_volume_mounted_inside_the_destination_stays(modelfetch: CliRunner, source: Path, tmp_path: Path) -> None:
    """A rename would carry the mount off with the old directory."""
    dest, volume = tmp_path / "dest", tmp_path / "volume"
    modelfetch.ok("pull", f"{source}/", dest)
    volume.mkdir()
    inode = dest.stat().st_ino
    (source / "sub/a").unlink()
    (source / "sub").rmdir()
    write_files(volume, {"a": b"a user's own"})  # at a path that the old receipt lists
    try:
        with mounts.bind_mount(volume, dest / "sub"):
            run = modelfetch("pull", f"{source}/", dest)
            after, inside = dest.stat().st_ino, read_files(dest / "sub")
    except mounts.CannotMountError as error:
        pytest.skip(str(error))

    assert run.code == 0, run.stderr
    assert (after, inside) == (inode, {"a": b"a user's own"})


def test_model_with_files_on_a_volume_mounted_inside_the_destination_exits_73(
    modelfetch: CliRunner, source: Path, tmp_path: Path
) -> None:
    """The message names the volume's place; nothing changes."""
    dest, volume = tmp_path / "dest", tmp_path / "volume"
    modelfetch.ok("pull", f"{source}/", dest)
    volume.mkdir()
    update(source)
    try:
        with mounts.bind_mount(volume, dest / "sub"):
            run = modelfetch("pull", f"{source}/", dest)
    except mounts.CannotMountError as error:
        pytest.skip(str(error))

    assert run.code == 73
    assert f"mounted inside {dest}" in run.error["message"]
    assert read_files(dest) == V1


@pytest.mark.parametrize("setting", ["auto", "exchange", "entries"])
def test_publish_setting_decides_whether_the_directory_is_exchanged(
    modelfetch: CliRunner, source: Path, tmp_path: Path, setting: str
) -> None:
    """`entries` keeps the directory itself, for pods that mount the directory by `subPath`."""
    dest = tmp_path / "dest"
    modelfetch.ok("pull", f"{source}/", dest, "--publish", setting)
    inode = dest.stat().st_ino
    update(source)

    modelfetch.ok("pull", f"{source}/", dest, env={"MODELFETCH_PUBLISH": setting})

    assert (dest.stat().st_ino == inode) == (setting == "entries")
    assert read_files(dest) == V2
    assert not (tmp_path / STAGING_NAME).exists()
    assert not (dest / STAGING_NAME).exists()


def test_required_exchange_of_a_mixed_directory_exits_73_before_the_download(
    modelfetch: CliRunner, source: Path, tmp_path: Path
) -> None:
    """Files of others would be carried off."""
    dest = write_files(tmp_path / "dest", {"theirs": b"1"})

    run = modelfetch("pull", f"{source}/", dest, "--publish", "exchange")

    assert run.code == 73
    assert "MODELFETCH_PUBLISH" in run.error["hint"]
    assert read_files(tmp_path / "dest") == {"theirs": b"1"}


def test_old_model_is_put_back_after_a_kill_between_two_renames(
    modelfetch: CliRunner, source: Path, tmp_path: Path
) -> None:
    """Without RENAME_EXCHANGE the old directory is moved aside first: the next run restores it before it can fail."""
    if reason := strace.unavailable_reason():
        pytest.skip(reason)
    dest = tmp_path / "dest"
    modelfetch.ok("pull", f"{source}/", dest)
    before = read_files(dest)
    update(source)
    injections = ("renameat2:error=ENOSYS", "rename:signal=KILL:when=2")
    modelfetch.prefix = ["strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=rename,renameat2"]
    modelfetch.prefix += [part for each in injections for part in ("-e", f"inject={each}")]
    modelfetch("pull", f"{source}/", dest)
    assert not dest.exists()
    modelfetch.prefix = []

    failed = modelfetch("pull", f"{tmp_path}/missing/", dest)

    assert failed.code == 66
    assert read_files(dest) == before
    assert modelfetch.ok("verify", dest).code == 0
    modelfetch.ok("pull", f"{source}/", dest)
    assert read_files(dest) == V2
    assert (dest / RECEIPT_NAME).exists()


@pytest.mark.parametrize(
    "damage", ["", '{"schema": 1, "tool": "modelfetch/0.1.0", "s', '{"schema": 1}', '{"schema": 2}']
)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_damaged_receipt_does_not_lock_the_destination(
    modelfetch: CliRunner, source: Path, tmp_path: Path, damage: str, kind: str
) -> None:
    """`verify` says "pull again", and that works: files equal to the wanted ones are ours; others stay."""
    dest = tmp_path / "dest"
    pull = ("pull", source / "model.joblib", dest) if kind == "file" else ("pull", f"{source}/", dest)
    receipt = tmp_path / f"dest{RECEIPT_NAME}" if kind == "file" else dest / RECEIPT_NAME
    modelfetch.ok(*pull)
    receipt.write_text(damage)
    if kind == "directory":
        (dest / "theirs").write_bytes(b"a user's own")

    damaged = modelfetch("verify", dest)
    again = modelfetch(*pull)

    assert damaged.code == 65
    assert "Pull the model again" in damaged.error["hint"]
    assert again.code == 0, again.stderr
    assert modelfetch.ok("verify", dest).code == 0
    if kind == "directory":
        assert read_files(dest) == {**V1, "theirs": b"a user's own"}


def test_different_file_beside_a_damaged_receipt_is_not_replaced(
    modelfetch: CliRunner, source: Path, tmp_path: Path
) -> None:
    """Nothing tells that the file is ours."""
    dest = tmp_path / "dest"
    modelfetch.ok("pull", f"{source}/", dest)
    (dest / RECEIPT_NAME).write_text('{"schema": 1, "to')
    update(source)

    run = modelfetch("pull", f"{source}/", dest)

    assert run.code == 73
    assert read_files(dest) == V1


def test_receipt_of_a_later_schema_is_read_for_its_files(modelfetch: CliRunner, source: Path, tmp_path: Path) -> None:
    """A rollback of the init image: the newer image's model is verified, replaced, and its other files are removed."""
    dest = tmp_path / "dest"
    modelfetch.ok("pull", f"{source}/", dest)
    receipt = dest / RECEIPT_NAME
    files = json.loads(receipt.read_text())["files"]
    later = [{**entry, "blocks": []} for entry in files]
    receipt.write_text(json.dumps({"schema": 2, "files": later, "digest": "blake3:1"}))
    update(source)

    verified = modelfetch("verify", dest)
    modelfetch.ok("pull", f"{source}/", dest)

    assert verified.code == 0, verified.stderr
    assert read_files(dest) == V2
    assert json.loads(receipt.read_text())["schema"] == 1


def test_directories_made_above_the_destination_are_flushed_into_their_parents(
    modelfetch: CliRunner, source: Path, tmp_path: Path
) -> None:
    """A power loss must not take the path to a published model away."""
    if reason := strace.unavailable_reason():
        pytest.skip(reason)
    log = tmp_path / "calls"
    modelfetch.prefix = strace.strace_command(log)

    modelfetch.ok("pull", source / "model.joblib", tmp_path / "a/b/c/m")

    flushed = {path for call in strace.read_calls(log) if call.name == "fsync" for path in call.paths}
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b"), str(tmp_path / "a/b/c")} <= flushed

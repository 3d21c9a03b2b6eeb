"""Destinations on unusual volumes: foreign, read-only, mounted, linked, oddly named, or with a conflict in the path."""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from testkit import mounts
from testkit.file_tree import write_files
from tests.faults.disk_scenarios import DIRECTORIES, EVERY_KIND
from tests.faults.disk_trial import DiskCase, TrialVolume

FOREIGN_UID = 10001  # a uid of another user
LONG_NAME = "d" * 200


def change_owner(top: Path, uid: int) -> None:
    """Give a tree to another user."""
    if os.geteuid() != 0:
        raise mounts.CannotMountError("only root may give files away")
    for path in (top, *top.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def heal_later(trial: TrialVolume, undo: Callable[[], object]) -> None:
    """Undo a change before the next pull, or at the end at the latest."""
    stack = trial.stack.enter_context(ExitStack())
    stack.callback(undo)
    trial.heal = stack.close


def mount_read_only(trial: TrialVolume) -> None:
    """Mount the volume with option `ro`, read-only."""
    trial.mount_tmpfs("size=8m")
    trial.remount("ro")
    trial.heal = partial(trial.remount, "rw")


def give_volume_away(trial: TrialVolume) -> None:
    """Give the whole volume to another user."""
    trial.lay_out()
    change_owner(trial.path, FOREIGN_UID)
    trial.drop_privileges()
    trial.heal = partial(change_owner, trial.path, os.geteuid())


def give_model_directory_away(trial: TrialVolume) -> None:
    """Give a directory inside the model to another user; all directories before can be changed."""
    trial.lay_out()
    change_owner(trial.path / "m" / "weights", FOREIGN_UID)
    trial.drop_privileges()
    trial.heal = partial(change_owner, trial.path, os.geteuid())


def make_parent_read_only(trial: TrialVolume) -> None:
    """Make the destination's parent read-only, as under a `subPath` or in a mount point."""
    trial.lay_out()
    trial.path.chmod(0o555)
    trial.drop_privileges()
    trial.stack.callback(trial.path.chmod, 0o755)


def set_sticky_bit(trial: TrialVolume) -> None:
    """Put a world-writable directory of another user into a sticky directory like /tmp."""

    def open_to_all(template: Path) -> None:
        for path in (template / "m", *(template / "m").rglob("*")):
            if path.is_dir():
                path.chmod(0o777)

    trial.replace_template(open_to_all)
    trial.prepared.scenario.other_entries.pop("m/gone")  # removed by the pull
    change_owner(trial.path, FOREIGN_UID)
    trial.path.chmod(0o1777)
    trial.drop_privileges()
    trial.stack.callback(change_owner, trial.path, os.geteuid())


def forbid_listing(trial: TrialVolume) -> None:
    """Allow writes to the directory but no reads: its entries cannot be flushed."""
    trial.lay_out()
    change_owner(trial.path, FOREIGN_UID)
    trial.path.chmod(0o733)
    trial.drop_privileges()
    trial.heal = partial(trial.path.chmod, 0o777)


def leave_foreign_staging_area(trial: TrialVolume) -> None:
    """Leave a staging area of another user, with a lock inside."""
    trial.lay_out()
    write_files(trial.staging_area, {"0123456789abcdef.lock": b""})
    change_owner(trial.staging_area, FOREIGN_UID)
    trial.drop_privileges()
    trial.heal = partial(shutil.rmtree, trial.staging_area)


def put_conflict(kind: str, trial: TrialVolume) -> None:
    """Put a foreign file or directory at a path of the model."""

    def put(template: Path) -> None:
        write_files(template, {"m/m/x" if kind == "directory" else "m": b"theirs"})

    def away() -> None:
        shutil.rmtree(trial.path)
        trial.path.mkdir()
        trial.prepared = before

    before = trial.prepared
    trial.replace_template(put)
    trial.heal = away


def put_fifo(trial: TrialVolume) -> None:
    """Put a FIFO at the model's path: no read ends."""
    trial.path.mkdir()
    os.mkfifo(trial.path / "m")
    trial.heal = (trial.path / "m").unlink


def point_below_file(trial: TrialVolume) -> None:
    """Point the destination to a path below a file."""
    (trial.directory / "file").write_bytes(b"theirs")
    trial.path.mkdir()
    trial.destination = str(trial.directory / "file" / "m")
    trial.heal = partial(setattr, trial, "destination", "")


def make_lost_and_found(trial: TrialVolume) -> None:
    """Leave mkfs's lost+found at the root of a volume: a directory readable by its owner only."""

    def put(template: Path) -> None:
        (template / "m").mkdir(exist_ok=True)
        (template / "m" / "lost+found").mkdir(mode=0o700)

    trial.replace_template(put)
    change_owner(trial.path / "m" / "lost+found", FOREIGN_UID)
    trial.drop_privileges()


def mount_new_ext4(trial: TrialVolume) -> None:
    """Mount a fresh ext4 file system at the destination."""
    trial.stack.enter_context(mounts.mount_ext4(trial.path / "m", trial.directory / "image", 16 << 20))
    trial.replace_template(lambda template: (template / "m" / "lost+found").mkdir(mode=0o700, parents=True))


def lay_out_projected_volume(trial: TrialVolume) -> None:
    """Add the entries of a Kubernetes projected volume beside the model: symlinks to symlinks."""

    def put(template: Path) -> None:
        write_files(template / "m" / "..2026_11_21", {"ca.crt": b"theirs"})
        (template / "m" / "..data").symlink_to("..2026_11_21")
        (template / "m" / "ca.crt").symlink_to("..data/ca.crt")

    trial.replace_template(put)


def point_to_symlink(trial: TrialVolume) -> None:
    """Point to a symlink of the destination, dangling or not."""
    trial.lay_out()
    (trial.directory / "link").symlink_to("volume/m")
    trial.destination = str(trial.directory / "link")


def point_to_symlink_loop(trial: TrialVolume) -> None:
    """Point the destination below a symlink to itself."""
    trial.path.mkdir()
    (trial.directory / "link").symlink_to("link")
    trial.destination = str(trial.directory / "link" / "m")
    trial.heal = partial(setattr, trial, "destination", "")


def mount_destination(trial: TrialVolume) -> None:
    """Mount the destination itself: its file system differs from that of the parent directory."""
    trial.stack.enter_context(mounts.mount_tmpfs(trial.path / "m", "size=8m"))
    trial.lay_out()


def bind_mount_destination(trial: TrialVolume) -> None:
    """Bind-mount a directory of the same file system, under a name that the kernel's mount list escapes."""
    trial.path = trial.directory / "vo lüme"
    trial.lay_out()
    shutil.copytree(trial.path / "m", trial.directory / "real", symlinks=True)
    trial.stack.enter_context(mounts.bind_mount(trial.directory / "real", trial.path / "m"))


def bind_mount_file(trial: TrialVolume) -> None:
    """Bind-mount the old file alone: no rename can replace a mount point."""
    trial.lay_out()
    shutil.copy2(trial.path / "m", trial.directory / "real")
    mount = ExitStack()
    mount.enter_context(mounts.bind_mount(trial.directory / "real", trial.path / "m"))
    heal_later(trial, mount.close)


def mount_overlay(trial: TrialVolume) -> None:
    """Put the old model into a layer of the image: its directories cannot be renamed."""
    trial.stack.enter_context(mounts.mount_overlay(trial.path, trial.prepared.template, trial.directory / "upper"))


def mount_noexec(trial: TrialVolume) -> None:
    """Mount the volume with noexec, nosuid and nodev, the strictest usual options."""
    trial.mount_tmpfs("size=8m,noexec,nosuid,nodev")


def mount_fat(trial: TrialVolume) -> None:
    """Use a file system without owners, links and case."""
    trial.stack.enter_context(mounts.mount_vfat(trial.path, trial.directory / "image", 16 << 20))
    trial.lay_out()


def make_file_immutable(trial: TrialVolume) -> None:
    """Make a file of the old model immutable."""
    trial.lay_out()
    last = max(path for path in (trial.path / "m", *trial.path.rglob("weights/0.bin")) if path.is_file())
    mounts.run_privileged("chattr", "+i", str(last))
    heal_later(trial, partial(mounts.run_privileged, "chattr", "-i", str(last)))


def set_umask(umask: int, trial: TrialVolume) -> None:
    """Run the pull with a given umask."""
    trial.lay_out()
    trial.popen_options["umask"] = umask


def name_volume(name: str, trial: TrialVolume) -> None:
    """Give the volume a special name."""
    trial.path = trial.directory / name
    trial.lay_out()


def spell_destination(dest: str, trial: TrialVolume) -> None:
    """Spell the destination relative to the volume."""
    trial.lay_out()
    trial.destination = dest
    trial.popen_options["cwd"] = trial.path


def pull_into_working_directory(trial: TrialVolume) -> None:
    """Pull into the working directory, as `.`."""
    trial.lay_out()
    trial.destination = "."
    trial.popen_options["cwd"] = trial.path / "m"


def make_path_too_long(length: int, trial: TrialVolume) -> None:
    """Point the destination to a path of `length` bytes."""
    trial.path.mkdir()
    path = str(trial.directory / "long")
    while len(path) < length - len(LONG_NAME):
        path += f"/{LONG_NAME}"
    trial.destination = path + "/" + "m" * (length - len(path) - 1)
    trial.heal = partial(setattr, trial, "destination", "")


def _successful_case(
    fault: str, arrange: Callable[[TrialVolume], object], *scenes: str, says: tuple[str, ...] = ()
) -> DiskCase:
    """Return a case in which the pull succeeds."""
    return DiskCase(fault, arrange, (0,), scenes or DIRECTORIES, message_words=says)


CASES = [
    DiskCase("a read-only volume", mount_read_only, scenarios=EVERY_KIND, message_words=("Read-only", "writable")),
    DiskCase(
        "a volume of somebody else's",
        give_volume_away,
        scenarios=EVERY_KIND,
        message_words=("Permission denied", "fsGroup"),
    ),
    DiskCase(
        "a directory of somebody else's in the model",
        give_model_directory_away,
        scenarios=("mixed directory", "mixed tar.gz"),
    ),
    DiskCase("a directory that can be written, not listed", forbid_listing, (0, 73), must_heal=True),
    DiskCase(
        "a staging area of somebody else's",
        leave_foreign_staging_area,
        scenarios=("file", "directory"),
        message_words=("Permission",),
    ),
    DiskCase(
        "a file that cannot be changed",
        make_file_immutable,
        scenarios=("file", "mixed directory"),
        message_words=("not permitted",),
    ),
    _successful_case("a directory that cannot be exchanged", make_parent_read_only, "directory", "tar.gz"),
    _successful_case("somebody else's directory under a sticky one", set_sticky_bit),
    DiskCase(
        "a file where a directory must go",
        partial(put_conflict, "file"),
        scenarios=("new directory",),
        message_words=("file where",),
    ),
    DiskCase(
        "a directory where a file must go",
        partial(put_conflict, "directory"),
        scenarios=("new file",),
        message_words=("directory where",),
    ),
    DiskCase(
        "a foreign file where a file must go",
        partial(put_conflict, "file"),
        scenarios=("new file",),
        message_words=("in the way",),
    ),
    DiskCase("a FIFO where a file must go", put_fifo, scenarios=("new file",), message_words=("in the way",)),
    DiskCase(
        "a file in the destination's path",
        point_below_file,
        scenarios=("new file", "new directory"),
        message_words=("file where",),
    ),
    _successful_case(
        "lost+found of somebody else's", make_lost_and_found, "directory", "new directory", "mixed tar.gz"
    ),
    _successful_case("the root of a new ext4", mount_new_ext4, "new directory"),
    _successful_case("links as in a projected volume", lay_out_projected_volume),
    _successful_case("a link to the destination", point_to_symlink, "directory", "new directory", "new file"),
    DiskCase(
        "a link to itself", point_to_symlink_loop, scenarios=("new file", "new directory"), message_words=("link",)
    ),
    _successful_case("a mount point", mount_destination, "directory", "tar.gz", "mixed directory"),
    _successful_case("a mounted directory of the same file system", bind_mount_destination),
    DiskCase("a mounted file", bind_mount_file, message_words=("mount point", "Mount the directory above")),
    _successful_case(
        "an image's layer under an overlay", mount_overlay, "directory", "file", "mixed directory", "tar.gz"
    ),
    _successful_case("a volume without programs", mount_noexec, "directory"),
    DiskCase("a FAT volume", mount_fat, (0, 73), ("file", "directory")),
    _successful_case("umask 077", partial(set_umask, 0o077), *EVERY_KIND),
    _successful_case("umask 000", partial(set_umask, 0o000), *EVERY_KIND),
    _successful_case("a name with a space and an umlaut", partial(name_volume, "mö del s"), *EVERY_KIND),
    _successful_case("a name that is not UTF-8", partial(name_volume, "m\udcff"), *EVERY_KIND),
    _successful_case("a slash at the end", partial(spell_destination, "m/")),
    _successful_case("a relative path with dots", partial(spell_destination, "./none/../m"), *EVERY_KIND),
    _successful_case("the working directory", pull_into_working_directory),
    DiskCase(
        "a path that is too long",
        partial(make_path_too_long, 5000),
        (65,),
        ("new file", "new directory"),
        message_words=("too long",),
    ),
    DiskCase(
        "a path that leaves no room",
        partial(make_path_too_long, 4090),
        (65,),
        ("new file", "new directory"),
        message_words=("too long",),
    ),
]

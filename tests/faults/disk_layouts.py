"""Destinations as volumes really are: foreign, locked, mounted, linked, oddly named, or with something in the way."""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from testkit import mounts, tree
from tests.faults.disk_scenarios import DIRECTORIES, EVERY_KIND
from tests.faults.disk_trial import DiskCase, TrialVolume

FOREIGN_UID = 10001  # a uid that is not ours
LONG_NAME = "d" * 200


def change_owner(top: Path, uid: int) -> None:
    """Give a tree to somebody."""
    if os.geteuid() != 0:
        raise mounts.CannotMountError("only root may give files away")
    for path in (top, *top.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def heal_later(place: TrialVolume, undo: Callable[[], object]) -> None:
    """Do something before the next pull, or at the end at the latest."""
    stack = place.stack.enter_context(ExitStack())
    stack.callback(undo)
    place.heal = stack.close


def mount_read_only(place: TrialVolume) -> None:
    """Make the volume read-only, as a mount may be."""
    place.mount_tmpfs("size=8m")
    place.remount("ro")
    place.heal = partial(place.remount, "rw")


def give_volume_away(place: TrialVolume) -> None:
    """Let all of it belong to somebody else."""
    place.lay_out()
    change_owner(place.path, FOREIGN_UID)
    place.drop_privileges()
    place.heal = partial(change_owner, place.path, os.geteuid())


def give_model_directory_away(place: TrialVolume) -> None:
    """Let a directory in the model belong to somebody else, after all the others could be changed."""
    place.lay_out()
    change_owner(place.path / "m" / "weights", FOREIGN_UID)
    place.drop_privileges()
    place.heal = partial(change_owner, place.path, os.geteuid())


def make_parent_read_only(place: TrialVolume) -> None:
    """Let nobody write beside the destination: as under a `subPath`, or in a mount point."""
    place.lay_out()
    place.path.chmod(0o555)
    place.drop_privileges()
    place.stack.callback(place.path.chmod, 0o755)


def set_sticky_bit(place: TrialVolume) -> None:
    """Put somebody else's directory, which all may write to, into one like /tmp."""

    def open_to_all(template: Path) -> None:
        for path in (template / "m", *(template / "m").rglob("*")):
            if path.is_dir():
                path.chmod(0o777)

    place.replace_template(open_to_all)
    place.prepared.scenario.other_entries.pop("m/gone")  # which goes
    change_owner(place.path, FOREIGN_UID)
    place.path.chmod(0o1777)
    place.drop_privileges()
    place.stack.callback(change_owner, place.path, os.geteuid())


def forbid_listing(place: TrialVolume) -> None:
    """Let the directory be written to, but not read: its names cannot be flushed."""
    place.lay_out()
    change_owner(place.path, FOREIGN_UID)
    place.path.chmod(0o733)
    place.drop_privileges()
    place.heal = partial(place.path.chmod, 0o777)


def leave_foreign_staging_area(place: TrialVolume) -> None:
    """Leave somebody else's staging area, with a lock in it."""
    place.lay_out()
    tree.write(place.staging_area, {"0123456789abcdef.lock": b""})
    change_owner(place.staging_area, FOREIGN_UID)
    place.drop_privileges()
    place.heal = partial(shutil.rmtree, place.staging_area)


def put_conflict(kind: str, place: TrialVolume) -> None:
    """Let something else be where the model must go: a file, or a directory."""

    def put(template: Path) -> None:
        tree.write(template, {"m/m/x" if kind == "directory" else "m": b"theirs"})

    def away() -> None:
        shutil.rmtree(place.path)
        place.path.mkdir()
        place.prepared = before

    before = place.prepared
    place.replace_template(put)
    place.heal = away


def put_fifo(place: TrialVolume) -> None:
    """Let it be something that nobody can read."""
    place.path.mkdir()
    os.mkfifo(place.path / "m")
    place.heal = (place.path / "m").unlink


def point_below_file(place: TrialVolume) -> None:
    """Name a destination below a file."""
    (place.directory / "file").write_bytes(b"theirs")
    place.path.mkdir()
    place.destination = str(place.directory / "file" / "m")
    place.heal = partial(setattr, place, "dest", "")


def make_lost_and_found(place: TrialVolume) -> None:
    """Leave what mkfs leaves at the root of a volume: a directory that only its owner may look into."""

    def put(template: Path) -> None:
        (template / "m").mkdir(exist_ok=True)
        (template / "m" / "lost+found").mkdir(mode=0o700)

    place.replace_template(put)
    change_owner(place.path / "m" / "lost+found", FOREIGN_UID)
    place.drop_privileges()


def mount_new_ext4(place: TrialVolume) -> None:
    """Mount a fresh ext4 at the destination."""
    place.stack.enter_context(mounts.ext4(place.path / "m", place.directory / "image", 16 << 20))
    place.replace_template(lambda template: (template / "m" / "lost+found").mkdir(mode=0o700, parents=True))


def lay_out_projected_volume(place: TrialVolume) -> None:
    """Put beside the model what Kubernetes puts into a projected volume: links to links."""

    def put(template: Path) -> None:
        tree.write(template / "m" / "..2026_11_21", {"ca.crt": b"theirs"})
        (template / "m" / "..data").symlink_to("..2026_11_21")
        (template / "m" / "ca.crt").symlink_to("..data/ca.crt")

    place.replace_template(put)


def point_to_symlink(place: TrialVolume) -> None:
    """Name a link to the destination, which may not be there yet."""
    place.lay_out()
    (place.directory / "link").symlink_to("volume/m")
    place.destination = str(place.directory / "link")


def point_to_symlink_loop(place: TrialVolume) -> None:
    """Name a link to itself."""
    place.path.mkdir()
    (place.directory / "link").symlink_to("link")
    place.destination = str(place.directory / "link" / "m")
    place.heal = partial(setattr, place, "dest", "")


def mount_destination(place: TrialVolume) -> None:
    """Mount the destination itself: it is on another file system than the directory above it."""
    place.stack.enter_context(mounts.tmpfs(place.path / "m", "size=8m"))
    place.lay_out()


def bind_mount_destination(place: TrialVolume) -> None:
    """Mount a directory of the same file system, by a name that the kernel's list has to escape."""
    place.path = place.directory / "vo lüme"
    place.lay_out()
    shutil.copytree(place.path / "m", place.directory / "real", symlinks=True)
    place.stack.enter_context(mounts.bound(place.directory / "real", place.path / "m"))


def bind_mount_file(place: TrialVolume) -> None:
    """Mount the old file alone: nothing can be renamed over it."""
    place.lay_out()
    shutil.copy2(place.path / "m", place.directory / "real")
    mount = ExitStack()
    mount.enter_context(mounts.bound(place.directory / "real", place.path / "m"))
    heal_later(place, mount.close)


def mount_overlay(place: TrialVolume) -> None:
    """Let the old model be in a layer of the image: a directory of it cannot be renamed."""
    place.stack.enter_context(mounts.overlay(place.path, place.prepared.template, place.directory / "upper"))


def mount_noexec(place: TrialVolume) -> None:
    """Mount it as strictly as volumes are mounted."""
    place.mount_tmpfs("size=8m,noexec,nosuid,nodev")


def mount_fat(place: TrialVolume) -> None:
    """Use a file system that knows neither owners nor links, nor upper case."""
    place.stack.enter_context(mounts.vfat(place.path, place.directory / "image", 16 << 20))
    place.lay_out()


def make_file_immutable(place: TrialVolume) -> None:
    """Let a file of the old model be one that nobody may change."""
    place.lay_out()
    last = max(path for path in (place.path / "m", *place.path.rglob("weights/0.bin")) if path.is_file())
    mounts.run("chattr", "+i", str(last))
    heal_later(place, partial(mounts.run, "chattr", "-i", str(last)))


def set_umask(umask: int, place: TrialVolume) -> None:
    """Run with a umask."""
    place.lay_out()
    place.popen_options["umask"] = umask


def name_volume(name: str, place: TrialVolume) -> None:
    """Give the volume a name."""
    place.path = place.directory / name
    place.lay_out()


def spell_destination(dest: str, place: TrialVolume) -> None:
    """Spell the destination in a way, from within the volume."""
    place.lay_out()
    place.destination = dest
    place.popen_options["cwd"] = place.path


def pull_into_working_directory(place: TrialVolume) -> None:
    """Pull into the working directory."""
    place.lay_out()
    place.destination = "."
    place.popen_options["cwd"] = place.path / "m"


def make_path_too_long(length: int, place: TrialVolume) -> None:
    """Name a path of so many bytes."""
    place.path.mkdir()
    path = str(place.directory / "long")
    while len(path) < length - len(LONG_NAME):
        path += f"/{LONG_NAME}"
    place.destination = path + "/" + "m" * (length - len(path) - 1)
    place.heal = partial(setattr, place, "dest", "")


def _successful_case(
    fault: str, arrange: Callable[[TrialVolume], object], *scenes: str, says: tuple[str, ...] = ()
) -> DiskCase:
    """One under which the pull succeeds."""
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
        "a stranger's file where a file must go",
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

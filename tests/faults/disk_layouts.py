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

STRANGER = 10001  # a uid that is not ours
LONG = "d" * 200


def chown(top: Path, uid: int) -> None:
    """Give a tree to somebody."""
    if os.geteuid() != 0:
        raise mounts.CannotMountError("only root may give files away")
    for path in (top, *top.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def later(place: TrialVolume, undo: Callable[[], object]) -> None:
    """Do something before the next pull, or at the end at the latest."""
    stack = place.stack.enter_context(ExitStack())
    stack.callback(undo)
    place.heal = stack.close


def read_only(place: TrialVolume) -> None:
    """Make the volume read-only, as a mount may be."""
    place.mount_tmpfs("size=8m")
    place.remount("ro")
    place.heal = partial(place.remount, "rw")


def foreign(place: TrialVolume) -> None:
    """Let all of it belong to somebody else."""
    place.lay_out()
    chown(place.volume, STRANGER)
    place.drop_privileges()
    place.heal = partial(chown, place.volume, os.geteuid())


def foreign_inside(place: TrialVolume) -> None:
    """Let a directory in the model belong to somebody else, after all the others could be changed."""
    place.lay_out()
    chown(place.volume / "m" / "weights", STRANGER)
    place.drop_privileges()
    place.heal = partial(chown, place.volume, os.geteuid())


def locked(place: TrialVolume) -> None:
    """Let nobody write beside the destination: as under a `subPath`, or in a mount point."""
    place.lay_out()
    place.volume.chmod(0o555)
    place.drop_privileges()
    place.stack.callback(place.volume.chmod, 0o755)


def sticky(place: TrialVolume) -> None:
    """Put somebody else's directory, which all may write to, into one like /tmp."""

    def open_to_all(template: Path) -> None:
        for path in (template / "m", *(template / "m").rglob("*")):
            if path.is_dir():
                path.chmod(0o777)

    place.replace_template(open_to_all)
    place.prepared.scenario.other_entries.pop("m/gone")  # which goes
    chown(place.volume, STRANGER)
    place.volume.chmod(0o1777)
    place.drop_privileges()
    place.stack.callback(chown, place.volume, os.geteuid())


def not_listable(place: TrialVolume) -> None:
    """Let the directory be written to, but not read: its names cannot be flushed."""
    place.lay_out()
    chown(place.volume, STRANGER)
    place.volume.chmod(0o733)
    place.drop_privileges()
    place.heal = partial(place.volume.chmod, 0o777)


def left_by_another(place: TrialVolume) -> None:
    """Leave somebody else's staging area, with a lock in it."""
    place.lay_out()
    tree.write(place.staging_area, {"0123456789abcdef.lock": b""})
    chown(place.staging_area, STRANGER)
    place.drop_privileges()
    place.heal = partial(shutil.rmtree, place.staging_area)


def in_the_way(what: str, place: TrialVolume) -> None:
    """Let something else be where the model must go: a file, or a directory."""

    def put(template: Path) -> None:
        tree.write(template, {"m/m/x" if what == "directory" else "m": b"theirs"})

    def away() -> None:
        shutil.rmtree(place.volume)
        place.volume.mkdir()
        place.prepared = before

    before = place.prepared
    place.replace_template(put)
    place.heal = away


def fifo_in_the_way(place: TrialVolume) -> None:
    """Let it be something that nobody can read."""
    place.volume.mkdir()
    os.mkfifo(place.volume / "m")
    place.heal = (place.volume / "m").unlink


def through_a_file(place: TrialVolume) -> None:
    """Name a destination below a file."""
    (place.directory / "file").write_bytes(b"theirs")
    place.volume.mkdir()
    place.dest = str(place.directory / "file" / "m")
    place.heal = partial(setattr, place, "dest", "")


def lost_and_found(place: TrialVolume) -> None:
    """Leave what mkfs leaves at the root of a volume: a directory that only its owner may look into."""

    def put(template: Path) -> None:
        (template / "m").mkdir(exist_ok=True)
        (template / "m" / "lost+found").mkdir(mode=0o700)

    place.replace_template(put)
    chown(place.volume / "m" / "lost+found", STRANGER)
    place.drop_privileges()


def new_volume(place: TrialVolume) -> None:
    """Mount a fresh ext4 at the destination."""
    place.stack.enter_context(mounts.ext4(place.volume / "m", place.directory / "image", 16 << 20))
    place.replace_template(lambda template: (template / "m" / "lost+found").mkdir(mode=0o700, parents=True))


def config_map(place: TrialVolume) -> None:
    """Put beside the model what Kubernetes puts into a projected volume: links to links."""

    def put(template: Path) -> None:
        tree.write(template / "m" / "..2026_11_21", {"ca.crt": b"theirs"})
        (template / "m" / "..data").symlink_to("..2026_11_21")
        (template / "m" / "ca.crt").symlink_to("..data/ca.crt")

    place.replace_template(put)


def linked(place: TrialVolume) -> None:
    """Name a link to the destination, which may not be there yet."""
    place.lay_out()
    (place.directory / "link").symlink_to("volume/m")
    place.dest = str(place.directory / "link")


def looping(place: TrialVolume) -> None:
    """Name a link to itself."""
    place.volume.mkdir()
    (place.directory / "link").symlink_to("link")
    place.dest = str(place.directory / "link" / "m")
    place.heal = partial(setattr, place, "dest", "")


def mounted(place: TrialVolume) -> None:
    """Mount the destination itself: it is on another file system than the directory above it."""
    place.stack.enter_context(mounts.tmpfs(place.volume / "m", "size=8m"))
    place.lay_out()


def sub_path(place: TrialVolume) -> None:
    """Mount a directory of the same file system, by a name that the kernel's list has to escape."""
    place.volume = place.directory / "vo lüme"
    place.lay_out()
    shutil.copytree(place.volume / "m", place.directory / "real", symlinks=True)
    place.stack.enter_context(mounts.bound(place.directory / "real", place.volume / "m"))


def mounted_file(place: TrialVolume) -> None:
    """Mount the old file alone: nothing can be renamed over it."""
    place.lay_out()
    shutil.copy2(place.volume / "m", place.directory / "real")
    mount = ExitStack()
    mount.enter_context(mounts.bound(place.directory / "real", place.volume / "m"))
    later(place, mount.close)


def image_layer(place: TrialVolume) -> None:
    """Let the old model be in a layer of the image: a directory of it cannot be renamed."""
    place.stack.enter_context(mounts.overlay(place.volume, place.prepared.template, place.directory / "upper"))


def without_programs(place: TrialVolume) -> None:
    """Mount it as strictly as volumes are mounted."""
    place.mount_tmpfs("size=8m,noexec,nosuid,nodev")


def fat(place: TrialVolume) -> None:
    """Use a file system that knows neither owners nor links, nor upper case."""
    place.stack.enter_context(mounts.vfat(place.volume, place.directory / "image", 16 << 20))
    place.lay_out()


def immutable(place: TrialVolume) -> None:
    """Let a file of the old model be one that nobody may change."""
    place.lay_out()
    last = max(path for path in (place.volume / "m", *place.volume.rglob("weights/0.bin")) if path.is_file())
    mounts.run("chattr", "+i", str(last))
    later(place, partial(mounts.run, "chattr", "-i", str(last)))


def masked(umask: int, place: TrialVolume) -> None:
    """Run with a umask."""
    place.lay_out()
    place.popen_options["umask"] = umask


def named(name: str, place: TrialVolume) -> None:
    """Give the volume a name."""
    place.volume = place.directory / name
    place.lay_out()


def spelled(dest: str, place: TrialVolume) -> None:
    """Spell the destination in a way, from within the volume."""
    place.lay_out()
    place.dest = dest
    place.popen_options["cwd"] = place.volume


def here(place: TrialVolume) -> None:
    """Pull into the working directory."""
    place.lay_out()
    place.dest = "."
    place.popen_options["cwd"] = place.volume / "m"


def too_long(length: int, place: TrialVolume) -> None:
    """Name a path of so many bytes."""
    place.volume.mkdir()
    path = str(place.directory / "long")
    while len(path) < length - len(LONG):
        path += f"/{LONG}"
    place.dest = path + "/" + "m" * (length - len(path) - 1)
    place.heal = partial(setattr, place, "dest", "")


def _place(fault: str, arrange: Callable[[TrialVolume], object], *scenes: str, says: tuple[str, ...] = ()) -> DiskCase:
    """One under which the pull succeeds."""
    return DiskCase(fault, arrange, (0,), scenes or DIRECTORIES, message_words=says)


CASES = [
    DiskCase("a read-only volume", read_only, scenarios=EVERY_KIND, message_words=("Read-only", "writable")),
    DiskCase(
        "a volume of somebody else's", foreign, scenarios=EVERY_KIND, message_words=("Permission denied", "fsGroup")
    ),
    DiskCase(
        "a directory of somebody else's in the model", foreign_inside, scenarios=("mixed directory", "mixed tar.gz")
    ),
    DiskCase("a directory that can be written, not listed", not_listable, (0, 73), must_heal=True),
    DiskCase(
        "a staging area of somebody else's",
        left_by_another,
        scenarios=("file", "directory"),
        message_words=("Permission",),
    ),
    DiskCase(
        "a file that cannot be changed",
        immutable,
        scenarios=("file", "mixed directory"),
        message_words=("not permitted",),
    ),
    _place("a directory that cannot be exchanged", locked, "directory", "tar.gz"),
    _place("somebody else's directory under a sticky one", sticky),
    DiskCase(
        "a file where a directory must go",
        partial(in_the_way, "file"),
        scenarios=("new directory",),
        message_words=("file where",),
    ),
    DiskCase(
        "a directory where a file must go",
        partial(in_the_way, "directory"),
        scenarios=("new file",),
        message_words=("directory where",),
    ),
    DiskCase(
        "a stranger's file where a file must go",
        partial(in_the_way, "file"),
        scenarios=("new file",),
        message_words=("in the way",),
    ),
    DiskCase("a FIFO where a file must go", fifo_in_the_way, scenarios=("new file",), message_words=("in the way",)),
    DiskCase(
        "a file in the destination's path",
        through_a_file,
        scenarios=("new file", "new directory"),
        message_words=("file where",),
    ),
    _place("lost+found of somebody else's", lost_and_found, "directory", "new directory", "mixed tar.gz"),
    _place("the root of a new ext4", new_volume, "new directory"),
    _place("links as in a projected volume", config_map),
    _place("a link to the destination", linked, "directory", "new directory", "new file"),
    DiskCase("a link to itself", looping, scenarios=("new file", "new directory"), message_words=("link",)),
    _place("a mount point", mounted, "directory", "tar.gz", "mixed directory"),
    _place("a mounted directory of the same file system", sub_path),
    DiskCase("a mounted file", mounted_file, message_words=("mount point", "Mount the directory above")),
    _place("an image's layer under an overlay", image_layer, "directory", "file", "mixed directory", "tar.gz"),
    _place("a volume without programs", without_programs, "directory"),
    DiskCase("a FAT volume", fat, (0, 73), ("file", "directory")),
    _place("umask 077", partial(masked, 0o077), *EVERY_KIND),
    _place("umask 000", partial(masked, 0o000), *EVERY_KIND),
    _place("a name with a space and an umlaut", partial(named, "mö del s"), *EVERY_KIND),
    _place("a name that is not UTF-8", partial(named, "m\udcff"), *EVERY_KIND),
    _place("a slash at the end", partial(spelled, "m/")),
    _place("a relative path with dots", partial(spelled, "./none/../m"), *EVERY_KIND),
    _place("the working directory", here),
    DiskCase(
        "a path that is too long",
        partial(too_long, 5000),
        (65,),
        ("new file", "new directory"),
        message_words=("too long",),
    ),
    DiskCase(
        "a path that leaves no room",
        partial(too_long, 4090),
        (65,),
        ("new file", "new directory"),
        message_words=("too long",),
    ),
]

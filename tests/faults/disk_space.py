"""Volumes that are too small, or fill up while a pull is at work."""

import contextlib
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from testkit import mounts
from tests.faults.disk_scenarios import DIRECTORIES, EVERY_KIND, ZippedVersion
from tests.faults.disk_trial import RUN_SECONDS, DiskCase, TrialVolume
from tests.faults.scenarios import Scenario

KIB = 1024
BLOCK = 4096  # of a tmpfs
GROWING = ("tar.gz that grows", "zip that grows")


def blocks(files: Mapping[str, bytes]) -> int:
    """Bytes that files take on a tmpfs."""
    return sum(-(-len(data) // BLOCK) * BLOCK for data in files.values())


def old_size(scene: Scenario) -> int:
    """Bytes that the old model takes."""
    return blocks(scene.old.files) if scene.old else 0


def new_size(scene: Scenario) -> int:
    """Bytes that the new one takes while it is staged: of a zip, with the archive."""
    packed = len(scene.new.packed()) if isinstance(scene.new, ZippedVersion) else 0
    return blocks(scene.new.files) + packed


def small(share: float, place: TrialVolume) -> None:
    """Leave room for a share of the new model, beside the old one."""
    scene = place.prepared.scenario
    place.mount_tmpfs(f"size={old_size(scene) + int(share * new_size(scene)) // BLOCK * BLOCK + 2 * BLOCK}")
    place.heal = partial(place.remount, "size=16m")


def just_enough(place: TrialVolume) -> None:
    """Leave room for the new model and the notes about it, beside the old one."""
    scene = place.prepared.scenario
    place.mount_tmpfs(f"size={old_size(scene) + new_size(scene) + 16 * BLOCK}")


def few_inodes(place: TrialVolume) -> None:
    """Leave room for 30 files and directories more, all told."""
    place.mount_tmpfs("size=16m,nr_inodes=50")
    place.heal = partial(place.remount, "nr_inodes=1000")


def small_beneath(place: TrialVolume) -> None:
    """Mount a small volume at the destination, below a large one."""
    place.stack.enter_context(mounts.tmpfs(place.volume / "m", f"size={old_size(place.prepared.scenario) + 100 * KIB}"))
    place.lay_out()
    place.heal = partial(mounts.run, "mount", "-o", "remount,size=16m", str(place.volume / "m"))


def large_beneath(place: TrialVolume) -> None:
    """Mount a large volume at the destination, below a small one."""
    place.stack.enter_context(mounts.tmpfs(place.volume, "size=64k"))
    place.stack.enter_context(mounts.tmpfs(place.volume / "m", "size=16m"))
    place.lay_out()


def budget(most: int, place: TrialVolume) -> None:
    """Allow fewer bytes than the model has."""
    place.lay_out()
    place.args += ["--max-bytes", str(most)]
    place.heal = place.args.clear


def largest_file(place: TrialVolume) -> None:
    """Let no file become larger than a part of the model, as a quota of the process does."""
    place.lay_out()
    place.cli.prefix = ["prlimit", f"--fsize={400 * KIB}"]
    place.heal = place.cli.prefix.clear


def quota(place: TrialVolume) -> None:
    """Give the user a quota, where the kernel has them for tmpfs."""
    place.mount_tmpfs("size=16m,usrquota,usrquota_block_hardlimit=400k")
    place.drop_privileges()


def killed(place: TrialVolume) -> None:
    """Kill a pull in its midst, on a volume with room for one old model and one new."""
    assert place.proxy
    just_enough(place)
    much = max(map(len, place.prepared.scenario.new.files.values())) // 2
    place.proxy.add(**place.downloads, stall_after=much, times=None)
    running = place.cli.start("pull", place.prepared.uri, place.volume / "m", *place.args, env=place.env)
    place.proxy.wait_for(lambda: place.proxy is not None and place.proxy.sent() >= much)
    running.signal(signal.SIGKILL, RUN_SECONDS)
    place.proxy.clear()


def neighbour(place: TrialVolume) -> None:
    """Let somebody else fill the volume while the model comes."""
    assert place.proxy
    disk, scene = place.directory / "disk", place.prepared.scenario
    place.stack.enter_context(mounts.tmpfs(disk, f"size={old_size(scene) + new_size(scene) + 16 * BLOCK}"))
    place.volume = disk / "volume"
    place.lay_out()
    place.proxy.add(**place.downloads, before=partial(fill, disk / "theirs"), times=None)

    def heal() -> None:
        assert place.proxy
        place.proxy.clear()
        (disk / "theirs").unlink()

    place.heal = heal


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(BLOCK))


CASES = [
    DiskCase(
        "too little room",
        partial(small, 0.5),
        scenarios=EVERY_KIND[:-1],
        message_words=("bytes", "free", "space"),
        no_download=True,
    ),
    DiskCase(
        "too little room for a zip and its content",
        partial(small, 0.5),
        scenarios=EVERY_KIND[-1:],
        message_words=("space",),
    ),
    DiskCase(
        "too little room for small files",
        partial(small, 0.5),
        scenarios=("50 files",),
        message_words=("free",),
        no_download=True,
    ),
    DiskCase("too little room for what is unpacked", partial(small, 0.7), scenarios=GROWING, message_words=("free",)),
    DiskCase("too few inodes", few_inodes, scenarios=("50 files",), message_words=("inodes",), no_download=True),
    DiskCase(
        "too few inodes for what is unpacked", few_inodes, scenarios=("tar.gz of 50",), message_words=("No space",)
    ),
    DiskCase(
        "too little room below a large volume",
        small_beneath,
        scenarios=DIRECTORIES,
        message_words=("free",),
        no_download=True,
    ),
    DiskCase("a large volume below a small one", large_beneath, (0,), DIRECTORIES),
    DiskCase("room for just the old model and the new", just_enough, (0,), EVERY_KIND),
    DiskCase(
        "more than --max-bytes", partial(budget, 500 * KIB), (65,), EVERY_KIND, message_words=("MODELFETCH_MAX_BYTES",)
    ),
    DiskCase(
        "a limit on the size of a file",
        largest_file,
        scenarios=("file", "directory", "tar.gz"),
        message_words=("size",),
    ),
    DiskCase("a quota", quota, scenarios=("file",), message_words=("quota",)),
    DiskCase("killed, and room for just one new model", killed, (0,), ("large file", *DIRECTORIES, "zip")),
    DiskCase("filled up by a neighbour meanwhile", neighbour, (0, 73), EVERY_KIND),
]

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


def block_bytes(files: Mapping[str, bytes]) -> int:
    """Bytes that files take on a tmpfs."""
    return sum(-(-len(data) // BLOCK) * BLOCK for data in files.values())


def old_model_bytes(scenario: Scenario) -> int:
    """Bytes that the old model takes."""
    return block_bytes(scenario.old.files) if scenario.old else 0


def new_model_bytes(scenario: Scenario) -> int:
    """Bytes that the new one takes while it is staged: of a zip, with the archive."""
    packed = len(scenario.new.packed()) if isinstance(scenario.new, ZippedVersion) else 0
    return block_bytes(scenario.new.files) + packed


def limit_volume_size(share: float, place: TrialVolume) -> None:
    """Leave room for a share of the new model, beside the old one."""
    scene = place.prepared.scenario
    place.mount_tmpfs(
        f"size={old_model_bytes(scene) + int(share * new_model_bytes(scene)) // BLOCK * BLOCK + 2 * BLOCK}"
    )
    place.heal = partial(place.remount, "size=16m")


def leave_just_enough(place: TrialVolume) -> None:
    """Leave room for the new model and the notes about it, beside the old one."""
    scene = place.prepared.scenario
    place.mount_tmpfs(f"size={old_model_bytes(scene) + new_model_bytes(scene) + 16 * BLOCK}")


def limit_inodes(place: TrialVolume) -> None:
    """Leave room for 30 files and directories more, all told."""
    place.mount_tmpfs("size=16m,nr_inodes=50")
    place.heal = partial(place.remount, "nr_inodes=1000")


def mount_small_destination(place: TrialVolume) -> None:
    """Mount a small volume at the destination, below a large one."""
    place.stack.enter_context(
        mounts.tmpfs(place.path / "m", f"size={old_model_bytes(place.prepared.scenario) + 100 * KIB}")
    )
    place.lay_out()
    place.heal = partial(mounts.run, "mount", "-o", "remount,size=16m", str(place.path / "m"))


def mount_large_destination(place: TrialVolume) -> None:
    """Mount a large volume at the destination, below a small one."""
    place.stack.enter_context(mounts.tmpfs(place.path, "size=64k"))
    place.stack.enter_context(mounts.tmpfs(place.path / "m", "size=16m"))
    place.lay_out()


def limit_max_bytes(limit: int, place: TrialVolume) -> None:
    """Allow fewer bytes than the model has."""
    place.lay_out()
    place.args += ["--max-bytes", str(limit)]
    place.heal = place.args.clear


def limit_file_size(place: TrialVolume) -> None:
    """Let no file become larger than a part of the model, as a quota of the process does."""
    place.lay_out()
    place.cli.prefix = ["prlimit", f"--fsize={400 * KIB}"]
    place.heal = place.cli.prefix.clear


def set_quota(place: TrialVolume) -> None:
    """Give the user a quota, where the kernel has them for tmpfs."""
    place.mount_tmpfs("size=16m,usrquota,usrquota_block_hardlimit=400k")
    place.drop_privileges()


def kill_earlier_pull(place: TrialVolume) -> None:
    """Kill a pull in its midst, on a volume with room for one old model and one new."""
    assert place.proxy
    leave_just_enough(place)
    much = max(map(len, place.prepared.scenario.new.files.values())) // 2
    place.proxy.add(**place.downloads, stall_after=much, times=None)
    running = place.cli.start("pull", place.prepared.uri, place.path / "m", *place.args, env=place.env)
    place.proxy.wait_for(lambda: place.proxy is not None and place.proxy.sent() >= much)
    running.signal(signal.SIGKILL, RUN_SECONDS)
    place.proxy.clear()


def fill_meanwhile(place: TrialVolume) -> None:
    """Let somebody else fill the volume while the model comes."""
    assert place.proxy
    disk, scene = place.directory / "disk", place.prepared.scenario
    place.stack.enter_context(
        mounts.tmpfs(disk, f"size={old_model_bytes(scene) + new_model_bytes(scene) + 16 * BLOCK}")
    )
    place.path = disk / "volume"
    place.lay_out()
    place.proxy.add(**place.downloads, before=partial(fill_volume, disk / "theirs"), times=None)

    def heal() -> None:
        assert place.proxy
        place.proxy.clear()
        (disk / "theirs").unlink()

    place.heal = heal


def fill_volume(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(BLOCK))


CASES = [
    DiskCase(
        "too little room",
        partial(limit_volume_size, 0.5),
        scenarios=EVERY_KIND[:-1],
        message_words=("bytes", "free", "space"),
        no_download=True,
    ),
    DiskCase(
        "too little room for a zip and its content",
        partial(limit_volume_size, 0.5),
        scenarios=EVERY_KIND[-1:],
        message_words=("space",),
    ),
    DiskCase(
        "too little room for small files",
        partial(limit_volume_size, 0.5),
        scenarios=("50 files",),
        message_words=("free",),
        no_download=True,
    ),
    DiskCase(
        "too little room for what is unpacked",
        partial(limit_volume_size, 0.7),
        scenarios=GROWING,
        message_words=("free",),
    ),
    DiskCase("too few inodes", limit_inodes, scenarios=("50 files",), message_words=("inodes",), no_download=True),
    DiskCase(
        "too few inodes for what is unpacked", limit_inodes, scenarios=("tar.gz of 50",), message_words=("No space",)
    ),
    DiskCase(
        "too little room below a large volume",
        mount_small_destination,
        scenarios=DIRECTORIES,
        message_words=("free",),
        no_download=True,
    ),
    DiskCase("a large volume below a small one", mount_large_destination, (0,), DIRECTORIES),
    DiskCase("room for just the old model and the new", leave_just_enough, (0,), EVERY_KIND),
    DiskCase(
        "more than --max-bytes",
        partial(limit_max_bytes, 500 * KIB),
        (65,),
        EVERY_KIND,
        message_words=("MODELFETCH_MAX_BYTES",),
    ),
    DiskCase(
        "a limit on the size of a file",
        limit_file_size,
        scenarios=("file", "directory", "tar.gz"),
        message_words=("size",),
    ),
    DiskCase("a quota", set_quota, scenarios=("file",), message_words=("quota",)),
    DiskCase("killed, and room for just one new model", kill_earlier_pull, (0,), ("large file", *DIRECTORIES, "zip")),
    DiskCase("filled up by a neighbour meanwhile", fill_meanwhile, (0, 73), EVERY_KIND),
]

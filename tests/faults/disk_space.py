"""Volumes that are too small, or fill up while a pull is at work."""

import contextlib
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from testkit import mounts
from tests.faults.disk_scenarios import DIRECTORIES, EACH, Zipped
from tests.faults.disk_trial import SECONDS, Case, Place
from tests.faults.scenarios import Scene

KIB = 1024
BLOCK = 4096  # of a tmpfs
GROWING = ("tar.gz that grows", "zip that grows")


def blocks(files: Mapping[str, bytes]) -> int:
    """Bytes that files take on a tmpfs."""
    return sum(-(-len(data) // BLOCK) * BLOCK for data in files.values())


def old_size(scene: Scene) -> int:
    """Bytes that the old model takes."""
    return blocks(scene.old.files) if scene.old else 0


def new_size(scene: Scene) -> int:
    """Bytes that the new one takes while it is staged: of a zip, with the archive."""
    packed = len(scene.new.packed()) if isinstance(scene.new, Zipped) else 0
    return blocks(scene.new.files) + packed


def small(share: float, place: Place) -> None:
    """Leave room for a share of the new model, beside the old one."""
    scene = place.prepared.scene
    place.tmpfs(f"size={old_size(scene) + int(share * new_size(scene)) // BLOCK * BLOCK + 2 * BLOCK}")
    place.heal = partial(place.remount, "size=16m")


def just_enough(place: Place) -> None:
    """Leave room for the new model and the notes about it, beside the old one."""
    scene = place.prepared.scene
    place.tmpfs(f"size={old_size(scene) + new_size(scene) + 16 * BLOCK}")


def few_inodes(place: Place) -> None:
    """Leave room for 30 files and directories more, all told."""
    place.tmpfs("size=16m,nr_inodes=50")
    place.heal = partial(place.remount, "nr_inodes=1000")


def small_beneath(place: Place) -> None:
    """Mount a small volume at the destination, below a large one."""
    place.stack.enter_context(mounts.tmpfs(place.volume / "m", f"size={old_size(place.prepared.scene) + 100 * KIB}"))
    place.lay_out()
    place.heal = partial(mounts.run, "mount", "-o", "remount,size=16m", str(place.volume / "m"))


def large_beneath(place: Place) -> None:
    """Mount a large volume at the destination, below a small one."""
    place.stack.enter_context(mounts.tmpfs(place.volume, "size=64k"))
    place.stack.enter_context(mounts.tmpfs(place.volume / "m", "size=16m"))
    place.lay_out()


def budget(most: int, place: Place) -> None:
    """Allow fewer bytes than the model has."""
    place.lay_out()
    place.args += ["--max-bytes", str(most)]
    place.heal = place.args.clear


def largest_file(place: Place) -> None:
    """Let no file become larger than a part of the model, as a quota of the process does."""
    place.lay_out()
    place.cli.prefix = ["prlimit", f"--fsize={400 * KIB}"]
    place.heal = place.cli.prefix.clear


def quota(place: Place) -> None:
    """Give the user a quota, where the kernel has them for tmpfs."""
    place.tmpfs("size=16m,usrquota,usrquota_block_hardlimit=400k")
    place.ordinary()


def killed(place: Place) -> None:
    """Kill a pull in its midst, on a volume with room for one old model and one new."""
    assert place.proxy
    just_enough(place)
    much = max(map(len, place.prepared.scene.new.files.values())) // 2
    place.proxy.add(**place.downloads, stall_after=much, times=None)
    running = place.cli.start("pull", place.prepared.uri, place.volume / "m", *place.args, env=place.env)
    place.proxy.wait_for(lambda: place.proxy is not None and place.proxy.sent() >= much)
    running.signal(signal.SIGKILL, SECONDS)
    place.proxy.clear()


def neighbour(place: Place) -> None:
    """Let somebody else fill the volume while the model comes."""
    assert place.proxy
    disk, scene = place.at / "disk", place.prepared.scene
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
    Case("too little room", partial(small, 0.5), scenes=EACH[:-1], says=("bytes", "free", "space"), unasked=True),
    Case("too little room for a zip and its content", partial(small, 0.5), scenes=EACH[-1:], says=("space",)),
    Case("too little room for small files", partial(small, 0.5), scenes=("50 files",), says=("free",), unasked=True),
    Case("too little room for what is unpacked", partial(small, 0.7), scenes=GROWING, says=("free",)),
    Case("too few inodes", few_inodes, scenes=("50 files",), says=("inodes",), unasked=True),
    Case("too few inodes for what is unpacked", few_inodes, scenes=("tar.gz of 50",), says=("No space",)),
    Case("too little room below a large volume", small_beneath, scenes=DIRECTORIES, says=("free",), unasked=True),
    Case("a large volume below a small one", large_beneath, (0,), DIRECTORIES),
    Case("room for just the old model and the new", just_enough, (0,), EACH),
    Case("more than --max-bytes", partial(budget, 500 * KIB), (65,), EACH, says=("MODELFETCH_MAX_BYTES",)),
    Case("a limit on the size of a file", largest_file, scenes=("file", "directory", "tar.gz"), says=("size",)),
    Case("a quota", quota, scenes=("file",), says=("quota",)),
    Case("killed, and room for just one new model", killed, (0,), ("large file", *DIRECTORIES, "zip")),
    Case("filled up by a neighbour meanwhile", neighbour, (0, 73), EACH),
]

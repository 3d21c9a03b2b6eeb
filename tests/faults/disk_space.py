"""Volumes with too little space, from the start or filled during a pull."""

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
BLOCK = 4096  # bytes of a tmpfs block
GROWING = ("tar.gz that grows", "zip that grows")


def block_bytes(files: Mapping[str, bytes]) -> int:
    """Return the bytes of these files on a tmpfs."""
    return sum(-(-len(data) // BLOCK) * BLOCK for data in files.values())


def old_model_bytes(scenario: Scenario) -> int:
    """Return the bytes of the old model on a tmpfs."""
    return block_bytes(scenario.old.files) if scenario.old else 0


def new_model_bytes(scenario: Scenario) -> int:
    """Return the bytes of the new model while staged; a zip counts with its archive."""
    packed = len(scenario.new.pack_archive()) if isinstance(scenario.new, ZippedVersion) else 0
    return block_bytes(scenario.new.files) + packed


def limit_volume_size(share: float, trial: TrialVolume) -> None:
    """Leave space for a share of the new model, besides the old model."""
    scenario = trial.prepared.scenario
    trial.mount_tmpfs(
        f"size={old_model_bytes(scenario) + int(share * new_model_bytes(scenario)) // BLOCK * BLOCK + 2 * BLOCK}"
    )
    trial.heal = partial(trial.remount, "size=16m")


def leave_just_enough(trial: TrialVolume) -> None:
    """Leave space for the new model and its journal, besides the old model."""
    scenario = trial.prepared.scenario
    trial.mount_tmpfs(f"size={old_model_bytes(scenario) + new_model_bytes(scenario) + 16 * BLOCK}")


def limit_inodes(trial: TrialVolume) -> None:
    """Leave inodes for 30 more files and directories in all."""
    trial.mount_tmpfs("size=16m,nr_inodes=50")
    trial.heal = partial(trial.remount, "nr_inodes=1000")


def mount_small_destination(trial: TrialVolume) -> None:
    """Mount a small volume at the destination, on a large volume."""
    trial.stack.enter_context(
        mounts.mount_tmpfs(trial.path / "m", f"size={old_model_bytes(trial.prepared.scenario) + 100 * KIB}")
    )
    trial.lay_out()
    trial.heal = partial(mounts.run_privileged, "mount", "-o", "remount,size=16m", str(trial.path / "m"))


def mount_large_destination(trial: TrialVolume) -> None:
    """Mount a large volume at the destination, on a small volume."""
    trial.stack.enter_context(mounts.mount_tmpfs(trial.path, "size=64k"))
    trial.stack.enter_context(mounts.mount_tmpfs(trial.path / "m", "size=16m"))
    trial.lay_out()


def limit_max_bytes(limit: int, trial: TrialVolume) -> None:
    """Allow fewer bytes than the model has, with --max-bytes."""
    trial.lay_out()
    trial.args += ["--max-bytes", str(limit)]
    trial.heal = trial.args.clear


def limit_file_size(trial: TrialVolume) -> None:
    """Limit the size of a file to a part of the model, as RLIMIT_FSIZE does."""
    trial.lay_out()
    trial.cli.prefix = ["prlimit", f"--fsize={400 * KIB}"]
    trial.heal = trial.cli.prefix.clear


def set_quota(trial: TrialVolume) -> None:
    """Set a user quota, where the kernel supports quotas on tmpfs."""
    trial.mount_tmpfs("size=16m,usrquota,usrquota_block_hardlimit=400k")
    trial.drop_privileges()


def kill_earlier_pull(trial: TrialVolume) -> None:
    """Kill a pull halfway, on a volume with space for an old model and a new model only."""
    assert trial.proxy
    leave_just_enough(trial)
    much = max(map(len, trial.prepared.scenario.new.files.values())) // 2
    trial.proxy.add_rule(**trial.downloads, stall_after=much, times=None)
    running = trial.cli.start("pull", trial.prepared.uri, trial.path / "m", *trial.args, env=trial.env)
    trial.proxy.wait_for(lambda: trial.proxy is not None and trial.proxy.sent_bytes() >= much)
    running.send_signal(signal.SIGKILL, RUN_SECONDS)
    trial.proxy.clear()


def fill_meanwhile(trial: TrialVolume) -> None:
    """Fill the volume from another process while the model arrives."""
    assert trial.proxy
    disk, scenario = trial.directory / "disk", trial.prepared.scenario
    trial.stack.enter_context(
        mounts.mount_tmpfs(disk, f"size={old_model_bytes(scenario) + new_model_bytes(scenario) + 16 * BLOCK}")
    )
    trial.path = disk / "volume"
    trial.lay_out()
    trial.proxy.add_rule(**trial.downloads, before=partial(fill_volume, disk / "theirs"), times=None)

    def heal() -> None:
        assert trial.proxy
        trial.proxy.clear()
        (disk / "theirs").unlink()

    trial.heal = heal


def fill_volume(path: Path) -> None:
    """Write to a file until the volume is full."""
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

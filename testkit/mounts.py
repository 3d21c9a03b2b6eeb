"""File systems of a test's own, mounted for as long as it needs them; only root may."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotMountError(Exception):
    """There is no such file system here, or no right to mount it: a reason to skip."""


@contextmanager
def mount_at(point: Path, *how: str) -> Iterator[Path]:
    """What `mount` is told of in `how`, at `point`, which is made if it is not there.

    Raises:
        CannotMountError: mount(8) refuses.
    """
    if not point.exists():
        point.mkdir(parents=True)
    run_privileged("mount", *how, str(point))
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@contextmanager
def mount_tmpfs(point: Path, options: str = "size=64m") -> Iterator[Path]:
    """One in memory."""
    with mount_at(point, "-t", "tmpfs", "-o", options, "tmpfs") as here:
        yield here


@contextmanager
def bind_mount(source: Path, point: Path) -> Iterator[Path]:
    """A file or a directory under a second name, as Kubernetes mounts a `subPath`."""
    if source.is_file():
        point.touch()
    with mount_at(point, "--bind", str(source)) as here:
        yield here


@contextmanager
def mount_ext4(point: Path, image: Path, size: int, *options: str) -> Iterator[Path]:
    """One on a file of `size` bytes, as a new disk has it: with `lost+found`; `options` are mkfs's."""
    with image.open("wb") as file:
        file.truncate(size)
    if shutil.which("mkfs.ext4") is None:
        raise CannotMountError("there is no mkfs.ext4")
    run_privileged("mkfs.ext4", "-q", *options, str(image))
    with mount_at(point, "-o", "loop", str(image)) as here:
        yield here


@contextmanager
def mount_btrfs(point: Path, image: Path) -> Iterator[Path]:
    """One whose files have another device number than its mount."""
    with image.open("wb") as file:
        file.truncate(256 << 20)
    if shutil.which("mkfs.btrfs") is None:
        raise CannotMountError("there is no mkfs.btrfs")
    run_privileged("mkfs.btrfs", "-q", str(image))
    with mount_at(point, "-o", "loop", str(image)) as here:
        yield here


@contextmanager
def mount_vfat(point: Path, image: Path, size: int) -> Iterator[Path]:
    """One without hard links, owners and upper case."""
    with image.open("wb") as file:
        file.truncate(size)
    if shutil.which("mkfs.vfat") is None:
        raise CannotMountError("there is no mkfs.vfat")
    run_privileged("mkfs.vfat", str(image))
    with mount_at(point, "-o", "loop", str(image)) as here:
        yield here


@contextmanager
def mount_overlay(point: Path, lower: Path, upper: Path) -> Iterator[Path]:
    """One that shows `lower`, as an image's layer, and keeps changes in `upper`."""
    work = upper.with_name(upper.name + ".work")
    for directory in (upper, work):
        directory.mkdir(parents=True, exist_ok=True)
    with mount_at(point, "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay") as here:
        yield here


def run_privileged(*command: str) -> None:
    """Run what needs root.

    Raises:
        CannotMountError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMountError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")

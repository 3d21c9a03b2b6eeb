"""File systems mounted for one test; root only."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotMountError(Exception):
    """The file system is unavailable here, or mounting is not permitted: a reason to skip."""


@contextmanager
def mount_at(point: Path, *how: str) -> Iterator[Path]:
    """Mount at `point`, created if missing; `how` are the arguments of mount(8).

    Raises:
        CannotMountError: mount(8) fails.
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
    """Mount a file system in memory."""
    with mount_at(point, "-t", "tmpfs", "-o", options, "tmpfs") as here:
        yield here


@contextmanager
def bind_mount(source: Path, point: Path) -> Iterator[Path]:
    """Mount a file or directory under a second name, as Kubernetes mounts a `subPath`."""
    if source.is_file():
        point.touch()
    with mount_at(point, "--bind", str(source)) as here:
        yield here


@contextmanager
def mount_ext4(point: Path, image: Path, size: int, *options: str) -> Iterator[Path]:
    """Mount a fresh ext4 image of `size` bytes, with `lost+found`; `options` are mkfs's."""
    with image.open("wb") as file:
        file.truncate(size)
    if shutil.which("mkfs.ext4") is None:
        raise CannotMountError("mkfs.ext4 is not installed")
    run_privileged("mkfs.ext4", "-q", *options, str(image))
    with mount_at(point, "-o", "loop", str(image)) as here:
        yield here


@contextmanager
def mount_btrfs(point: Path, image: Path) -> Iterator[Path]:
    """Mount btrfs, whose files have another device number than their mount point."""
    with image.open("wb") as file:
        file.truncate(256 << 20)
    if shutil.which("mkfs.btrfs") is None:
        raise CannotMountError("mkfs.btrfs is not installed")
    run_privileged("mkfs.btrfs", "-q", str(image))
    with mount_at(point, "-o", "loop", str(image)) as here:
        yield here


@contextmanager
def mount_vfat(point: Path, image: Path, size: int) -> Iterator[Path]:
    """Mount vfat: no hard links, no owners, no case distinction."""
    with image.open("wb") as file:
        file.truncate(size)
    if shutil.which("mkfs.vfat") is None:
        raise CannotMountError("mkfs.vfat is not installed")
    run_privileged("mkfs.vfat", str(image))
    with mount_at(point, "-o", "loop", str(image)) as here:
        yield here


@contextmanager
def mount_overlay(point: Path, lower: Path, upper: Path) -> Iterator[Path]:
    """Mount an overlay of `lower`, an image's layer; changes go to `upper`."""
    work = upper.with_name(upper.name + ".work")
    for directory in (upper, work):
        directory.mkdir(parents=True, exist_ok=True)
    with mount_at(point, "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay") as here:
        yield here


def run_privileged(*command: str) -> None:
    """Run a command that needs root.

    Raises:
        CannotMountError: the command fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMountError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")

"""Packs a directory into an archive: the same bytes for the same files, whoever packs them and when."""

import contextlib
import gzip
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from modelfetch.errors import UsageError
from modelfetch.push.local_model import LocalModel, explain_read_errors
from modelfetch.safe_paths import is_archive_name
from modelfetch.volume.filesystem import disk_errors

_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3  # the tools' own defaults


def is_packable_name(name: str) -> bool:
    """Whether a directory that is to have this name is to be an archive.

    Raises:
        UsageError: of a kind that is not made.
    """
    if is_archive_name(name) and not name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")):
        raise UsageError(
            f"A directory cannot be packed into {name}.",
            hint="Name it .tar.zst, .tar.gz or .tar, or end the target with a slash to push the files as they are.",
        )
    return is_archive_name(name)


def pack_directory(model: LocalModel, archive: Path) -> None:
    """Write a directory's files and empty folders into `archive`, of the kind that its name says.

    Names, content and whether a file may be executed are kept; owners, times and other modes are not.

    Raises:
        DestinationError: there is no room for the archive.
        ChangedError: a file changed meanwhile.
        ModelfetchError: a file cannot be read.
    """
    with (
        disk_errors(archive),
        archive.open("wb") as file,
        _compressed(archive.name, file) as sink,
        tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for folder in model.folders:
            tar.addfile(_member(folder, tarfile.DIRTYPE, 0, executable=True))
        for obj in model.files:
            with model.unchanged(obj):
                _add(tar, Path(obj.key), obj.path, obj.size or 0)


def _add(tar: tarfile.TarFile, path: Path, name: str, size: int) -> None:
    with explain_read_errors(path):
        file = path.open("rb")
    with file:
        executable = bool(path.stat().st_mode & 0o100)
        tar.addfile(_member(name, tarfile.REGTYPE, size, executable=executable), file)


def _member(name: str, kind: bytes, size: int, *, executable: bool) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # of nobody, and of 1970
    member.type, member.size, member.mode = kind, size, 0o755 if executable else 0o644
    return member


@contextlib.contextmanager
def _compressed(name: str, file: BinaryIO) -> Iterator[Any]:
    if name.lower().endswith("gz"):
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
            yield packed
    elif name.lower().endswith("zst"):
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415

        setting = zstd.CompressionParameter
        options: dict[int, int] = {setting.compression_level: _ZSTD_LEVEL, setting.checksum_flag: 1}
        with zstd.ZstdFile(file, "wb", options=options) as packed:
            yield packed
    else:
        yield file

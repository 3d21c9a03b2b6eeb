"""Packing of a directory into a reproducible archive: same files, same bytes, independent of user and time."""

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

_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3  # defaults of the gzip and zstd tools


def is_packable_name(name: str) -> bool:
    """Return whether a directory pushed under this name becomes an archive.

    Raises:
        UsageError: the name ends in an archive suffix that `push` does not write.
    """
    if is_archive_name(name) and not name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")):
        raise UsageError(
            f"A directory cannot be packed into {name}.",
            hint="Name it .tar.zst, .tar.gz or .tar, or end the target with a slash to push the files as they are.",
        )
    return is_archive_name(name)


def pack_directory(model: LocalModel, archive: Path) -> None:
    """Write a directory's files and empty folders into `archive`; the suffix selects the format.

    Names, content and the executable bit are kept; owners, times and other mode bits are dropped.

    Raises:
        DestinationError: the disk has no room for the archive.
        ChangedError: a file changed while being packed.
        ModelfetchError: a file cannot be read.
    """
    with (
        disk_errors(archive),
        archive.open("wb") as file,
        _open_compressor(archive.name, file) as output,
        tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for folder in model.folders:
            tar.addfile(_build_member(folder, tarfile.DIRTYPE, 0, executable=True))
        for obj in model.files:
            with model.refuse_changes(obj):
                _add_file(tar, Path(obj.key), obj.path, obj.size or 0)


def _add_file(tar: tarfile.TarFile, path: Path, name: str, size: int) -> None:
    with explain_read_errors(path):
        file = path.open("rb")
    with file:
        executable = bool(path.stat().st_mode & 0o100)
        tar.addfile(_build_member(name, tarfile.REGTYPE, size, executable=executable), file)


def _build_member(name: str, type_flag: bytes, size: int, *, executable: bool) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # owner 0 and time 0 (1970), for the same bytes every time
    member.type, member.size, member.mode = type_flag, size, 0o755 if executable else 0o644
    return member


@contextlib.contextmanager
def _open_compressor(name: str, file: BinaryIO) -> Iterator[Any]:
    if name.lower().endswith("gz"):
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as compressor:
            yield compressor
    elif name.lower().endswith("zst"):
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415

        parameter = zstd.CompressionParameter
        options: dict[int, int] = {parameter.compression_level: _ZSTD_LEVEL, parameter.checksum_flag: 1}
        with zstd.ZstdFile(file, "wb", options=options) as compressor:
            yield compressor
    else:
        yield file

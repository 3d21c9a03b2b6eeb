"""Data of the benchmark: made once per directory from fixed seeds, and described in an index."""

import base64
import gzip
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import anycrc
import numpy as np
from backports import zstd

MIB, MB = 1024**2, 10**6
_PIECE = 4 * MIB
_PLAIN_ETAG = 8 * MIB  # bytes up to which the AWS tools upload in one piece
_COMPOSITE = 150 * MIB  # bytes from which gcloud composes an object from parts, without md5


@dataclass(frozen=True)
class Sizes:
    """Sizes of all objects, in bytes or files."""

    large: int = 2048 * MIB
    far: int = 1024 * MIB
    sparse: int = 20 * 1024 * MIB
    weights: int = 109_250_000  # of each of four files: 437 MB, 404 MB as tar.gz
    small_files: int = 2000
    shards: int = 30
    shard: int = 64 * MB
    tiny: int = 4_100_000


QUICK = Sizes(64 * MIB, 16 * MIB, 256 * MIB, 4 * MB, 200, 6, 4 * MB, 4_100_000)


@dataclass(frozen=True)
class StoredObject:
    """An object of the bucket with its metadata; checksums in hexadecimal."""

    key: str
    size: int
    sha256: str
    crc64nvme: str
    crc32c: str
    md5: str

    @property
    def etag(self) -> str:
        """Return the ETag of S3: the md5 of a single-part upload, else a digest with the number of parts."""
        if self.size <= _PLAIN_ETAG:
            return self.md5
        return f"{self.sha256[:32]}-{-(-self.size // _PLAIN_ETAG)}"

    @property
    def gcs_md5(self) -> str | None:
        """Return the md5 of Google Cloud Storage in base 64, or None for a composite object."""
        return None if self.size >= _COMPOSITE else encode_base64(self.md5)


def encode_base64(digest: str) -> str:
    """Encode a hexadecimal checksum as HTTP headers do."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def make_data(directory: Path, sizes: Sizes) -> list[StoredObject]:
    """Write the missing objects below `directory`, except the sparse object, which is made in the server's copy."""
    index = directory / "index.json"
    expected = asdict(sizes)
    if index.is_file() and (known := json.loads(index.read_text()))["sizes"] == expected:
        return [StoredObject(**each) for each in known["objects"]]
    part = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for folder in ("model", "small", "shards"):
        (part / folder).mkdir(parents=True)
    _write_files(part, sizes)
    objects = [_describe_file(path, part) for path in sorted(part.rglob("*")) if path.is_file()]
    objects.append(_describe_zeros("sparse.bin", sizes.sparse))
    (part / index.name).write_text(json.dumps({"sizes": expected, "objects": [asdict(each) for each in objects]}))
    if index.is_file():
        shutil.rmtree(directory)
    part.rename(directory)  # fails if another file or directory exists
    return objects


def copy_objects(directory: Path, objects: list[StoredObject], target: Path) -> None:
    """Copy the objects to the server's directory; the sparse object is made there."""
    for each in objects:
        place = target / each.key
        place.parent.mkdir(parents=True, exist_ok=True)
        if each.key == "sparse.bin":
            with place.open("wb") as file:
                file.truncate(each.size)
        else:
            shutil.copyfile(directory / each.key, place)


def _write_files(directory: Path, sizes: Sizes) -> None:
    _write_random(directory / "large.bin", sizes.large, 1)
    _write_random(directory / "far.bin", sizes.far, 2)
    _write_random(directory / "tiny.bin", sizes.tiny, 3)
    lengths = np.random.default_rng(4).integers(10_000, 50_000, sizes.small_files)
    for number, length in enumerate(lengths):
        _write_random(directory / f"small/part-{number:05}.bin", int(length), 1000 + number)
    for number in range(sizes.shards):
        _write_random(directory / f"shards/shard-{number:02}.bin", sizes.shard, 10 + number)
    for number in range(4):
        weights = np.random.default_rng(100 + number).standard_normal(sizes.weights // 4, np.float32) * np.float32(0.02)
        (directory / f"model/weights-{number}.bin").write_bytes(weights.tobytes())
    with gzip.GzipFile(directory / "model.tar.gz", "wb", compresslevel=6, mtime=0) as packed:
        _write_tar(directory / "model", packed)
    with zstd.ZstdFile(directory / "model.tar.zst", "wb") as squeezed:
        _write_tar(directory / "model", squeezed)


def _write_tar(folder: Path, out: "gzip.GzipFile | zstd.ZstdFile") -> None:
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=_normalise_member)


def _normalise_member(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove date, owner and mode: equal archives on every machine."""
    return member.replace(mtime=0, mode=0o644, uid=0, gid=0, uname="", gname="", deep=False)


def _write_random(path: Path, size: int, seed: int) -> None:
    random = np.random.Generator(np.random.SFC64(seed))
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(random.bytes(min(_PIECE, size - start)))


def _describe_file(path: Path, directory: Path) -> StoredObject:
    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    return _compute_checksums(str(path.relative_to(directory)), path.stat().st_size, pieces)


def _describe_zeros(key: str, size: int) -> StoredObject:
    zeros = bytes(_PIECE)
    return _compute_checksums(
        key, size, lambda: (zeros[: min(_PIECE, size - start)] for start in range(0, size, _PIECE))
    )


def _compute_checksums(key: str, size: int, pieces: Callable[[], Iterator[bytes]]) -> StoredObject:
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False)
    crc64nvme, crc32c = anycrc.Model("CRC64-NVME"), anycrc.Model("CRC32C")
    crc64 = crc32 = 0
    for piece in pieces():
        sha256.update(piece)
        crc64, crc32 = crc64nvme.calc(piece, crc64), crc32c.calc(piece, crc32)
        if size < _COMPOSITE:
            md5.update(piece)
    return StoredObject(key, size, sha256.hexdigest(), f"{crc64:016x}", f"{crc32:08x}", md5.hexdigest())

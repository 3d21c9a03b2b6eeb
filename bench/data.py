"""The data that is fetched: made once per directory, from fixed seeds, and described in an index."""

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
_COMPOSITE = 150 * MIB  # bytes from which gcloud uploads parts and composes them: such objects have no md5


@dataclass(frozen=True)
class Sizes:
    """How much of everything; numbers are bytes or files."""

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
class Object:
    """One object of the bucket, and what a store would say of it; checksums in hexadecimal."""

    key: str
    size: int
    sha256: str
    crc64nvme: str
    crc32c: str
    md5: str

    @property
    def etag(self) -> str:
        """As S3 has it: the md5 of an upload in one piece; of an upload in parts, something else with their number."""
        if self.size <= _PLAIN_ETAG:
            return self.md5
        return f"{self.sha256[:32]}-{-(-self.size // _PLAIN_ETAG)}"

    @property
    def gcs_md5(self) -> str | None:
        """As Google Cloud Storage has it, in base 64."""
        return None if self.size >= _COMPOSITE else base64_of(self.md5)


def base64_of(digest: str) -> str:
    """A hexadecimal checksum as HTTP headers have it."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def make(directory: Path, sizes: Sizes) -> list[Object]:
    """Write what is not there yet below `directory`, except for the sparse object, which takes no room elsewhere."""
    index = directory / "index.json"
    wanted = asdict(sizes)
    if index.is_file() and (known := json.loads(index.read_text()))["sizes"] == wanted:
        return [Object(**each) for each in known["objects"]]
    part = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for folder in ("model", "small", "shards"):
        (part / folder).mkdir(parents=True)
    _write(part, sizes)
    objects = [_described(path, part) for path in sorted(part.rglob("*")) if path.is_file()]
    objects.append(_described_zeros("sparse.bin", sizes.sparse))
    (part / index.name).write_text(json.dumps({"sizes": wanted, "objects": [asdict(each) for each in objects]}))
    if index.is_file():
        shutil.rmtree(directory)
    part.rename(directory)  # fails if something else is there
    return objects


def copy(directory: Path, objects: list[Object], target: Path) -> None:
    """Put the objects where a server finds them; the sparse one is made there."""
    for each in objects:
        place = target / each.key
        place.parent.mkdir(parents=True, exist_ok=True)
        if each.key == "sparse.bin":
            with place.open("wb") as file:
                file.truncate(each.size)
        else:
            shutil.copyfile(directory / each.key, place)


def _write(directory: Path, sizes: Sizes) -> None:
    _random(directory / "large.bin", sizes.large, 1)
    _random(directory / "far.bin", sizes.far, 2)
    _random(directory / "tiny.bin", sizes.tiny, 3)
    lengths = np.random.default_rng(4).integers(10_000, 50_000, sizes.small_files)
    for number, length in enumerate(lengths):
        _random(directory / f"small/part-{number:05}.bin", int(length), 1000 + number)
    for number in range(sizes.shards):
        _random(directory / f"shards/shard-{number:02}.bin", sizes.shard, 10 + number)
    for number in range(4):
        weights = np.random.default_rng(100 + number).standard_normal(sizes.weights // 4, np.float32) * np.float32(0.02)
        (directory / f"model/weights-{number}.bin").write_bytes(weights.tobytes())
    with gzip.GzipFile(directory / "model.tar.gz", "wb", compresslevel=6, mtime=0) as packed:
        _tar(directory / "model", packed)
    with zstd.ZstdFile(directory / "model.tar.zst", "wb") as squeezed:
        _tar(directory / "model", squeezed)


def _tar(folder: Path, out: "gzip.GzipFile | zstd.ZstdFile") -> None:
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=_undated)


def _undated(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same archive, whoever makes it and when."""
    return member.replace(mtime=0, mode=0o644, uid=0, gid=0, uname="", gname="", deep=False)


def _random(path: Path, size: int, seed: int) -> None:
    random = np.random.Generator(np.random.SFC64(seed))
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(random.bytes(min(_PIECE, size - start)))


def _described(path: Path, directory: Path) -> Object:
    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    return _object(str(path.relative_to(directory)), path.stat().st_size, pieces)


def _described_zeros(key: str, size: int) -> Object:
    zeros = bytes(_PIECE)
    return _object(key, size, lambda: (zeros[: min(_PIECE, size - start)] for start in range(0, size, _PIECE)))


def _object(key: str, size: int, pieces: Callable[[], Iterator[bytes]]) -> Object:
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False)
    crc64nvme, crc32c = anycrc.Model("CRC64-NVME"), anycrc.Model("CRC32C")
    crc64 = crc32 = 0
    for piece in pieces():
        sha256.update(piece)
        crc64, crc32 = crc64nvme.calc(piece, crc64), crc32c.calc(piece, crc32)
        if size < _COMPOSITE:
            md5.update(piece)
    return Object(key, size, sha256.hexdigest(), f"{crc64:016x}", f"{crc32:08x}", md5.hexdigest())

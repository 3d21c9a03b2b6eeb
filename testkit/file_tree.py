"""Reproducible random bytes, and trees of files as plain dictionaries."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECEIPT_NAME = ".modelfetch-receipt"
MANIFEST_NAME = ".modelfetch-manifest"
STAGING_NAME = ".modelfetch"


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Return incompressible bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def sha256_hex(data: bytes) -> str:
    """Return the sha256 digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below `root`, creating parent directories."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def read_files(root: Path) -> dict[str, bytes]:
    """Return the files below `root` by relative path, without receipts."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in files if not path.name.endswith(RECEIPT_NAME)
    }


def directory_digest(files: Mapping[str, bytes]) -> str:
    """Return the digest that a directory's receipt must have: of the sorted output of `sha256sum`."""
    lines = "".join(f"{sha256_hex(data)}  {name}\n" for name, data in sorted(files.items()))
    return f"sha256:{sha256_hex(lines.encode())}"


def manifest_json(files: Mapping[str, bytes], *, directory: bool = True, **others: Any) -> bytes:
    """Return the manifest that a push of these files writes; `others` are fields to add or replace."""
    listed = [{"path": name, "size": len(data), "sha256": sha256_hex(data)} for name, data in files.items()]
    own = directory_digest(files) if directory else "".join(f"sha256:{one['sha256']}" for one in listed)
    return json.dumps({"schema": 1, "complete": True, "digest": own, "files": listed, **others}).encode()


def pack_tar(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive, the same for the same files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def pack_tar_gz(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive compressed with gzip, the same for the same files."""
    return gzip.compress(pack_tar(files), compresslevel=1, mtime=0)

"""A memory cgroup, where this machine allows the creation."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@contextmanager
def limit_memory(limit_bytes: int) -> Iterator[Path | None]:
    """Yield a cgroup of `limit_bytes`, page cache included, or None if none can be made."""
    try:
        place = _make_cgroup(limit_bytes)
    except OSError:
        yield None
        return
    try:
        yield place
    finally:
        with contextlib.suppress(OSError):
            place.rmdir()


def _make_cgroup(limit_bytes: int) -> Path:
    root, limit = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
    place = root / "modelfetch-bench"
    place.mkdir(exist_ok=True)
    try:
        (place / limit).write_text(str(limit_bytes))
    except OSError:
        place.rmdir()
        raise
    return place

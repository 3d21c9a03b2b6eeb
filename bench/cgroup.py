"""A memory cgroup, where this machine lets us make one."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@contextmanager
def limited(most: int) -> Iterator[Path | None]:
    """A cgroup of `most` bytes, page cache included; None if none can be made."""
    try:
        place = _make(most)
    except OSError:
        yield None
        return
    try:
        yield place
    finally:
        with contextlib.suppress(OSError):
            place.rmdir()


def _make(most: int) -> Path:
    root, limit = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
    place = root / "modelfetch-bench"
    place.mkdir(exist_ok=True)
    try:
        (place / limit).write_text(str(most))
    except OSError:
        place.rmdir()
        raise
    return place

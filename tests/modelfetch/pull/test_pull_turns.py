"""Pulls to one destination, one after the other: the newest version stays."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import ChangedError
from modelfetch.progress import SilentProgress
from modelfetch.pull import pull as use_case
from modelfetch.pull.fetch import fetch_model
from modelfetch.pull.options import PullOptions
from modelfetch.pull.pull import pull_plan, resolve
from modelfetch.sources import Listing, SourceOptions, parse_uri
from modelfetch.sources.file import FileSource
from modelfetch.volume.destination import locate_destination
from modelfetch.volume.staging import lock_staging_area


class VersionedFile(FileSource):
    """A store that keeps every version of an object, as files `v1`, `v2` of a directory."""

    def __init__(self, versions: Path) -> None:
        super().__init__(parse_uri(str(versions / "v1")), SourceOptions())
        self._versions = versions
        self.newest = "v1"

    def resolve(self) -> Listing:
        """Find the newest version, under one name."""
        listing = FileSource(parse_uri(str(self._versions / self.newest)), SourceOptions()).resolve()
        return listing._replace(objects=tuple(obj._replace(path="m") for obj in listing.objects))


class NotedProgress(SilentProgress):
    """Calls a function when the pull reports that another pull is at work."""

    def __init__(self, on_wait: Callable[[], object]) -> None:
        self._on_wait = on_wait

    def log_info(self, message: str, **_: object) -> None:
        """See `Progress.log_info`."""
        if message.startswith("Waiting:"):
            self._on_wait()


@pytest.fixture
def store(tmp_path: Path) -> VersionedFile:
    """Return a store with two versions, of which the first is the newest so far."""
    (tmp_path / "store").mkdir()
    for version in ("v1", "v2"):
        (tmp_path / "store" / version).write_text(version)
    return VersionedFile(tmp_path / "store")


def test_pull_that_waited_publishes_the_version_stored_meanwhile(tmp_path: Path, store: VersionedFile) -> None:
    """The plan was made before the wait; the other pull may have published a newer version."""
    place = locate_destination(str(tmp_path / "m"), "m", directory=False, archive=False)
    planned = resolve(store, PullOptions())
    with ExitStack() as other_pull:
        other_pull.enter_context(lock_staging_area(place.staging_parent, place.name, lambda: None))

        def store_newer_version() -> None:
            store.newest = "v2"
            other_pull.close()

        pull_plan(store, planned, str(tmp_path / "m"), PullOptions(), NotedProgress(store_newer_version))

    assert (tmp_path / "m").read_text() == "v2"


def test_pull_that_waited_begins_again_when_the_model_became_a_directory(tmp_path: Path, store: VersionedFile) -> None:
    """The lock of a file is not the lock of a directory."""
    place = locate_destination(str(tmp_path / "m"), "m", directory=False, archive=False)
    planned = resolve(store, PullOptions())
    (tmp_path / "store" / "v3").mkdir()
    (tmp_path / "store" / "v3" / "m").touch()
    with ExitStack() as other_pull:
        other_pull.enter_context(lock_staging_area(place.staging_parent, place.name, lambda: None))

        def store_directory() -> None:
            store.newest = "v3/"
            other_pull.close()

        with pytest.raises(ChangedError, match="another kind"):
            pull_plan(store, planned, str(tmp_path / "m"), PullOptions(), NotedProgress(store_directory))


def test_pull_begins_again_when_another_published_meanwhile(
    tmp_path: Path, store: VersionedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pulls whose locks do not exclude each other: the older plan is not published over the newer model."""
    dest = str(tmp_path / "m")
    planned = resolve(store, PullOptions())

    def fetch_while_another_publishes(source: Any, plan: Any, staging: Any, *rest: Any) -> Any:
        staged = fetch_model(source, plan, staging, *rest)
        monkeypatch.setattr(use_case, "fetch_model", fetch_model)
        monkeypatch.setattr(use_case, "lock_staging_area", _lock_elsewhere(tmp_path / "elsewhere"))
        store.newest = "v2"
        pull_plan(store, resolve(store, PullOptions()), dest, PullOptions(), SilentProgress())
        return staged

    monkeypatch.setattr(use_case, "fetch_model", fetch_while_another_publishes)
    with pytest.raises(ChangedError, match="Another pull published"):
        pull_plan(store, planned, dest, PullOptions(), SilentProgress())

    assert (tmp_path / "m").read_text() == "v2"


def _lock_elsewhere(parent: Path) -> Callable[..., Any]:
    """Return a lock that another node would take: the holder of the true lock is not seen."""
    return lambda _, name, on_wait, __=(): lock_staging_area(lambda: parent, name, on_wait)

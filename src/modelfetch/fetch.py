"""Brings a plan's bytes into the staging area, verified: files side by side, or the members of an archive."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelfetch import integrity, publish
from modelfetch.archive import Budget, gunzip, unpack
from modelfetch.disk import disk_errors
from modelfetch.errors import DestinationError, MismatchError, WrongBytesError
from modelfetch.integrity import Fingerprint
from modelfetch.journal import Journal
from modelfetch.plan import Plan
from modelfetch.progress import Progress
from modelfetch.receipt import FileEntry, Packed
from modelfetch.sources import RemoteObject, Source
from modelfetch.stage import Stage
from modelfetch.transfer import Limits, Window, download
from modelfetch.wire import Wire


@dataclass(frozen=True)
class Fetched:
    """What stands in the staging area.

    Attributes:
        files: every file.
        checks: the names of the checks that every object passed.
        bytes: of the objects as stored.
        resumed: how many of them an earlier run had brought.
        retries: requests that had to be repeated.
        archive: what the files were unpacked from.
    """

    files: tuple[FileEntry, ...]
    checks: tuple[str, ...]
    bytes: int
    resumed: int
    retries: int
    archive: Packed | None = None


def fetch(
    source: Source, wanted: Plan, stage: Stage, budget: Budget, pin: str | None, limits: Limits, watch: Progress
) -> Fetched:
    """Bring what is wanted into the stage's tree; what arrives damaged is fetched once more from scratch.

    Raises:
        WrongBytesError: it is damaged, hostile, not the pinned one, or too much.
        DestinationError: no room, or the disk fails.
        ModelfetchError: the source fails.
    """
    try:
        return _fetch(source, wanted, stage, budget, pin, limits, watch)
    except MismatchError as error:
        watch.warn(f"{error.message} Fetching it once more from scratch.", reason=error.reason)
        stage.clear()
        watch.begin(f"Fetching {wanted.uri} once more", wanted.size or None)
    except DestinationError:
        _free(stage)
        raise
    try:
        again = _fetch(source, wanted, stage, budget, pin, limits, watch)
    except (MismatchError, DestinationError):
        _free(stage)
        raise
    return replace(again, retries=again.retries + 1)


def _free(stage: Stage) -> None:
    """Leave nothing of what cannot be used again, or of what has filled the disk."""
    with contextlib.suppress(DestinationError):
        stage.clear()


def _fetch(
    source: Source, wanted: Plan, stage: Stage, budget: Budget, pin: str | None, limits: Limits, watch: Progress
) -> Fetched:
    journal = stage.journal(wanted.ident)
    wire = Wire(source, watch.advance)
    try:
        _require_room(wanted, stage)
        _make_folders(wanted, stage)
        if not wanted.archive:
            return _files(wire, wanted, stage, journal, budget, pin, limits)
        (packed,) = wanted.objects
        if packed.gzip or packed.size is None or not packed.ranges:
            return _stored_archive(wire, packed, stage, journal, budget, pin, limits)
        return _streamed_archive(wire, packed, stage, budget, pin, limits)
    finally:
        wire.close()
        journal.close()


def _require_room(wanted: Plan, stage: Stage) -> None:
    """Refuse before the first byte what cannot fit; what an earlier run brought has its room already."""
    with disk_errors(stage.work):
        there = sum(path.stat().st_blocks * 512 for path in stage.tree.rglob("*") if path.is_file())
        free = publish.free_bytes(stage.work)
    needed = wanted.size - there
    if needed > free:
        raise DestinationError(
            f"{wanted.uri} needs {needed} bytes; {free} are free at {stage.work.parent.parent}.",
            hint="Free some space, or give the volume a larger size.",
        )


def _make_folders(wanted: Plan, stage: Stage) -> None:
    for folder in wanted.folders:
        with disk_errors(folder):
            (stage.tree / folder).mkdir(parents=True, exist_ok=True)


def _files(
    wire: Wire, wanted: Plan, stage: Stage, journal: Journal, budget: Budget, pin: str | None, limits: Limits
) -> Fetched:
    files: list[FileEntry] = []
    checks: list[tuple[str, ...]] = []
    sizes: list[tuple[int, int]] = []
    single_pin = None if wanted.directory else pin
    turn = threading.Lock()

    def arrived(obj: RemoteObject, came: Fingerprint, resumed: int) -> None:
        decoded = [_decode(stage, obj, budget)] if obj.gzip else []
        made = _verified(obj, came, single_pin, [entry.sha256 for entry in decoded])
        with turn:
            files.extend(decoded or [FileEntry(obj.path, came.size, came.sha256)])
            if came.size:  # nothing was asked for an empty file
                checks.append(made)
            sizes.append((came.size, resumed))

    download(wire, wanted.objects, stage.tree, journal, limits, arrived)
    return Fetched(
        files=tuple(sorted(files, key=lambda f: f.path)),
        checks=_common(checks),
        bytes=sum(size for size, _ in sizes),
        resumed=sum(resumed for _, resumed in sizes),
        retries=wire.retries,
    )


def _verified(obj: RemoteObject, came: Fingerprint, pin: str | None, decoded: Sequence[str] = ()) -> tuple[str, ...]:
    """The checks that an object passed: those of the store, and the caller's pin of its stored or decoded bytes."""
    made = integrity.verify(obj.key, came, size=obj.size, expected=obj.checksums)
    if came.size == 0 and obj.size is None:
        raise WrongBytesError(f"{obj.key} is empty: 0 bytes.", hint="Upload the model again.")
    if pin is None:
        return made
    integrity.verify_pin(obj.key, pin, [came.sha256, *decoded])
    return (*made, "pin")


def _common(checks: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The checks that were made of every file."""
    return tuple(name for name in checks[0] if all(name in made for made in checks)) if checks else ("size",)


def _decode(stage: Stage, obj: RemoteObject, budget: Budget) -> FileEntry:
    """Replace a file by its gzip-decoded content."""
    path = stage.tree / obj.path
    plain = path.with_name(f".modelfetch-{threading.get_ident()}")
    member = gunzip(path, plain, budget)
    with disk_errors(path):
        plain.replace(path)
    return FileEntry(obj.path, member.size, member.sha256)


def _streamed_archive(
    wire: Wire, packed: RemoteObject, stage: Stage, budget: Budget, pin: str | None, limits: Limits
) -> Fetched:
    """Unpack while it downloads: nothing of the archive itself touches the disk."""
    stage.restart()
    window = Window(wire, packed, limits)
    try:
        files = _unpack(window, packed, stage, budget)
        made = _verified(packed, window.fingerprint(), pin)
    finally:
        window.close()
    return _unpacked(files, packed, window.fingerprint(), made, wire.retries)


def _unpack(window: Window, packed: RemoteObject, stage: Stage, budget: Budget) -> tuple[FileEntry, ...]:
    try:
        members = unpack(window, packed.path, stage.tree, scratch=stage.scratch, budget=budget)
    except WrongBytesError:
        # What looks like a bad archive may be a good one that arrived damaged: the rest of its bytes tells.
        while packed.checksums and window.read(1 << 20):
            pass
        if packed.checksums:
            integrity.verify(packed.key, window.fingerprint(), size=packed.size, expected=packed.checksums)
        raise
    return tuple(FileEntry(m.path, m.size, m.sha256, m.link) for m in members)


def _stored_archive(
    wire: Wire, packed: RemoteObject, stage: Stage, journal: Journal, budget: Budget, pin: str | None, limits: Limits
) -> Fetched:
    """Fetch the archive as a file first: its server has no ranges, or it is stored in another encoding."""
    arrivals: list[tuple[RemoteObject, Fingerprint, int]] = []
    download(wire, [packed], stage.tree, journal, limits, lambda *arrival: arrivals.append(arrival))
    ((_, came, _),) = arrivals
    made = _verified(packed, came, pin)
    file = stage.work / "archive"
    with disk_errors(file):
        (stage.tree / packed.path).replace(file)
    stage.restart()
    try:
        if packed.gzip:
            gunzip(file, stage.scratch, budget)
            with disk_errors(file):
                stage.scratch.replace(file)
        with disk_errors(file), file.open("rb") as stream:
            members = unpack(stream, packed.path, stage.tree, scratch=stage.scratch, budget=budget)
    finally:
        with disk_errors(file):
            file.unlink(missing_ok=True)
    files = tuple(FileEntry(m.path, m.size, m.sha256, m.link) for m in members)
    return _unpacked(files, packed, came, made, wire.retries)


def _unpacked(
    files: tuple[FileEntry, ...], packed: RemoteObject, came: Fingerprint, made: tuple[str, ...], retries: int
) -> Fetched:
    archive = Packed(packed.path, came.size, came.sha256)
    return Fetched(files, made, came.size, resumed=0, retries=retries, archive=archive)

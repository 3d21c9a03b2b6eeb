"""Brings a plan's bytes into the staging area, verified: files side by side, or the members of an archive."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from modelfetch import checksums, safe_paths
from modelfetch.archive import Budget, extract_archive, gunzip_file
from modelfetch.checksums import Fingerprint
from modelfetch.errors import (
    BudgetError,
    DestinationError,
    MismatchError,
    ModelfetchError,
    SignatureError,
    WrongBytesError,
)
from modelfetch.plan import Plan
from modelfetch.progress import Progress
from modelfetch.provenance.signature_check import check_signed_files
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer.adaptive_pool import TransferLimits
from modelfetch.transfer.download import download
from modelfetch.transfer.range_reader import RangeReader
from modelfetch.transfer.readahead import ReadAhead
from modelfetch.volume import filesystem
from modelfetch.volume.filesystem import disk_errors
from modelfetch.volume.receipt import ArchiveEntry, FileEntry
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staging import StagingArea


class StagedModel(NamedTuple):
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
    archive: ArchiveEntry | None = None


def fetch(
    source: Source,
    wanted: Plan,
    stage: StagingArea,
    budget: Budget,
    pin: str | None,
    limits: TransferLimits,
    progress: Progress,
) -> StagedModel:
    """Bring what is wanted into the stage's tree; what arrives damaged is fetched once more from scratch.

    Raises:
        WrongBytesError: it is damaged, hostile, not the pinned one, or too much.
        DestinationError: no room, or the disk fails.
        ModelfetchError: the source fails.
    """
    try:
        return _fetch(source, wanted, stage, budget, pin, limits, progress)
    except MismatchError as error:
        progress.warn(f"{error.message} Fetching it once more from scratch.", reason=error.reason)
        stage.clear()
        progress.begin(f"Fetching {wanted.uri} once more", wanted.size or None)
    except (SignatureError, BudgetError, DestinationError):
        stage.discard()
        raise
    try:
        again = _fetch(source, wanted, stage, budget, pin, limits, progress)
    except (MismatchError, SignatureError, BudgetError, DestinationError):
        stage.discard()
        raise
    return again._replace(retries=again.retries + 1)


def _fetch(
    source: Source,
    wanted: Plan,
    stage: StagingArea,
    budget: Budget,
    pin: str | None,
    limits: TransferLimits,
    progress: Progress,
) -> StagedModel:
    journal = stage.open_journal(wanted.resume_key)
    wire = RangeReader(source, _metered(wanted, _within(budget, stage), progress.advance))
    try:
        _require_room(wanted, stage)
        _make_folders(wanted, stage)
        if not wanted.archive:
            return _files(wire, wanted, stage, journal, budget, pin, limits)
        (packed,) = wanted.objects
        if packed.gzip or packed.size is None or not packed.ranges or wanted.signed_sha256:
            return _stored_archive(wire, wanted, stage, journal, budget, pin, limits)
        return _streamed_archive(wire, wanted, stage, budget, pin, limits)
    finally:
        wire.close()
        journal.close()


def _require_room(wanted: Plan, stage: StagingArea) -> None:
    """Refuse before the first byte what cannot fit; what an earlier run brought has its room already."""
    with disk_errors(stage.work):
        there = [(path.lstat(), path.is_file()) for path in stage.tree.rglob("*")]
        free = filesystem.free_space(stage.work)
    where = stage.work.parent.parent
    taken = sum(state.st_blocks * 512 for state, is_file in there if is_file)
    needed = sum(free.rounded(o.size or 0) for o in wanted.objects) - taken
    if needed > free.bytes:
        raise DestinationError(
            f"{wanted.uri} has {wanted.size} bytes and needs {needed} on the disk; {free.bytes} are free at {where}.",
            hint="Free some space, or give the volume a larger size.",
        )
    paths = {*wanted.folders, *(o.path for o in wanted.objects)}
    more = len(paths | {above for path in paths for above in safe_paths.parent_paths(path)}) - len(there)
    if not wanted.archive and free.files is not None and more > free.files:
        raise DestinationError(
            f"{wanted.uri} needs {more} more files and directories; {where} has room for {free.files} (inodes).",
            hint="Remove some files, or make the volume with more inodes.",
        )


def _within(budget: Budget, stage: StagingArea) -> Budget:
    """The budget, if the disk has room for so much; else what it has room for."""
    with disk_errors(stage.work):
        free = filesystem.free_space(stage.work).bytes
    return budget if budget.max_bytes <= free else budget._replace(max_bytes=free, limited_by_disk=True)


def _metered(wanted: Plan, budget: Budget, advance: Callable[[int], None]) -> Callable[[int], None]:
    """Count what comes, where nobody has said how much it will be."""
    if all(obj.size is not None for obj in wanted.objects):
        return advance
    came = 0

    def count(more: int) -> None:
        nonlocal came
        came += more
        budget.check_bytes(came, str(wanted.uri))
        advance(more)

    return count


def _make_folders(wanted: Plan, stage: StagingArea) -> None:
    for folder in wanted.folders:
        with disk_errors(folder):
            (stage.tree / folder).mkdir(parents=True, exist_ok=True)


def _files(
    wire: RangeReader,
    wanted: Plan,
    stage: StagingArea,
    journal: ResumeJournal,
    budget: Budget,
    pin: str | None,
    limits: TransferLimits,
) -> StagedModel:
    files: list[FileEntry] = []
    checks: list[tuple[str, ...]] = []
    sizes: list[tuple[int, int]] = []
    came_as: dict[str, list[str]] = {}
    single_pin = None if wanted.directory else pin
    turn = threading.Lock()
    published = 0

    def arrived(obj: RemoteObject, came: Fingerprint, resumed: int) -> None:
        nonlocal published
        if obj.gzip:  # what arrived damaged may not be decodable
            checksums.compare_checksums(obj.key, came, size=obj.size, expected=obj.checksums)
        decoded = [_decode(stage, obj, budget)] if obj.gzip else []
        forms = [entry.sha256 for entry in decoded]
        made = _verified(wanted, obj, came, single_pin, forms)
        with turn:
            came_as[obj.key] = [came.sha256, *forms]
            files.extend(decoded or [FileEntry(obj.path, came.size, came.sha256)])
            published += files[-1].size
            budget.check_bytes(published, str(wanted.uri))  # what is stored as gzip has grown
            if came.size:  # nothing was asked for an empty file
                checks.append(made)
            sizes.append((came.size, resumed))

    download(wire, wanted.objects, stage.tree, journal, limits, arrived)
    return StagedModel(
        files=tuple(sorted(files, key=lambda f: f.path)),
        checks=_common(checks or [("size", "manifest") if wanted.fully_declared else ("size",)])
        + _attested(wanted, came_as),
        bytes=sum(size for size, _ in sizes),
        resumed=sum(resumed for _, resumed in sizes),
        retries=wire.retries,
    )


def _verified(
    wanted: Plan, obj: RemoteObject, came: Fingerprint, pin: str | None, decoded: Sequence[str] = ()
) -> tuple[str, ...]:
    """The checks that an object passed: those of the store, a manifest's and the caller's pin.

    The latter two may be of the stored or of the decoded bytes.
    """
    made = checksums.compare_checksums(obj.key, came, size=obj.size, expected=obj.checksums)
    if came.size == 0 and obj.size is None:
        raise WrongBytesError(f"{obj.key} is empty: 0 bytes.", hint="Upload the model again.")
    if obj.key in wanted.manifest_sha256:
        checksums.check_manifest_sha256(obj.key, wanted.manifest_sha256[obj.key], [came.sha256, *decoded])
        made = (*made, "manifest")
    if pin is None:
        return made
    checksums.check_pin(obj.key, pin, [came.sha256, *decoded])
    return (*made, "pin")


def _attested(wanted: Plan, came_as: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The check that objects, by key, are those that were signed, in their stored or their decoded form."""
    if not wanted.signed_sha256:
        return ()
    check_signed_files(
        str(wanted.uri), wanted.signed_sha256, {key: came_as[key] for key in wanted.signed_sha256}, lambda _: True
    )
    return ("signature",)


def _common(checks: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The checks that were made of every file."""
    return tuple(name for name in checks[0] if all(name in made for made in checks))


def _decode(stage: StagingArea, obj: RemoteObject, budget: Budget) -> FileEntry:
    """Replace a file by its gzip-decoded content."""
    path = stage.tree / obj.path
    plain = path.with_name(f".modelfetch-{threading.get_ident()}")
    member = gunzip_file(path, plain, _within(budget, stage))
    with disk_errors(path):
        plain.replace(path)
    return FileEntry(obj.path, member.size, member.sha256)


def _streamed_archive(
    wire: RangeReader, wanted: Plan, stage: StagingArea, budget: Budget, pin: str | None, limits: TransferLimits
) -> StagedModel:
    """Unpack while it downloads: nothing of the archive itself touches the disk."""
    (packed,) = wanted.objects
    stage.restart()
    window = ReadAhead(wire, packed, limits)
    try:
        files = _unpack(window, packed, stage, budget)
        made = _verified(wanted, packed, window.fingerprint(), pin)
    except ModelfetchError:
        stage.discard()  # no later run could go on with it
        raise
    finally:
        window.close()
    return _unpacked(files, packed, window.fingerprint(), made, wire.retries)


def _unpack(window: ReadAhead, packed: RemoteObject, stage: StagingArea, budget: Budget) -> tuple[FileEntry, ...]:
    try:
        members = extract_archive(window, packed.path, stage.tree, scratch=stage.scratch, budget=_within(budget, stage))
    except WrongBytesError:
        # What looks like a bad archive may be a good one that arrived damaged: the rest of its bytes tells.
        while packed.checksums and window.read(1 << 20):
            pass
        if packed.checksums:
            checksums.compare_checksums(packed.key, window.fingerprint(), size=packed.size, expected=packed.checksums)
        raise
    return tuple(FileEntry(m.path, m.size, m.sha256, m.symlink_target) for m in members)


def _stored_archive(
    wire: RangeReader,
    wanted: Plan,
    stage: StagingArea,
    journal: ResumeJournal,
    budget: Budget,
    pin: str | None,
    limits: TransferLimits,
) -> StagedModel:
    """Fetch the archive as a file first: nothing unsigned is unpacked, or it cannot be read as it arrives.

    The latter if its server has no ranges, or if it is stored in another encoding.
    """
    (packed,) = wanted.objects
    arrivals: list[tuple[RemoteObject, Fingerprint, int]] = []
    download(wire, [packed], stage.tree, journal, limits, lambda *arrival: arrivals.append(arrival))
    ((_, came, _),) = arrivals
    checksums.compare_checksums(packed.key, came, size=packed.size, expected=packed.checksums)
    file = stage.work / "archive"
    with disk_errors(file):
        (stage.tree / packed.path).replace(file)
    stage.restart()
    try:
        decoded = []
        if packed.gzip:
            decoded = [gunzip_file(file, stage.scratch, _within(budget, stage)).sha256]
            with disk_errors(file):
                stage.scratch.replace(file)
        made = _verified(wanted, packed, came, pin, decoded)
        made += _attested(wanted, {packed.key: [came.sha256, *decoded]})
        with disk_errors(file), file.open("rb") as stream:
            members = extract_archive(
                stream, packed.path, stage.tree, scratch=stage.scratch, budget=_within(budget, stage)
            )
    finally:
        with disk_errors(file):
            file.unlink(missing_ok=True)
    files = tuple(FileEntry(m.path, m.size, m.sha256, m.symlink_target) for m in members)
    return _unpacked(files, packed, came, made, wire.retries)


def _unpacked(
    files: tuple[FileEntry, ...], packed: RemoteObject, came: Fingerprint, made: tuple[str, ...], retries: int
) -> StagedModel:
    archive = ArchiveEntry(packed.path, came.size, came.sha256)
    return StagedModel(files, made, came.size, resumed=0, retries=retries, archive=archive)

"""Fetch a plan's objects into the staging area, verified: copied, decoded or extracted, as the plan says."""

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from modelfetch import checksums, safe_paths
from modelfetch.archive import Budget, ForwardReader, extract_archive, gunzip_file
from modelfetch.checksums import Fingerprint
from modelfetch.errors import (
    ArchiveError,
    BudgetError,
    DestinationError,
    MismatchError,
    ModelfetchError,
    ResourceError,
    SignatureError,
    WrongBytesError,
)
from modelfetch.plan import Action, Plan, PlannedObject
from modelfetch.progress import Progress
from modelfetch.provenance.signature_check import check_signed_files
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer.adaptive_pool import TransferLimits
from modelfetch.transfer.download import download
from modelfetch.transfer.range_reader import RangeReader
from modelfetch.transfer.readahead import ReadAhead
from modelfetch.volume import filesystem
from modelfetch.volume.filesystem import disk_errors
from modelfetch.volume.ownership import passes_symlink
from modelfetch.volume.receipt import ArchiveEntry, FileEntry
from modelfetch.volume.staged_tree import StagedTree
from modelfetch.volume.staging import StagingArea


class StagedModel(NamedTuple):
    """Content of the staging area after a fetch.

    Attributes:
        files: every file; a file that passed more checks than `checks` lists its own.
        checks: names of the checks that every object passed.
        bytes: bytes of the objects as stored.
        resumed: bytes that an earlier run had fetched.
        retries: repeated requests.
        archive: the archive that the files were extracted from, if the model is one archive.
    """

    files: tuple[FileEntry, ...]
    checks: tuple[str, ...]
    bytes: int
    resumed: int
    retries: int
    archive: ArchiveEntry | None = None


def fetch_model(
    source: Source,
    plan: Plan,
    staging: StagingArea,
    budget: Budget,
    pin: str | None,
    limits: TransferLimits,
    progress: Progress,
) -> StagedModel:
    """Fetch the planned objects into the staging tree; fetch damaged bytes once more from scratch.

    Args:
        source: store of the objects.
        plan: objects and what becomes of their bytes.
        staging: locked staging area.
        budget: limits of the published files.
        pin: the caller's sha256 of a single object.
        limits: memory and connections.
        progress: receives events.

    Raises:
        WrongBytesError: damaged, hostile, not the pinned bytes, or over budget.
        DestinationError: no room, or the disk fails.
        ModelfetchError: the source fails.
    """
    try:
        return _Fetch(source, plan, staging, budget, pin, limits, progress).run()
    except MismatchError as error:
        progress.log_warning(f"{error.message} Fetching it once more from scratch.", reason=error.reason)
        staging.clear()
        progress.start_phase(f"Fetching {plan.uri} once more", plan.size or None)
    except (SignatureError, BudgetError, DestinationError):
        staging.discard()
        raise
    try:
        again = _Fetch(source, plan, staging, budget, pin, limits, progress).run()
    except (MismatchError, SignatureError, BudgetError, DestinationError):
        staging.discard()
        raise
    return again._replace(retries=again.retries + 1)


class _Fetch:
    """One attempt to fetch a plan: the context that its steps share."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        staging: StagingArea,
        budget: Budget,
        pin: str | None,
        limits: TransferLimits,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._staging = staging
        self._budget = budget
        self._pin = None if plan.directory else pin
        self._limits = limits
        self._journal = staging.open_journal(plan.resume_key)
        self._source = source
        self._progress = progress
        self._advance = _meter_bytes(plan, self._within_free_space(), progress.add_bytes)
        self._readers: list[RangeReader] = []

    def run(self) -> StagedModel:
        """Extract the archives, then copy the other objects."""
        try:
            _require_room(self._plan, self._staging)
            archives = [obj.remote for obj in self._plan.objects if obj.action is Action.EXTRACT]
            others = [obj for obj in self._plan.objects if obj.action is not Action.EXTRACT]
            staged = [self._extract(archive, first=archive is archives[0]) for archive in archives]
            if archives:
                _refuse_linked_paths(self._plan, self._staging.tree)
            _make_folders(self._plan, self._staging)  # the first archive begins with an empty tree
            if others:
                staged.append(self._copy(others))
            return _merge_staged(staged)._replace(retries=sum(reader.retries for reader in self._readers))
        finally:
            for reader in self._readers:
                reader.close()
            self._journal.close()

    def _new_reader(self) -> RangeReader:
        """Return the reader of one step: a closed reader, as at the end of an archive, reads no more."""
        self._readers.append(RangeReader(self._source, self._advance))
        return self._readers[-1]

    def _copy(self, objects: Sequence[PlannedObject]) -> StagedModel:
        """Download objects as files, decoding gzip-encoded ones."""
        with self._staging.open_tree() as tree:
            return self._copy_into(tree, objects)

    def _copy_into(self, tree: StagedTree, objects: Sequence[PlannedObject]) -> StagedModel:
        collected = _CopiedFiles()
        actions = {obj.key: obj.action for obj in objects}

        def on_file(obj: RemoteObject, received: Fingerprint, resumed: int) -> None:
            decoded = []
            if actions[obj.key] is Action.GUNZIP and not self._vouched_as_stored(obj.key, received):
                # Compared before decoding: damaged bytes may not be decodable.
                checksums.compare_checksums(obj.key, received, size=obj.size, expected=obj.checksums)
                decoded = [self._decode(tree, obj)]
                self._refuse_two_forms(obj.key, received.sha256)
            passed = self._verify(obj, received, [entry.sha256 for entry in decoded])
            (entry,) = decoded or [FileEntry(obj.path, received.size, received.sha256)]
            published = collected.add(obj.key, entry, received, passed, resumed)
            self._budget.check_bytes(published, str(self._plan.uri))  # decoding makes a file larger

        download(
            self._new_reader(),
            [obj.remote for obj in objects],
            tree,
            self._journal,
            self._limits,
            on_file,
        )
        return collected.summarise(self._plan, self._check_signed(collected.sha256_by_key))

    def _extract(self, archive: RemoteObject, *, first: bool) -> StagedModel:
        """Extract an archive while it downloads; as a stored file where its bytes must be checked or decoded first."""
        streamed = not (archive.gzip or archive.size is None or not archive.ranges or self._plan.signed_sha256)
        into = self._staging.tree if first else self._staging.layer
        extract = self._extract_streamed if streamed else self._extract_stored
        try:
            staged = extract(archive, into, first=first)
        except ResourceError:
            if not streamed:
                raise
            staged = self._extract_stored(archive, into, first=first)  # works without a second thread
        if not first:
            _merge_layer(self._staging)
        return staged

    def _extract_streamed(self, archive: RemoteObject, into: Path, *, first: bool) -> StagedModel:
        """Extract while the archive downloads: no byte of the archive itself touches the disk."""
        self._clear_target(into, first=first)
        window = ReadAhead(self._new_reader(), archive, self._limits)
        try:
            files = self._extract_window(window, archive, into)
            passed = self._verify(archive, window.fingerprint())
        except ModelfetchError:
            self._staging.discard()  # no later run could resume the extraction
            raise
        finally:
            window.close()
        return _describe_extracted(files, archive, window.fingerprint(), passed)

    def _extract_window(self, window: ReadAhead, archive: RemoteObject, into: Path) -> tuple[FileEntry, ...]:
        try:
            return self._extract_members(window, archive, into)
        except WrongBytesError:
            # A bad archive may be a good one that arrived damaged: the checksum over the remaining bytes tells.
            while archive.checksums and window.read(1 << 20):
                pass
            if archive.checksums:
                checksums.compare_checksums(
                    archive.key, window.fingerprint(), size=archive.size, expected=archive.checksums
                )
            raise

    def _extract_stored(self, archive: RemoteObject, into: Path, *, first: bool) -> StagedModel:
        """Download the archive as a file first, verify, then extract: no unsigned member reaches the disk."""
        arrivals: list[Fingerprint] = []
        with self._staging.open_tree() as tree:
            download(
                self._new_reader(),
                [archive],
                tree,
                self._journal,
                self._limits,
                lambda _, received, __: arrivals.append(received),
            )
        (received,) = arrivals
        checksums.compare_checksums(archive.key, received, size=archive.size, expected=archive.checksums)
        file = self._staging.work_directory / "archive"
        with disk_errors(file):
            (self._staging.tree / archive.path).replace(file)
        self._clear_target(into, first=first)
        try:
            decoded = []
            if archive.gzip and not self._vouched_as_stored(archive.key, received):
                decoded = [self._decode_archive(file)]
                self._refuse_two_forms(archive.key, received.sha256)
            passed = self._verify(archive, received, decoded)
            passed += self._check_signed({archive.key: [received.sha256, *decoded]})
            with disk_errors(file), file.open("rb") as stream:
                files = self._extract_members(stream, archive, into)
        finally:
            with disk_errors(file):
                file.unlink(missing_ok=True)
        return _describe_extracted(files, archive, received, passed)

    def _extract_members(self, stream: ForwardReader, archive: RemoteObject, into: Path) -> tuple[FileEntry, ...]:
        with self._staging.open_tree(into) as tree:
            members = extract_archive(
                stream,
                archive.path,
                tree,
                scratch=self._staging.scratch,
                budget=self._within_free_space(),
                on_reserved=lambda count: self._progress.log_info(safe_paths.describe_reserved(count, archive.path)),
            )
        return tuple(FileEntry(m.path, m.size, m.sha256, m.symlink_target) for m in members)

    def _clear_target(self, into: Path, *, first: bool) -> None:
        if first:
            self._staging.restart()
            return
        with disk_errors(into):
            into.mkdir()

    def _list_vouchers(self, key: str) -> dict[str, str]:
        """Return the sha256 that pin, manifest and signature state of an object, by who states it."""
        stated = {
            "the pin": self._pin,
            "the manifest": self._plan.manifest_sha256.get(key),
            "the signature": self._plan.signed_sha256.get(key),
        }
        return {name: sha256 for name, sha256 in stated.items() if sha256}

    def _vouched_as_stored(self, key: str, received: Fingerprint) -> bool:
        """Return whether the stored, encoded form is what was vouched for: that form is published, then."""
        vouchers = self._list_vouchers(key)
        return bool(vouchers) and all(sha256 == received.sha256 for sha256 in vouchers.values())

    def _refuse_two_forms(self, key: str, stored: str) -> None:
        """Refuse an object whose decoded form is to be published if somebody vouches for the stored form.

        Raises:
            WrongBytesError: pin, manifest and signature fit different forms.
        """
        if differing := [name for name, sha256 in self._list_vouchers(key).items() if sha256 == stored]:
            raise WrongBytesError(
                f"{' and '.join(differing)} of {key} fit the bytes as stored, and others the decoded ones.",
                hint="Remove contentEncoding from the object, or push the model again.",
            )

    def _decode(self, tree: StagedTree, obj: RemoteObject) -> FileEntry:
        """Replace a gzip-encoded file by its decoded content."""
        above, _, name = obj.path.rpartition("/")
        plain = f"{above}/.modelfetch-{threading.get_ident()}".lstrip("/")
        with disk_errors(tree.root / obj.path):
            with tree.open_reader(obj.path) as stored, tree.create_file(plain) as decoded:
                member = gunzip_file(name, stored, decoded, self._within_free_space())
            tree.replace_file(plain, obj.path)
        return FileEntry(obj.path, member.size, member.sha256)

    def _decode_archive(self, file: Path) -> str:
        """Replace a gzip-encoded archive by its decoded content; return the sha256 of that."""
        scratch = self._staging.scratch
        with disk_errors(file):
            with file.open("rb") as stored, scratch.open("xb") as decoded:
                sha256 = gunzip_file(file.name, stored, decoded, self._within_free_space()).sha256
            scratch.replace(file)
        return sha256

    def _verify(self, obj: RemoteObject, received: Fingerprint, decoded: Sequence[str] = ()) -> tuple[str, ...]:
        """Compare an object with the store's checksums, a manifest's sha256 and the caller's pin.

        Args:
            obj: the object.
            received: fingerprint of the stored bytes.
            decoded: sha256 of the decoded bytes; manifest and pin may mean either form.

        Returns:
            Names of the passed checks.
        """
        passed = checksums.compare_checksums(obj.key, received, size=obj.size, expected=obj.checksums)
        if received.size == 0 and obj.size is None:
            raise WrongBytesError(f"{obj.key} is empty: 0 bytes.", hint="Upload the model again.")
        if obj.size is None and not passed and self._is_open_ended(obj.key):
            raise WrongBytesError(
                f"The server stated no length of {obj.key}, and its end may be missing: the connection just ended.",
                hint="Pin the model with --sha256, or have the server send Content-Length.",
            )
        if obj.key in self._plan.manifest_sha256:
            checksums.check_manifest_sha256(obj.key, self._plan.manifest_sha256[obj.key], [received.sha256, *decoded])
            passed = (*passed, "manifest")
        if self._pin is None:
            return passed
        checksums.check_pin(obj.key, self._pin, [received.sha256, *decoded])
        return (*passed, "pin")

    def _is_open_ended(self, key: str) -> bool:
        """Return whether only the end of the connection ended an object, and no sha256 of ours will tell its end."""
        if self._pin or key in self._plan.manifest_sha256 or key in self._plan.signed_sha256:
            return False
        return any(key in reader.open_ended for reader in self._readers)

    def _check_signed(self, sha256_by_key: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Compare objects, in stored or decoded form, with the signed sha256; return the name of the passed check."""
        signed = self._plan.signed_sha256
        if not signed:
            return ()
        here = {key: sha256_by_key[key] for key in signed if key in sha256_by_key}
        check_signed_files(str(self._plan.uri), {key: signed[key] for key in here}, here, lambda _: True)
        return ("signature",)

    def _within_free_space(self) -> Budget:
        """Return the budget, lowered to the free space of the disk."""
        with disk_errors(self._staging.work_directory):
            free = filesystem.free_space(self._staging.work_directory).bytes
        return (
            self._budget
            if self._budget.max_bytes <= free
            else self._budget._replace(max_bytes=free, limited_by_disk=True)
        )


class _CopiedFiles:
    """Results of copied files; threads add to them."""

    def __init__(self) -> None:
        self.sha256_by_key: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._entries: list[FileEntry] = []
        self._checks: dict[str, tuple[str, ...]] = {}  # by path; not of empty files: no byte was asked for
        self._bytes = 0
        self._resumed = 0
        self._published = 0

    def add(self, key: str, entry: FileEntry, received: Fingerprint, passed: tuple[str, ...], resumed: int) -> int:
        """Add a file; return the bytes of all published files."""
        with self._lock:
            self.sha256_by_key[key] = list({received.sha256: None, entry.sha256: None})
            self._entries.append(entry)
            if received.size:
                self._checks[entry.path] = passed
            self._bytes += received.size
            self._resumed += resumed
            self._published += entry.size
            return self._published

    def summarise(self, plan: Plan, more_checks: tuple[str, ...]) -> StagedModel:
        """Return the files, with the checks that all passed apart from the checks of single files."""
        empty = ("size", "manifest") if plan.fully_declared else ("size",)
        common = _common_checks([*self._checks.values()] or [empty]) + more_checks
        return StagedModel(
            files=tuple(sorted(map(self._with_checks(common, more_checks), self._entries), key=lambda f: f.path)),
            checks=common,
            bytes=self._bytes,
            resumed=self._resumed,
            retries=0,
        )

    def _with_checks(self, common: tuple[str, ...], more_checks: tuple[str, ...]) -> Callable[[FileEntry], FileEntry]:
        def add_checks(entry: FileEntry) -> FileEntry:
            passed = self._checks.get(entry.path, ()) + more_checks
            return entry._replace(checks=passed) if set(passed) > set(common) else entry

        return add_checks


def _common_checks(checks: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the checks that every file passed."""
    different = set(checks)  # few, although there may be a million files
    return tuple(name for name in checks[0] if all(name in passed for passed in different))


def _merge_staged(parts: Sequence[StagedModel]) -> StagedModel:
    """Combine extracted archives and copied files into one model."""
    if len(parts) == 1:
        return parts[0]
    return StagedModel(
        files=tuple(sorted((file for part in parts for file in part.files), key=lambda f: f.path)),
        checks=_common_checks([part.checks for part in parts]),
        bytes=sum(part.bytes for part in parts),
        resumed=sum(part.resumed for part in parts),
        retries=0,
    )


def _merge_layer(staging: StagingArea) -> None:
    """Move the members of a further archive into the tree.

    Raises:
        ArchiveError: two archives hold a member of one name, or one leads through a link of the other.
    """
    layer, tree = staging.layer, staging.tree
    with disk_errors(tree), staging.open_tree() as into, staging.open_tree(layer) as members:
        for folder, subfolders, files in filesystem.walk_tree(layer):
            above = folder.relative_to(layer).as_posix()
            links = [name for name in subfolders if (folder / name).is_symlink()]
            for name in (*files, *links):
                path = name if above == "." else f"{above}/{name}"
                if os.path.lexists(tree / path) or passes_symlink(tree, path):
                    shown = safe_paths.quote_path(path)
                    raise ArchiveError(f"The member {shown} is in two archives.", hint="Pull the archives one by one.")
                into.take_file(members, path)
            for name in set(subfolders) - set(links):
                into.make_directories(name if above == "." else f"{above}/{name}")
        shutil.rmtree(layer)


def _refuse_linked_paths(plan: Plan, tree: Path) -> None:
    """Refuse objects and folders below a symlink of an extracted archive.

    Raises:
        ArchiveError: a path of the plan leads through a symlink.
    """
    for path in (*plan.folders, *(obj.path for obj in plan.objects if obj.action is not Action.EXTRACT)):
        if passes_symlink(tree, path):
            shown = safe_paths.quote_path(path)
            raise ArchiveError(f"{shown} leads through a link of an archive.", hint="Pull the archive by itself.")


def _describe_extracted(
    files: tuple[FileEntry, ...], archive: RemoteObject, received: Fingerprint, passed: tuple[str, ...]
) -> StagedModel:
    entry = ArchiveEntry(archive.path, received.size, received.sha256)
    return StagedModel(files, passed, received.size, resumed=0, retries=0, archive=entry)


def _require_room(plan: Plan, staging: StagingArea) -> None:
    """Refuse before the first byte a model that cannot fit; resumed bytes have their room already."""
    with disk_errors(staging.work_directory):
        staged = [(path.lstat(), path.is_file()) for path in staging.tree.rglob("*")]
        free = filesystem.free_space(staging.work_directory)
    where = staging.work_directory.parent.parent
    allocated = sum(state.st_blocks * 512 for state, is_file in staged if is_file)
    needed = sum(free.allocated_bytes(obj.size or 0) for obj in plan.objects) - allocated
    if needed > free.bytes:
        raise DestinationError(
            f"{plan.uri} has {plan.size} bytes and needs {needed} on the disk; {free.bytes} are free at {where}.",
            hint="Free some space, or give the volume a larger size.",
        )
    paths = {*plan.folders, *(obj.path for obj in plan.objects)}
    inodes = len(paths | {above for path in paths for above in safe_paths.parent_paths(path)}) - len(staged)
    if not plan.archive and free.files is not None and inodes > free.files:
        raise DestinationError(
            f"{plan.uri} needs {inodes} more files and directories; {where} has room for {free.files} (inodes).",
            hint="Remove some files, or make the volume with more inodes.",
        )


def _make_folders(plan: Plan, staging: StagingArea) -> None:
    with staging.open_tree() as tree:
        for folder in plan.folders:
            with disk_errors(folder):
                tree.make_directories(folder)


def _meter_bytes(plan: Plan, budget: Budget, advance: Callable[[int], None]) -> Callable[[int], None]:
    """Check the budget while bytes arrive, if an object's size is unknown beforehand."""
    if all(obj.size is not None for obj in plan.objects):
        return advance
    received = 0

    def count_bytes(count: int) -> None:
        nonlocal received
        received += count
        budget.check_bytes(received, str(plan.uri))
        advance(count)

    return count_bytes

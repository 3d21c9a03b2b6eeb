"""Plan of a pull: the objects of a source, selected, vetted and pinned to one version."""

import hashlib
from collections.abc import Mapping, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from typing import NamedTuple

from modelfetch import safe_paths
from modelfetch.errors import (
    BudgetError,
    ModelfetchError,
    NotFoundError,
    TransientError,
    UnsafeNameError,
    UsageError,
    WrongBytesError,
)
from modelfetch.sources.base import NOTHING, Listing, RemoteObject
from modelfetch.uri import ModelURI


class Action(Enum):
    """What a pull does with an object's bytes."""

    COPY = "copy"
    GUNZIP = "gunzip"  # stored with contentEncoding gzip: decoded after the transfer
    EXTRACT = "extract"


class PlannedObject(NamedTuple):  # a plan may hold a million
    """An object to fetch, and what becomes of its bytes."""

    remote: RemoteObject
    action: Action = Action.COPY

    @property
    def key(self) -> str:
        """Return the object's name in the store."""
        return self.remote.key

    @property
    def path(self) -> str:
        """Return the object's path below the model's directory."""
        return self.remote.path

    @property
    def size(self) -> int | None:
        """Return the stored size in bytes; None if unknown."""
        return self.remote.size

    @property
    def published_size(self) -> int | None:
        """Return the size in bytes of the published file; None if decoding or extraction changes the size."""
        return self.remote.size if self.action is Action.COPY else None


class PlanLimits(NamedTuple):
    """Selection and budgets of a plan.

    Attributes:
        extract: extract an archive.
        include: globs of files to select from a directory; every file if empty.
        exclude: globs of files to leave out.
        max_bytes: largest total size in bytes; None for the free space.
        max_files: largest number of files.
    """

    extract: bool = True
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    max_bytes: int | None = None
    max_files: int = 1_000_000

    def selects(self, path: str) -> bool:
        """Return whether a directory's file is part of the model and passes the globs."""
        return not safe_paths.is_reserved_path(path) and self.passes_globs(path)

    def passes_globs(self, path: str) -> bool:
        """Return whether the globs select a path; for a reserved path too, which is part of no model."""
        return (not self.include or _matches_glob(path, self.include)) and not _matches_glob(path, self.exclude)

    def selects_folder(self, path: str) -> bool:
        """Return whether an empty folder is part of the model: never if files are selected by name."""
        return not (self.include or safe_paths.is_reserved_path(path) or _matches_glob(path + "/", self.exclude))


class Plan(NamedTuple):
    """The objects to fetch, with everything that identifies this version of the model.

    Attributes:
        uri: address of the source.
        objects: objects to fetch; exactly one unless `directory`.
        folders: empty directories to create.
        directory: whether the model is a prefix or directory.
        version: version of the whole plan; empty if the store states none.
        pinned_uri: address of exactly this version, where the store has such addresses, else the plain address.
        manifests: manifests in a directory's listing, of the directory or of parts; not fetched with the model.
        reserved: number of objects left out of a directory for their reserved names, manifests not counted.
        manifest_sha256: sha256 by key, as stated by manifests.
        signature: signature in a directory's listing, selected or not.
        signed_sha256: sha256 by key, as signed; empty if no signature was to be verified.
    """

    uri: ModelURI
    objects: tuple[PlannedObject, ...]
    folders: tuple[str, ...]
    directory: bool
    version: str
    pinned_uri: str = ""
    manifests: tuple[RemoteObject, ...] = ()
    reserved: int = 0
    manifest_sha256: Mapping[str, str] = NOTHING
    signature: RemoteObject | None = None
    signed_sha256: Mapping[str, str] = NOTHING

    @property
    def size(self) -> int:
        """Return the bytes to fetch; objects of unknown size count as 0."""
        return sum(obj.size or 0 for obj in self.objects)

    @property
    def archive(self) -> bool:
        """Return whether the model is one archive to extract."""
        return not self.directory and self.objects[0].action is Action.EXTRACT

    @property
    def resume_key(self) -> str:
        """Return a text that is equal in two runs if the second may resume the first.

        The key holds address, version and action. Empty if nothing identifies the version: earlier bytes may be of
        another one.
        """
        if not self.version:
            return ""
        return f"{self.uri} {self.version} {'unpacked' if self.archive else 'as is'}"

    @property
    def fully_declared(self) -> bool:
        """Return whether manifests state a sha256 for every object."""
        return len(self.manifest_sha256) == len(self.objects)

    def renamed_to(self, name: str) -> "Plan":
        """Return the plan of a single object under another file name."""
        (single,) = self.objects
        return self._replace(objects=(single._replace(remote=single.remote._replace(path=name)),))


def make_plan(listing: Listing, uri: ModelURI, limits: PlanLimits) -> Plan:
    """Select, vet and pin the objects of a listing.

    Raises:
        NotFoundError: the globs select nothing.
        UnsafeNameError: a key does not name its path, or two keys clash.
        BudgetError: more files or bytes than allowed.
        WrongBytesError: a single object is empty.
        UsageError: a single object has a reserved name.
        TransientError: a directory holds only the manifest of a push under way.
    """
    remotes = listing.objects
    if not listing.directory:
        _refuse_reserved_object(remotes[0], uri)
    if listing.directory:
        remotes = tuple(sorted((obj for obj in remotes if limits.selects(obj.path)), key=lambda obj: obj.path))
        if not remotes:
            raise _none_selected_error(listing, uri)
    folders = tuple(folder for folder in listing.folders if limits.selects_folder(folder))
    _check_paths(remotes, folders)
    _check_budget(remotes, uri, limits)
    if not listing.directory and remotes[0].size == 0:
        raise WrongBytesError(f"{uri} is empty: 0 bytes.", hint="Upload the model again.")
    return Plan(
        uri=uri,
        objects=tuple(PlannedObject(obj, _choose_action(obj, listing, limits)) for obj in remotes),
        folders=folders,
        directory=listing.directory,
        version=_choose_version(listing, remotes, folders),
        pinned_uri=(listing.pinned_uri if listing.directory else remotes[0].pinned_uri) or str(uri),
        manifests=_select_manifests(listing),
        reserved=sum(
            safe_paths.is_reserved_path(obj.path) and not safe_paths.is_manifest_path(obj.path)
            for obj in listing.objects
        ),
        signature=next(
            (obj for obj in listing.objects if listing.directory and obj.path == safe_paths.SIGNATURE_NAME), None
        ),
    )


def _refuse_reserved_object(obj: RemoteObject, uri: ModelURI) -> None:
    if safe_paths.is_reserved_path(obj.path):
        raise UsageError(
            f"{uri} is named like a receipt or manifest of modelfetch, and no model.",
            hint="Name the model itself; `modelfetch inspect` shows whether the model has a manifest.",
        )


def _select_manifests(listing: Listing) -> tuple[RemoteObject, ...]:
    """Return a directory's manifests, without an old-named manifest beside a new-named one: the new name wins."""
    if not listing.directory:
        return ()
    manifests = [obj for obj in listing.objects if safe_paths.is_manifest_path(obj.path)]
    new = {obj.path for obj in manifests}
    old_suffix, suffix = safe_paths.OLD_MANIFEST_SUFFIX, safe_paths.MANIFEST_SUFFIX
    return tuple(
        obj
        for obj in manifests
        if not (obj.path.endswith(old_suffix) and obj.path.removesuffix(old_suffix) + suffix in new)
    )


def push_under_way_error(what: str) -> TransientError:
    """Return the error for a directory that is stored in part."""
    return TransientError(
        f"{what} is not all there: a push is under way, or was interrupted.",
        hint="Wait for the push to end; if none is at work, push the model again.",
    )


def _choose_action(obj: RemoteObject, listing: Listing, limits: PlanLimits) -> Action:
    """Extract a single archive; archives inside a directory stay as they are."""
    if limits.extract and not listing.directory and safe_paths.is_archive_name(obj.path):
        return Action.EXTRACT
    return Action.GUNZIP if obj.gzip else Action.COPY


def _choose_version(listing: Listing, remotes: Sequence[RemoteObject], folders: Sequence[str]) -> str:
    """Prefer the set's own version; else a single object's, or a digest of the directory's listing.

    Empty if an object has no version: names and sizes alone identify no bytes.
    """
    if listing.version:
        return listing.version
    if not all(obj.version for obj in remotes):
        return ""
    return _listing_version(remotes, folders) if listing.directory else remotes[0].version


def _none_selected_error(listing: Listing, uri: ModelURI) -> ModelfetchError:
    own_manifests = (safe_paths.MANIFEST_SUFFIX, safe_paths.OLD_MANIFEST_SUFFIX)
    if all(obj.path in own_manifests for obj in listing.objects):
        return push_under_way_error(str(uri))
    return NotFoundError(
        f"None of the {len(listing.objects)} files at {uri} is left to pull.", hint="Check --include and --exclude."
    )


def _matches_glob(path: str, patterns: Sequence[str]) -> bool:
    """Return whether a pattern matches the path or its last segment; `*` matches slashes too, as in KServe."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


def _check_paths(objects: Sequence[RemoteObject], folders: Sequence[str]) -> None:
    paths = [obj.path for obj in objects]
    safe_paths.check_paths(paths)
    files = set(paths)
    for folder in folders:
        safe_paths.check_path(folder)
        if folder in files or any(parent in files for parent in safe_paths.parent_paths(folder)):
            raise UnsafeNameError(
                f"The key {folder!r} is both a file and a directory.", hint="Leave one out with --exclude."
            )


def _check_budget(objects: Sequence[RemoteObject], uri: ModelURI, limits: PlanLimits) -> None:
    if len(objects) > limits.max_files:
        raise BudgetError(
            f"{uri} has {len(objects)} files; {limits.max_files} are allowed.", hint="Raise MODELFETCH_MAX_FILES."
        )
    size = sum(obj.size or 0 for obj in objects)
    if limits.max_bytes is not None and size > limits.max_bytes:
        raise BudgetError(
            f"{uri} has {size} bytes; {limits.max_bytes} are allowed.", hint="Raise MODELFETCH_MAX_BYTES."
        )


def _listing_version(objects: Sequence[RemoteObject], folders: Sequence[str]) -> str:
    """Return the sha256 of versions, sizes and paths, for a directory without a version of its own."""
    total = hashlib.sha256()
    for obj in objects:
        total.update(f"{obj.version} {obj.size} {obj.path}\n".encode("utf-8", "surrogateescape"))
    for folder in sorted(folders):
        total.update(f"{folder}/\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{total.hexdigest()}"

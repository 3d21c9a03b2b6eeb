"""What is to be pulled: the objects of a source, filtered and vetted, with all that identifies this version of them."""

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from modelfetch import safe_paths
from modelfetch.errors import (
    BudgetError,
    ModelfetchError,
    NotFoundError,
    TransientError,
    UnsafeNameError,
    WrongBytesError,
)
from modelfetch.sources.base import NOTHING, Listing, RemoteObject
from modelfetch.uri import ModelURI


class Plan(NamedTuple):
    """The objects to fetch and what becomes of them.

    Attributes:
        uri: where they are.
        objects: what to fetch; exactly one unless `directory`.
        folders: empty directories to make.
        directory: whether the model is a prefix or a directory.
        archive: whether the one object is to be unpacked.
        version: what pins all of it; empty if the server gives nothing that could.
        manifests: those that a directory holds, its own or of a part of it; they are not fetched with it.
        stated: the sha256 that manifests state of objects as they were pushed, by key.
        signature: a directory's, whether it is fetched with it or not.
        signed: the sha256 of objects that was signed, by key; none if no signature was to be verified.
    """

    uri: ModelURI
    objects: tuple[RemoteObject, ...]
    folders: tuple[str, ...]
    directory: bool
    archive: bool
    version: str
    manifests: tuple[RemoteObject, ...] = ()
    manifest_sha256: Mapping[str, str] = NOTHING
    signature: RemoteObject | None = None
    signed_sha256: Mapping[str, str] = NOTHING

    @property
    def size(self) -> int:
        """Bytes to fetch, as far as is known."""
        return sum(o.size or 0 for o in self.objects)

    @property
    def resume_key(self) -> str:
        """Identifies the plan across runs: the same version of the same model, put together in the same way.

        Empty if nothing tells versions apart: what an earlier run brought may be of another one.
        """
        if not self.version:
            return ""
        return f"{self.uri} {self.version} {'unpacked' if self.archive else 'as is'}"

    @property
    def pinned(self) -> str:
        """The address that names exactly this version, where the store has such addresses."""
        if self.directory:
            return str(self.uri)
        pins = self.objects[0].pins
        version = pins.get("x-amz-version-id") or pins.get("x-goog-generation")
        return self.uri.pinned(version) if version else str(self.uri)

    @property
    def fully_declared(self) -> bool:
        """Whether manifests speak of every object."""
        return len(self.manifest_sha256) == len(self.objects)

    def named(self, name: str) -> "Plan":
        """The same plan for a single object that is to be a file of this name."""
        (single,) = self.objects
        return self._replace(objects=(single._replace(path=name),))


def make_plan(
    found: Listing,
    uri: ModelURI,
    *,
    extract: bool,
    include: Sequence[str],
    exclude: Sequence[str],
    max_bytes: int | None,
    max_files: int,
) -> Plan:
    """Decide what of a source is fetched.

    Raises:
        NotFoundError: the patterns leave nothing.
        UnsafeNameError: a key does not name the path it gives, or two clash.
        BudgetError: it is more than allowed.
        WrongBytesError: a single object is empty.
        TransientError: a directory's first file is still to come.
    """
    objects = found.objects
    manifests = tuple(o for o in objects if found.directory and safe_paths.is_manifest_path(o.path))
    if found.directory:
        objects = tuple(sorted((o for o in objects if is_selected(o.path, include, exclude)), key=lambda o: o.path))
        if not objects:
            raise _none_left(found, uri)
    folders = (
        ()
        if include
        else tuple(f for f in found.folders if not safe_paths.is_reserved_path(f) and not _matches(f + "/", exclude))
    )
    _vet(objects, folders)
    if len(objects) > max_files:
        raise BudgetError(
            f"{uri} has {len(objects)} files; {max_files} are allowed.", hint="Raise MODELFETCH_MAX_FILES."
        )
    size = sum(o.size or 0 for o in objects)
    if max_bytes is not None and size > max_bytes:
        raise BudgetError(f"{uri} has {size} bytes; {max_bytes} are allowed.", hint="Raise MODELFETCH_MAX_BYTES.")
    if not found.directory and objects[0].size == 0:
        raise WrongBytesError(f"{uri} is empty: 0 bytes.", hint="Upload the model again.")
    return Plan(
        uri=uri,
        objects=objects,
        folders=folders,
        directory=found.directory,
        archive=extract and not found.directory and safe_paths.is_archive_name(objects[0].path),
        version=_listing_version(objects, folders) if found.directory else objects[0].version,
        manifests=manifests,
        signature=next((o for o in found.objects if found.directory and o.path == safe_paths.SIGNATURE_NAME), None),
    )


def is_selected(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a directory's file is one of the model's, and one of those that the patterns leave."""
    ours = safe_paths.is_reserved_path(path) or safe_paths.is_manifest_path(path)
    return not ours and (not include or _matches(path, include)) and not _matches(path, exclude)


def _none_left(found: Listing, uri: ModelURI) -> ModelfetchError:
    if all(o.path == safe_paths.MANIFEST_SUFFIX for o in found.objects):
        return push_under_way_error(str(uri))
    return NotFoundError(
        f"None of the {len(found.objects)} files at {uri} is left to pull.", hint="Check --include and --exclude."
    )


def push_under_way_error(what: str) -> TransientError:
    """The error for a directory that is only partly there."""
    return TransientError(
        f"{what} is not all there: a push is under way, or was interrupted.",
        hint="Wait for the push to end; if none is at work, push the model again.",
    )


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether the path or its last segment matches; `*` matches slashes too, as KServe has it."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


def _vet(objects: Sequence[RemoteObject], folders: Sequence[str]) -> None:
    paths = [o.path for o in objects]
    safe_paths.check_paths(paths)
    files = set(paths)
    for folder in folders:
        safe_paths.check_path(folder)
        if folder in files or any(parent in files for parent in safe_paths.parent_paths(folder)):
            raise UnsafeNameError(
                f"The key {folder!r} is both a file and a directory.", hint="Leave one out with --exclude."
            )


def _listing_version(objects: Sequence[RemoteObject], folders: Sequence[str]) -> str:
    """A directory has no version of its own: that of its files and folders, taken together."""
    total = hashlib.sha256()
    for obj in objects:
        total.update(f"{obj.version} {obj.size} {obj.path}\n".encode("utf-8", "surrogateescape"))
    for folder in sorted(folders):
        total.update(f"{folder}/\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{total.hexdigest()}"

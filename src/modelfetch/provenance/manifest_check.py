"""What manifests say of what is to be pulled: found, read and compared before the first byte of the model."""

from collections.abc import Callable, Mapping

from modelfetch import safe_paths
from modelfetch.errors import CredentialsError, RefusedError, WrongBytesError
from modelfetch.plan import Plan, push_under_way_error
from modelfetch.provenance import manifest as manifests
from modelfetch.provenance.manifest import SUFFIX, Manifest
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer import read_object
from modelfetch.volume.receipt import FileEntry

_HINT_NONE = "Push it with `modelfetch push`, or pull it without --require-manifest."


def check_manifest(source: Source, wanted: Plan, chosen: Callable[[str], bool], *, required: bool) -> Plan:
    """Read the manifests, compare names and sizes, and note what sha256 they state.

    A directory's manifest is in its listing; so are those of models that stand within it. A single object's is asked
    for; on the web only if it is required.

    Args:
        source: where the model is.
        wanted: what is to be pulled.
        chosen: whether a directory's path is to be pulled, if it is there.
        required: whether every object must be in a manifest.

    Raises:
        MismatchError: what is there is not what a manifest says.
        WrongBytesError: a manifest cannot be trusted, or there is none although it is required.
        TransientError: a push is under way.
        ModelfetchError: a manifest cannot be fetched.
    """
    stated: dict[str, str] = {}
    wrong: list[str] = []
    for found in wanted.manifests if wanted.directory else find_sidecar_manifest(source, wanted, required=required):
        there = _spoken_of(wanted, found)
        manifest = _read(source, wanted, found) if there else None
        if manifest and _is_of_version(manifest, wanted, required=required):
            entries = _entries(manifest, found, chosen)
            # What is stored with contentEncoding gzip may have been encoded by whoever copied it.
            sizes = {path: None if obj.gzip else obj.size for path, obj in there.items()}
            wrong += manifests.differences({path: f.size for path, f in entries.items()}, sizes)
            wrong += _note(stated, there, entries)
    if wrong:
        raise manifests.mismatch_error(str(wanted.uri), wrong)
    declared = wanted._replace(manifest_sha256=stated)
    if required and not declared.fully_declared:
        part = f"{len(wanted.objects) - len(stated)} of the {len(wanted.objects)} files at " if stated else ""
        raise WrongBytesError(f"There is no manifest of {part}{wanted.uri}.", hint=_HINT_NONE)
    return declared


def find_sidecar_manifest(source: Source, wanted: Plan, *, required: bool) -> list[RemoteObject]:
    """A single object's manifest, if there is one; on the web it is asked for only if it is required.

    Raises:
        ModelfetchError: it cannot be asked for; a refusal counts only if it is required.
    """
    (single,) = wanted.objects
    if wanted.uri.scheme in ("http", "https") and not required:
        return []
    if wanted.uri.scheme in ("s3", "gs") and len((single.key + SUFFIX).encode()) > safe_paths.MAX_KEY_BYTES:
        return []
    try:
        found = source.sidecar(single, SUFFIX)
    except (CredentialsError, RefusedError):  # S3 denies what is not there to who may not list
        if required:
            raise
        return []
    return [found] if found else []


def _base(found: RemoteObject) -> tuple[str, bool]:
    """The path that a manifest speaks of, and whether it is a directory's."""
    base = found.path.removesuffix(SUFFIX)
    return base, not base or base.endswith("/")


def _spoken_of(wanted: Plan, found: RemoteObject) -> dict[str, RemoteObject]:
    """What is to be pulled of what a manifest speaks of."""
    base, directory = _base(found)
    return {o.path: o for o in wanted.objects if (o.path.startswith(base) if directory else o.path == base)}


def _read(source: Source, wanted: Plan, found: RemoteObject) -> Manifest:
    base, directory = _base(found)
    manifest = manifests.parse_manifest(
        read_object.read_object(source, found, manifests.MAX_BYTES), found.key, directory=directory
    )
    if not manifest.complete:
        raise push_under_way_error(found.key.removesuffix(SUFFIX) if base else str(wanted.uri))
    return manifest


def _is_of_version(manifest: Manifest, wanted: Plan, *, required: bool) -> bool:
    """Whether a manifest is of the version that was asked for, if one was: it may have been pushed over since."""
    if wanted.uri.version is None or manifest.version == wanted.version:
        return True
    if required:
        raise WrongBytesError(
            f"The manifest of {wanted.uri} is of its version {safe_paths.quote_path(manifest.version)},"
            f" not of {wanted.version}, which was asked for.",
            hint="Pull the version that was pushed last, or this one with --sha256 in place of --require-manifest.",
        )
    return False


def _entries(manifest: Manifest, found: RemoteObject, chosen: Callable[[str], bool]) -> dict[str, FileEntry]:
    """What a manifest says of the files that are to be pulled; a single object may have been renamed since."""
    base, directory = _base(found)
    if not directory:
        return {base: manifest.files[0]}
    return {base + f.path: f for f in manifest.files if chosen(base + f.path)}


def _note(stated: dict[str, str], there: Mapping[str, RemoteObject], entries: Mapping[str, FileEntry]) -> list[str]:
    """Note the sha256 of what is there; return what another manifest says otherwise."""
    new = {there[path].key: entry.sha256 for path, entry in entries.items() if path in there}
    differing = sorted(key for key, sha256 in new.items() if stated.get(key, sha256) != sha256)
    stated.update(new)
    return [f"{safe_paths.quote_path(key)} is another file in another manifest" for key in differing]

"""Check of a plan against the model's manifests, before the first byte of the model is fetched."""

from collections.abc import Iterable, Mapping

from modelfetch import safe_paths
from modelfetch.errors import CredentialsError, RefusedError, UnsafeNameError, WrongBytesError
from modelfetch.plan import Plan, PlanLimits, PlannedObject, push_under_way_error
from modelfetch.provenance import manifest as manifests
from modelfetch.provenance.manifest import Manifest
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer.read_object import read_object
from modelfetch.volume.receipt import FileEntry

_HINT_NONE = "Push it with `modelfetch push`, or pull it without --require-manifest."


def check_manifest(source: Source, plan: Plan, limits: PlanLimits, *, required: bool) -> Plan:
    """Read the manifests, compare names and sizes, and add the stated sha256 to the plan.

    A directory's listing holds its manifest, and the manifests of models inside it. A single object's manifest is a
    sidecar object; a web server is asked for one only if a manifest is required.

    Args:
        source: store of the model.
        plan: objects to fetch.
        limits: selection of a directory's files.
        required: refuse objects that no manifest lists.

    Returns:
        The plan with `manifest_sha256`.

    Raises:
        MismatchError: the stored objects differ from a manifest.
        UnsafeNameError: a manifest lists a reserved name.
        WrongBytesError: a manifest is damaged, or missing although required.
        TransientError: a push is under way.
        ModelfetchError: a manifest cannot be fetched.
    """
    sha256_by_key: dict[str, str] = {}
    wrong: list[str] = []
    found = plan.manifests if plan.directory else find_sidecar_manifest(source, plan, required=required)
    for obj in found:
        covered = _covered_objects(plan, obj)
        manifest = _read_manifest(source, plan, obj) if covered else None
        if manifest and _is_of_version(manifest, plan, required=required):
            entries = _selected_entries(manifest, obj, limits)
            # A gzip-encoded object may have been encoded by a later copy: only the decoded size counts.
            sizes = {path: None if planned.remote.gzip else planned.size for path, planned in covered.items()}
            wrong += manifests.describe_differences({path: entry.size for path, entry in entries.items()}, sizes)
            wrong += _add_sha256(sha256_by_key, covered, entries)
    if wrong:
        raise manifests.mismatch_error(str(plan.uri), wrong)
    declared = plan._replace(manifest_sha256=sha256_by_key)
    if required and not declared.fully_declared:
        missing = len(plan.objects) - len(sha256_by_key)
        part = f"{missing} of the {len(plan.objects)} files at " if sha256_by_key else ""
        raise WrongBytesError(f"There is no manifest of {part}{plan.uri}.", hint=_HINT_NONE)
    return declared


def find_sidecar_manifest(source: Source, plan: Plan, *, required: bool) -> list[RemoteObject]:
    """Return a single object's manifest in a list, or an empty list.

    Raises:
        ModelfetchError: the store cannot be asked; a refusal counts only if a manifest is required.
    """
    (single,) = plan.objects
    if not source.has_sidecars and not required:
        return []
    try:
        for suffix in (safe_paths.MANIFEST_SUFFIX, safe_paths.OLD_MANIFEST_SUFFIX):
            has_room = source.max_key_bytes is None or len((single.key + suffix).encode()) <= source.max_key_bytes
            if has_room and (found := source.sidecar(single.remote, suffix)):
                return [found]
    except (CredentialsError, RefusedError):  # S3 denies missing objects to callers without the right to list
        if required:
            raise
    return []


def _split_base(manifest: RemoteObject) -> tuple[str, bool]:
    """Return the path covered by a manifest, and whether the path is a directory."""
    base = safe_paths.strip_manifest_suffix(manifest.path)
    return base, not base or base.endswith("/")


def _covered_objects(plan: Plan, manifest: RemoteObject) -> dict[str, PlannedObject]:
    """Return the planned objects covered by a manifest, by path."""
    base, directory = _split_base(manifest)
    return {obj.path: obj for obj in plan.objects if (obj.path.startswith(base) if directory else obj.path == base)}


def _read_manifest(source: Source, plan: Plan, obj: RemoteObject) -> Manifest:
    base, directory = _split_base(obj)
    manifest = manifests.parse_manifest(
        read_object(source, obj, manifests.MAX_MANIFEST_BYTES), obj.key, directory=directory
    )
    if not manifest.complete:
        raise push_under_way_error(safe_paths.strip_manifest_suffix(obj.key) if base else str(plan.uri))
    return manifest


def _is_of_version(manifest: Manifest, plan: Plan, *, required: bool) -> bool:
    """Return whether a manifest describes the requested version: a later push may have replaced the manifest."""
    if plan.uri.version is None or manifest.version == plan.version:
        return True
    if required:
        raise WrongBytesError(
            f"The manifest of {plan.uri} is of its version {safe_paths.quote_path(manifest.version)},"
            f" not of {plan.version}, which was asked for.",
            hint="Pull the version that was pushed last, or this one with --sha256 in place of --require-manifest.",
        )
    return False


def _selected_entries(manifest: Manifest, obj: RemoteObject, limits: PlanLimits) -> dict[str, FileEntry]:
    """Return the manifest's entries of selected files, by path; a single object may have been renamed since."""
    base, directory = _split_base(obj)
    if not directory:
        return {base: manifest.files[0]}
    refuse_reserved_names((base + entry.path for entry in manifest.files), f"The manifest {obj.key}", limits)
    return {base + entry.path: entry for entry in manifest.files if limits.selects(base + entry.path)}


def refuse_reserved_names(paths: Iterable[str], lister: str, limits: PlanLimits) -> None:
    """Refuse a list of a model's files that has a reserved name: the file would be left out, and the list broken.

    Raises:
        UnsafeNameError: a reserved name is listed, and not excluded.
    """
    for path in paths:
        if safe_paths.is_reserved_path(path) and limits.passes_globs(path):
            raise UnsafeNameError(
                f"{lister} lists {safe_paths.quote_path(path)}, a name reserved for modelfetch's own files.",
                hint="Leave it out with --exclude, or push the model again: push leaves such files out.",
            )


def _add_sha256(
    sha256_by_key: dict[str, str], covered: Mapping[str, PlannedObject], entries: Mapping[str, FileEntry]
) -> list[str]:
    """Add the sha256 of covered objects; return the contradictions to an earlier manifest."""
    new = {covered[path].key: entry.sha256 for path, entry in entries.items() if path in covered}
    differing = sorted(key for key, sha256 in new.items() if sha256_by_key.get(key, sha256) != sha256)
    sha256_by_key.update(new)
    return [f"{safe_paths.quote_path(key)} is another file in another manifest" for key in differing]

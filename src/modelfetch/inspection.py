"""Inspect a source: version, size, checksums and files, without downloading content."""

from typing import NamedTuple

from modelfetch.plan import Plan
from modelfetch.provenance.manifest_check import find_sidecar_manifest
from modelfetch.pull.options import PullOptions
from modelfetch.pull.pull import resolve
from modelfetch.safe_paths import strip_manifest_suffix
from modelfetch.sources import SourceOptions, open_source
from modelfetch.uri import ModelURI


class Inspection(NamedTuple):
    """Result of an inspection.

    Attributes:
        plan: objects that a pull would fetch.
        manifest: whether a manifest exists; None if the source was not asked.
    """

    plan: Plan
    manifest: bool | None = None


def inspect_source(uri: ModelURI, access: SourceOptions, options: PullOptions) -> Inspection:
    """Inspect the model at `uri` as a pull would fetch it; reads no content.

    Raises:
        ModelfetchError: nothing is stored there, or the store cannot be asked.
    """
    source = open_source(uri, access)
    plan = resolve(source, options)
    if plan.directory:
        return Inspection(plan, any(not strip_manifest_suffix(obj.path) for obj in plan.manifests))
    if not source.has_sidecars:
        return Inspection(plan)
    return Inspection(plan, bool(find_sidecar_manifest(source, plan, required=False)))

"""Inspect a source: version, size, checksums and files, without downloading content."""

from typing import NamedTuple

from modelfetch.plan import Plan
from modelfetch.provenance.manifest import SUFFIX
from modelfetch.provenance.manifest_check import find_sidecar_manifest
from modelfetch.pull.pull import PullOptions
from modelfetch.pull.pull import plan as plan_pull
from modelfetch.sources import Access, open_source
from modelfetch.uri import ModelURI


class Inspection(NamedTuple):
    """What is at a source, and whether it has a manifest; None if nobody asked for that."""

    plan: Plan
    manifest: bool | None = None

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        wanted = self.plan
        files = [
            {"path": o.path, "size": o.size, "version": o.version, "checksums": dict(o.checksums)}
            for o in wanted.objects
        ]
        return {
            "source": str(wanted.uri),
            "pinned": wanted.pinned,
            "version": wanted.version,
            "directory": wanted.directory,
            "archive": wanted.archive,
            "bytes": wanted.size,
            "manifest": self.manifest,
            "files": files,
        }

    def as_text(self) -> str:
        """For a person."""
        wanted = self.plan
        kind = "directory" if wanted.directory else "archive" if wanted.archive else "file"
        lines = [
            f"source   {wanted.uri}",
            f"kind     {kind}",
            f"version  {wanted.version}",
            f"files    {len(wanted.objects)}",
            f"bytes    {wanted.size}",
            *([] if self.manifest is None else [f"manifest {'yes' if self.manifest else 'no'}"]),
        ]
        for obj in wanted.objects:
            checksums = "  ".join(f"{name}:{value}" for name, value in sorted(obj.checksums.items()))
            lines.append(f"{'?' if obj.size is None else obj.size:>14}  {obj.path}  {checksums}".rstrip())
        return "\n".join(lines)


def inspect_source(uri: ModelURI, access: Access, options: PullOptions) -> Inspection:
    """What is at `uri`, as a pull would take it; no content is read.

    Raises:
        ModelfetchError: nothing is there, or it cannot be asked.
    """
    source = open_source(uri, access)
    wanted = plan_pull(source.resolve(), uri, options)
    if wanted.directory:
        return Inspection(wanted, any(o.path == SUFFIX for o in wanted.manifests))
    return Inspection(
        wanted, None if uri.scheme in ("http", "https") else bool(find_sidecar_manifest(source, wanted, required=False))
    )

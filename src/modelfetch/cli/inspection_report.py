"""Presentation of an inspection: text for a person, a dict for `--output json`."""

from modelfetch.inspection import Inspection


def inspection_as_dict(inspection: Inspection) -> dict[str, object]:
    """Return the JSON fields of an inspection."""
    plan = inspection.plan
    files = [
        {"path": obj.path, "size": obj.size, "version": obj.remote.version, "checksums": dict(obj.remote.checksums)}
        for obj in plan.objects
    ]
    return {
        "source": str(plan.uri),
        "pinned": plan.pinned_uri,
        "version": plan.version,
        "directory": plan.directory,
        "archive": plan.archive,
        "bytes": plan.size,
        "manifest": inspection.manifest,
        "files": files,
    }


def inspection_as_text(inspection: Inspection) -> str:
    """Return the lines for a person: facts of the model, then one line per file."""
    plan = inspection.plan
    kind = "directory" if plan.directory else "archive" if plan.archive else "file"
    lines = [
        f"source   {plan.uri}",
        f"kind     {kind}",
        f"version  {plan.version}",
        f"files    {len(plan.objects)}",
        f"bytes    {plan.size}",
        *([] if inspection.manifest is None else [f"manifest {'yes' if inspection.manifest else 'no'}"]),
    ]
    for obj in plan.objects:
        checksums = "  ".join(f"{name}:{value}" for name, value in sorted(obj.remote.checksums.items()))
        lines.append(f"{'?' if obj.size is None else obj.size:>14}  {obj.path}  {checksums}".rstrip())
    return "\n".join(" ".join(line.splitlines()) for line in lines)  # a server's text adds no line

"""Receipt reader of the app image before the receipts' new names, frozen: what a rollout with mixed images meets."""

import json
from pathlib import Path
from typing import Any

SUFFIX = ".modelfetch.json"
SCHEMA = 1


def find_entry(file: Path) -> dict[str, Any] | None:
    """Return the entry of a file in its own receipt or in that of a directory above; None without a receipt.

    Raises:
        ValueError: the receipt has another schema, or lies beside the file without listing it.
    """
    for path in (file.with_name(file.name + SUFFIX), *(parent / SUFFIX for parent in file.parents)):
        if not path.is_file():
            continue
        data = json.loads(path.read_bytes())
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r}")
        files: dict[str, dict[str, Any]] = {str(entry["path"]): entry for entry in data["files"]}
        if entry := files.get(file.relative_to(path.parent).as_posix()):
            return entry
        if path.parent == file.parent:
            raise ValueError(f"{path} does not list {file.name}")
    return None

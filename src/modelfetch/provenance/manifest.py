"""Manifest: the JSON object that a push leaves with a model, with size and sha256 of every file.

A directory holds the manifest as `.modelfetch-manifest`; a single object has `<key>.modelfetch-manifest` as a sidecar
object. A manifest of the old name, `….modelfetch-manifest.json`, is read where no manifest of the new name exists.

A push to a directory starts with an incomplete manifest, which marks the push as under way, and ends with the complete
manifest: a complete manifest means a whole model.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from modelfetch import __version__, safe_paths
from modelfetch.errors import MismatchError, UnsafeNameError, WrongBytesError
from modelfetch.volume import receipt
from modelfetch.volume.receipt import FileEntry

SCHEMA = 1
# Room for some 400,000 files; a larger manifest, once parsed, would not fit into an init container's memory.
MAX_MANIFEST_BYTES = 64 * 1024**2
_MAX_SHOWN = 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Manifest(NamedTuple):
    """Statement of a push about the files stored.

    Attributes:
        files: every file; empty while the push is under way. The entry of a single object has the object's name.
        complete: whether the push is done.
        version: version of a single object, as stated by the store at the push; empty for a directory.
    """

    files: tuple[FileEntry, ...]
    complete: bool = True
    version: str = ""

    def to_json(self, *, directory: bool) -> str:
        """Return the manifest as one line of JSON; `digest` equals the digest in the receipt of a pull."""
        data: dict[str, object] = {
            "schema": SCHEMA,
            "tool": f"modelfetch/{__version__}",
            "created": f"{receipt.utc_now():%Y-%m-%dT%H:%M:%SZ}",
            "complete": self.complete,
            "push": os.urandom(16).hex(),  # no two manifests are equal: a store tells them apart by their content
        }
        if self.version:
            data["version"] = self.version
        if self.complete:
            data["digest"] = receipt.model_digest(self.files, directory=directory)
        files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files]
        return json.dumps({**data, "files": files}, ensure_ascii=False) + "\n"


UNDER_WAY = Manifest((), complete=False)


def parse_manifest(data: bytes, address: str, *, directory: bool) -> Manifest:
    """Parse a manifest strictly: the bytes came over the network, and anyone may have written them.

    Args:
        data: bytes of the manifest.
        address: address of the manifest, for messages.
        directory: whether the model is a directory.

    Raises:
        WrongBytesError: the manifest is damaged, contradicts itself, or has a schema unknown to this version.
    """
    try:
        return _decode_manifest(json.loads(data.decode()), directory=directory)
    except (ValueError, TypeError, KeyError, RecursionError, UnsafeNameError) as error:
        reason = f"{error} is not in it" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise WrongBytesError(
            f"The manifest {address} cannot be read: {reason[:500]}.",
            hint="Push the model again; a newer modelfetch may be needed to pull what a newer one pushed.",
        ) from error


def _decode_manifest(data: Any, *, directory: bool) -> Manifest:  # noqa: ANN401  any JSON value
    if not isinstance(data, dict):
        raise TypeError("it is no JSON object")
    if type(data["schema"]) is not int or data["schema"] != SCHEMA:
        raise ValueError(f"its schema is {str(data['schema'])[:40]!r}, not {SCHEMA}")
    complete, version, listed = data["complete"], data.get("version", ""), data["files"]
    if not (isinstance(complete, bool) and isinstance(version, str) and isinstance(listed, list)):
        raise TypeError("complete, version or files is of the wrong type")
    if not complete:
        return UNDER_WAY
    files = tuple(_decode_entry(entry) for entry in listed)
    safe_paths.check_paths((f.path for f in files), "path")
    if not files or (not directory and len(files) != 1):
        raise ValueError(f"it has {len(files)} files")
    if data["digest"] != receipt.model_digest(files, directory=directory):
        raise ValueError("its digest is not that of its files")
    return Manifest(files, version=version)


def _decode_entry(data: Any) -> FileEntry:  # noqa: ANN401
    if not isinstance(data, dict):
        raise TypeError("a file is no JSON object")
    path, size, sha256 = data["path"], data["size"], data["sha256"]
    if not isinstance(path, str):
        raise TypeError("a path is no text")
    if type(size) is not int or not 0 <= size < 2**63:
        raise ValueError(f"the size of {safe_paths.quote_path(path)} is no number of bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"the sha256 of {safe_paths.quote_path(path)} is none")
    return FileEntry(path, size, sha256)


def describe_differences(stated: Mapping[str, int], stored: Mapping[str, int | None]) -> list[str]:
    """List differences between a manifest and the store, one phrase per path; unknown sizes (None) match.

    Args:
        stated: sizes in bytes by path, as the manifest has them.
        stored: sizes in bytes by path, as the store has them; None if unknown.
    """
    phrases = []
    for path in sorted({*stated, *stored}):
        shown = safe_paths.quote_path(path)
        if path not in stored:
            phrases.append(f"{shown} is missing")
        elif path not in stated:
            phrases.append(f"{shown} is not in the manifest")
        elif (size := stored[path]) is not None and size != stated[path]:
            phrases.append(f"{shown} has {size} bytes, not {stated[path]}")
    return phrases


def mismatch_error(address: str, differences: Iterable[str]) -> MismatchError:
    """Return the error for a model unlike its manifest, with the first twenty differences."""
    phrases = list(differences)
    more = [f"and {len(phrases) - _MAX_SHOWN} more"] if len(phrases) > _MAX_SHOWN else []
    return MismatchError(
        f"{address} is not what its manifest says: {'; '.join(phrases[:_MAX_SHOWN] + more)}.",
        hint="Something was changed after the push, or a push is about to end: push the model again;"
        " leave files that do not belong to it out with --exclude.",
    )

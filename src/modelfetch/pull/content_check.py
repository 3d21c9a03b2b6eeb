"""Refuse what stands in a model's place: nothing at all, a web page, a pointer of Git LFS."""

import re
from collections.abc import Iterable
from fnmatch import fnmatch

from modelfetch.errors import WrongBytesError
from modelfetch.plan import Plan
from modelfetch.safe_paths import quote_path
from modelfetch.volume.filesystem import disk_errors
from modelfetch.volume.receipt import FileEntry
from modelfetch.volume.staged_tree import StagedTree
from modelfetch.volume.staging import StagingArea

MODEL_NAMES = (
    *("model.*", "*.joblib", "*.pkl", "*.pickle", "*.cloudpickle", "*.dill", "*.skops"),
    *(
        "*.onnx",
        "*.safetensors",
        "*.gguf",
        "*.pt",
        "*.pth",
        "*.ckpt",
        "pytorch_model*.bin",
        "*.h5",
        "*.keras",
        "*.pb",
        "*.tflite",
    ),
    *("*.bst", "*.ubj", "*.xgb", "*.lgb", "*.cbm", "*.pmml", "*.mlmodel", "*.npz", "*.engine"),
)
_PAGE_NAMES = (".html", ".htm", ".xhtml")
_PAGE_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|title|script)\b",
    re.IGNORECASE | re.DOTALL,
)
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: the first line, and a size in bytes, in less than 1 KiB
_POINTER_START = b"version https://git-lfs"
_POINTER_SIZE = re.compile(rb"^size ([0-9]{1,18})$", re.MULTILINE)
_POINTER_LIMIT = 1024
_HEAD_BYTES = 4096


def check_content(plan: Plan, files: Iterable[FileEntry], staging: StagingArea, pin: str | None) -> None:
    """Refuse staged files that are no model.

    Args:
        plan: planned objects, with what manifest and signature state.
        files: staged files.
        staging: staging area with the files.
        pin: the caller's sha256, already compared.

    Raises:
        WrongBytesError: no byte, an empty file named like a model that no manifest states, a web page that nobody
            vouches for, or a Git LFS pointer without a pin.
    """
    plain = [entry for entry in files if entry.link is None]
    stated = {obj.path for obj in plan.objects if obj.key in plan.manifest_sha256}
    _refuse_nothing(plan, plain, set() if plan.archive else stated)
    with staging.open_tree() as tree:
        _refuse_page(plan, plain, tree, pin)
        if pin is None:
            _refuse_pointers(plain, tree)


def _refuse_nothing(plan: Plan, files: list[FileEntry], stated: set[str]) -> None:
    unstated = [entry for entry in files if entry.path not in stated]
    if unstated and not any(entry.size for entry in files):
        raise WrongBytesError(f"The model at {plan.uri} is empty: 0 bytes.", hint="Upload the model again.")
    for entry in unstated:
        name = entry.path.rpartition("/")[2].lower()
        if not entry.size and any(fnmatch(name, pattern) for pattern in MODEL_NAMES):
            raise WrongBytesError(
                f"{quote_path(entry.path)} is named like a model, and is empty: 0 bytes.",
                hint="Upload it again; if it is meant to be empty, `modelfetch push` states so in the manifest.",
            )


def _refuse_page(plan: Plan, files: list[FileEntry], tree: StagedTree, pin: str | None) -> None:
    """Refuse a login or error page that a web server sent with status 200."""
    (obj, *more) = plan.objects
    if more or obj.remote.media_type != "text/html" or pin or plan.manifest_sha256 or plan.signed_sha256:
        return
    for entry in files:
        page = not obj.key.lower().endswith(_PAGE_NAMES) and _PAGE_START.match(_read_head(tree, entry, _HEAD_BYTES))
        if page:
            raise WrongBytesError(
                f"{plan.uri} is a web page, and no model: the server answers with a login or error page.",
                hint="Open the address in a browser; a token goes into MODELFETCH_BEARER_TOKEN.",
            )


def _refuse_pointers(files: list[FileEntry], tree: StagedTree) -> None:
    for entry in files:
        if not len(_POINTER_START) < entry.size < _POINTER_LIMIT:
            continue
        head = _read_head(tree, entry, _POINTER_LIMIT)
        if head.startswith(_POINTER_START):
            size = _POINTER_SIZE.search(head)
            true_size = f" of {int(size[1])} bytes" if size else ""
            raise WrongBytesError(
                f"{quote_path(entry.path)} is a Git LFS pointer to a file{true_size}, and not the file itself.",
                hint="Run `git lfs pull` before the upload, or take the download address of the file itself.",
            )


def _read_head(tree: StagedTree, entry: FileEntry, size: int) -> bytes:
    with disk_errors(tree.root / entry.path), tree.open_reader(entry.path) as file:
        return file.read(size)

"""Model repository: find the model file, check the bytes against the receipt, and load exactly the checked bytes."""

import hashlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from modelserve import runtimes
from modelserve.errors import ConfigError, NotFoundError, StartError, WrongBytesError
from modelserve.metrics import Metrics, ModelInfo
from modelserve.receipt import OLD_SUFFIX as OLD_RECEIPT_SUFFIX
from modelserve.receipt import SUFFIX as RECEIPT_SUFFIX
from modelserve.receipt import FileEntry, Receipt, find_receipt
from modelserve.runtimes.base import Runtime

log = logging.getLogger(__name__)
# Files beside a model: receipt, manifest and signature.
_SIDECAR_SUFFIXES = (RECEIPT_SUFFIX, OLD_RECEIPT_SUFFIX, ".modelfetch-manifest", ".modelfetch-manifest.json", ".sig")


class ModelSource(NamedTuple):
    """Location of the model, and the conditions for serving.

    Attributes:
        path: model file, or the directory that holds exactly one.
        name: name in URLs and metrics; by default the name of the model file's directory.
        require_receipt: refuse a model without a receipt.
        allow_version_mismatch: load a model saved by a different version of the library.
    """

    path: Path
    name: str = ""
    require_receipt: bool = False
    allow_version_mismatch: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """Loaded model with provenance.

    Attributes:
        file: the loaded file, symbolic links of directories resolved.
        receipt: None for a model without a receipt.
        loaded_at: end of the load, to the second.
        load_seconds: duration of reading, checking and loading.
    """

    name: str
    file: Path
    size: int
    sha256: str
    receipt: Receipt | None
    runtime: Runtime
    loaded_at: datetime
    load_seconds: float

    @property
    def digest(self) -> str:
        """Return the digest in the receipt, of the file or of the published directory; else the file's sha256."""
        return self.receipt.digest if self.receipt else f"sha256:{self.sha256}"

    @property
    def version(self) -> str:
        """Return the version given by the store, else the first 12 hexadecimal digits of the digest."""
        return (self.receipt and self.receipt.version) or self.digest.removeprefix("sha256:")[:12]

    @property
    def source(self) -> str:
        """Return the URI of the fetched model; empty without a receipt."""
        return self.receipt.source if self.receipt else ""


class ModelRepository:
    """The served model and the state of loading; written by the loader thread, read by the event loop.

    Attributes:
        model: None until loaded.
        failure: reason for a failed load; None otherwise.
    """

    def __init__(self, source: ModelSource, metrics: Metrics) -> None:
        self.source = source
        self.model: LoadedModel | None = None
        self.failure: StartError | None = None
        self._metrics = metrics

    def start_loading(self) -> None:
        """Load the model in a daemon thread; a running load does not delay the end of the process."""
        threading.Thread(target=self._load_model, name="load", daemon=True).start()

    def _load_model(self) -> None:
        try:
            model = load_model(self.source)
        except StartError as error:
            self.failure = error
        except BaseException as error:  # a pickle may raise every exception, SystemExit included
            log.exception("the model could not be loaded")
            self.failure = StartError(f"The model could not be loaded: {type(error).__name__}: {error}.")
        else:
            self._metrics.set_model(
                ModelInfo(
                    model.name, model.version, model.digest, model.source, model.load_seconds, receipt=model.receipt
                )
            )
            self.model = model
            facts = {"model": model.name, "digest": model.digest, "source": model.source, "seconds": model.load_seconds}
            log.info("ready", extra=facts | {"file": str(model.file), "runtime": model.runtime.library})


def load_model(source: ModelSource) -> LoadedModel:
    """Find, check and load the model of `source`.

    Raises:
        StartError: the model is missing, contradicts the receipt, or cannot be served here.
    """
    started = time.monotonic()
    # Resolved once per load: receipt and model file belong to one version even if a link is replaced meanwhile.
    path, directory_name = _resolve_path(source.path.absolute())
    file, listed = _find_listing(find_model_file(path))
    if listed is None:
        _check_receipt_required(file, required=source.require_receipt)
    data = _read_file(file)
    sha256 = hashlib.sha256(data).hexdigest()
    if listed is not None:
        _check_file(file, len(data), sha256, *listed)
    runtime = runtimes.load_model(file, data, allow_version_mismatch=source.allow_version_mismatch)
    return LoadedModel(
        name=source.name or directory_name or file.stem,
        file=file,
        size=len(data),
        sha256=sha256,
        receipt=listed[0] if listed else None,
        runtime=runtime,
        loaded_at=datetime.now(UTC).replace(microsecond=0),
        load_seconds=round(time.monotonic() - started, 3),
    )


def _resolve_path(path: Path) -> tuple[Path, str]:
    """Resolve symbolic links of the directory in MODEL_PATH; return the path, and the directory name as configured.

    The name of a model file is kept, for the receipt and the format. The directory name is the default name of the
    model: versions behind a link keep one name.
    """
    try:
        if path.is_dir():
            return Path(os.path.realpath(path)), path.name
    except OSError as error:
        raise _explain_unreadable(path, error) from error
    return Path(os.path.realpath(path.parent), path.name), path.parent.name


def _find_listing(file: Path) -> tuple[Path, tuple[Receipt, FileEntry] | None]:
    """Find the receipt of a model file; for a symbolic link without a receipt, use the target if a receipt lists it.

    The receipt is read before the model file: a model published in between is detected as a mismatch.
    """
    listed = find_receipt(file)
    if listed is None and file.is_symlink():
        target = Path(os.path.realpath(file))
        if (listed := find_receipt(target)) is not None:
            return target, listed
    return file, listed


def find_model_file(path: Path) -> Path:
    """Find the model file: `path` itself, or the single candidate in the directory `path`.

    Raises:
        NotFoundError: no model exists, or permissions forbid reading.
        ConfigError: several candidates exist.
    """
    try:
        if path.is_file():
            return path
        if not path.is_dir():
            raise NotFoundError(
                f"There is no model at {path}.", hint="Is MODEL_PATH where the init container puts the model?"
            )
        names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise _explain_unreadable(path, error) from error
    candidates = [n for n in names if runtimes.is_model_name(n) and not n.endswith(_SIDECAR_SUFFIXES)]
    if len(candidates) == 1:
        return path / candidates[0]
    if candidates:
        raise ConfigError(
            f"{path} holds several models: {_format_names(candidates)}.", hint="Set MODEL_PATH to the one to serve."
        )
    *globs, last_glob = runtimes.MODEL_GLOBS
    raise NotFoundError(
        f"{path} holds no {', '.join(globs)} or {last_glob} file, only: {_format_names(names) or 'nothing'}.",
        hint="Set MODEL_PATH to the model file.",
    )


def _format_names(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _read_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _explain_unreadable(file, error) from error


def _explain_unreadable(path: Path, error: OSError) -> NotFoundError:
    return NotFoundError(
        f"{path} cannot be read: {error.strerror or error}.", hint="Its permissions must let this user read it."
    )


def _check_receipt_required(file: Path, *, required: bool) -> None:
    message = f"{file} has no receipt: nothing says where it came from, nor that it is whole."
    if required:
        raise WrongBytesError(message, hint="Fetch it with modelfetch pull, or unset MODELSERVE_REQUIRE_RECEIPT.")
    log.warning(message)


def _check_file(file: Path, size: int, sha256: str, receipt: Receipt, entry: FileEntry) -> None:
    hint = "The file was changed after it was fetched: pull the model again."
    if size != entry.size:
        raise WrongBytesError(f"{file} has {size} bytes, and its receipt {receipt.path} says {entry.size}.", hint=hint)
    if sha256 != entry.sha256:
        raise WrongBytesError(
            f"{file} has the sha256 {sha256}, and its receipt {receipt.path} says {entry.sha256}.", hint=hint
        )

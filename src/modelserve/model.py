"""The model: found, checked against its receipt, and loaded from the very bytes that were checked."""

import hashlib
import logging
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from modelserve import receipt as receipts
from modelserve import runtimes
from modelserve.errors import ConfigError, NotFoundError, WrongBytesError
from modelserve.receipt import Entry, Receipt
from modelserve.runtimes.base import Runtime
from modelserve.settings import Settings

log = logging.getLogger(__name__)
_NO_MODEL = (receipts.SUFFIX, ".sig")  # what stands beside a model: its receipt, its signature
_CANDIDATE = re.compile(r"(.+\.(joblib|pkl|pickle)(\.(gz|z|bz2|xz|lzma|lz4))?|model\..+)", re.IGNORECASE)


@dataclass(frozen=True)
class Model:
    """A loaded model and where it came from; `seconds` is what reading, checking and loading took."""

    name: str
    file: Path
    size: int
    sha256: str
    receipt: Receipt | None
    runtime: Runtime
    loaded: datetime
    seconds: float

    @property
    def digest(self) -> str:
        """The receipt's digest: of the file, or of the directory that it was published with."""
        return self.receipt.digest if self.receipt else f"sha256:{self.sha256}"

    @property
    def version(self) -> str:
        """The version that the store gave, else the first 12 hexadecimal digits of the digest."""
        return (self.receipt and self.receipt.version) or self.digest.removeprefix("sha256:")[:12]

    @property
    def source(self) -> str:
        """Where the model was fetched from; empty without a receipt."""
        return self.receipt.source if self.receipt else ""


def load(settings: Settings) -> Model:
    """Load the model that the settings point to.

    Raises:
        StartError: it is not there, not what its receipt says, or cannot be served here.
    """
    started = time.monotonic()
    file = find(settings.model_path.absolute())
    found = receipts.find(file)  # read before the file: a model published in between is seen as a mismatch
    if found is None:
        _without_receipt(file, required=settings.require_receipt)
    data = _read(file)
    sha256 = hashlib.sha256(data).hexdigest()
    if found is not None:
        _check(file, len(data), sha256, *found)
    runtime = runtimes.load(file, data, allow_version_mismatch=settings.allow_version_mismatch)
    return Model(
        name=settings.model_name or file.parent.name or file.stem,
        file=file,
        size=len(data),
        sha256=sha256,
        receipt=found[0] if found else None,
        runtime=runtime,
        loaded=datetime.now(UTC).replace(microsecond=0),
        seconds=round(time.monotonic() - started, 3),
    )


def find(path: Path) -> Path:
    """The model file: `path` itself, or the one candidate in the directory `path`.

    Raises:
        NotFoundError: there is none, or it may not be read.
        ConfigError: there are several.
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
        raise _unreadable(path, error) from error
    candidates = [n for n in names if _CANDIDATE.fullmatch(n) and not n.endswith(_NO_MODEL)]
    if len(candidates) == 1:
        return path / candidates[0]
    if candidates:
        raise ConfigError(
            f"{path} holds several models: {_some(candidates)}.", hint="Set MODEL_PATH to the one to serve."
        )
    raise NotFoundError(
        f"{path} holds no *.joblib, *.pkl, *.pickle or model.* file, only: {_some(names) or 'nothing'}.",
        hint="Set MODEL_PATH to the model file.",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(path: Path, error: OSError) -> NotFoundError:
    return NotFoundError(
        f"{path} cannot be read: {error.strerror or error}.", hint="Its permissions must let this user read it."
    )


def _without_receipt(file: Path, *, required: bool) -> None:
    message = f"{file} has no receipt: nothing says where it came from, nor that it is whole."
    if required:
        raise WrongBytesError(message, hint="Fetch it with modelfetch pull, or unset MODELSERVE_REQUIRE_RECEIPT.")
    log.warning(message)


def _check(file: Path, size: int, sha256: str, receipt: Receipt, entry: Entry) -> None:
    hint = "The file was changed after it was fetched: pull the model again."
    if size != entry.size:
        raise WrongBytesError(f"{file} has {size} bytes, and its receipt {receipt.path} says {entry.size}.", hint=hint)
    if sha256 != entry.sha256:
        raise WrongBytesError(
            f"{file} has the sha256 {sha256}, and its receipt {receipt.path} says {entry.sha256}.", hint=hint
        )

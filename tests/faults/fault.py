"""Definition of a fault: an injection between store and volume, and the allowed endings of the pull."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.network_route import NetworkRoute
from tests.faults.stored_models import SHAPES, StoredModel

RIGHT = "right"
TRANSIENT, CHANGED = "75 transient", "75 changed"
MISMATCH, REFUSED, NOT_FOUND, CREDENTIALS = "65 mismatch", "69 refused", "66 not_found", "77 credentials"
STORES = ("s3", "gcs")
RANGED_SHAPES = ("object", "archive")  # shapes whose victim needs more than one request
SHORT_STALL_TIMEOUT = {"MODELFETCH_STALL_TIMEOUT": "1s"}
ONE_RETRY = {"MODELFETCH_RETRIES": "1"}  # for permanent faults: each attempt lasts some seconds
TEN_RETRIES = {"MODELFETCH_RETRIES": "10"}
SIGN_IN_PAGE = b"<html><head><title>Sign in</title></head><body><p>Welcome to the network.</p></body></html>\n"
HTML_RESPONSE: dict[str, Any] = {"status": 200, "headers": {"Content-Type": "text/html"}, "body": SIGN_IN_PAGE}


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        name: the fault in plain words.
        inject: causes the fault, now or at a later request.
        endings: the allowed endings: right, or an exit code with its reason.
        shapes: the affected shapes of models.
        stores: the affected stores.
        variants: number of variants for a model.
        env: settings of the pull.
        changes_objects: whether stored objects change.
        gzip_encoded: whether the objects are stored compressed, with contentEncoding gzip.
    """

    name: str
    inject: Callable[[NetworkRoute], object]
    endings: tuple[str, ...] = (RIGHT,)
    shapes: tuple[str, ...] = SHAPES
    stores: tuple[str, ...] = STORES
    variants: Callable[[StoredModel], int] = lambda _: 1
    env: Mapping[str, str] = field(default_factory=dict)
    changes_objects: bool = False
    gzip_encoded: bool = False


def spoil_downloads(name: str, *ends: str, env: Mapping[str, str] | None = None, **what: Any) -> Fault:
    """Return a fault of the victim's download, twice by default; of range requests only if `ranged`."""
    shapes = RANGED_SHAPES if what.get("ranged") else SHAPES
    return Fault(
        name, lambda route: route.spoil_downloads(**{"times": 2, **what}), ends or (RIGHT,), shapes, env=env or {}
    )


def spoil_every_download(name: str, *ends: str, env: Mapping[str, str] | None = None, **what: Any) -> Fault:
    """Return a fault of every download of the victim."""
    return spoil_downloads(name, *ends, env={**ONE_RETRY, **(env or {})}, **{"times": None, **what})


def spoil_metadata(name: str, *ends: str, env: Mapping[str, str] | None = None, **what: Any) -> Fault:
    """Return a fault of the first metadata request, twice by default."""
    return Fault(name, lambda route: route.spoil_metadata(**{"times": 2, **what}), ends or (RIGHT,), env=env or {})

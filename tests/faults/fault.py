"""What a fault is: something done on the way between store and volume, and how a pull may end then."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.network_route import NetworkRoute
from tests.faults.stored_models import SHAPES, StoredModel

RIGHT = "right"
TRANSIENT, CHANGED = "75 transient", "75 changed"
MISMATCH, REFUSED, NOT_FOUND, CREDENTIALS = "65 mismatch", "69 refused", "66 not_found", "77 credentials"
STORES = ("s3", "gcs")
RANGED_SHAPES = ("object", "archive")  # the shapes whose victim is fetched in more than one request
SHORT_STALL_TIMEOUT = {"MODELFETCH_STALL_TIMEOUT": "1s"}
ONE_RETRY = {"MODELFETCH_RETRIES": "1"}  # for what does not heal: each try lasts some seconds
TEN_RETRIES = {"MODELFETCH_RETRIES": "10"}
SIGN_IN_PAGE = b"<html><head><title>Sign in</title></head><body><p>Welcome to the network.</p></body></html>\n"
HTML_RESPONSE: dict[str, Any] = {"status": 200, "headers": {"Content-Type": "text/html"}, "body": SIGN_IN_PAGE}


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: what is done.
        lay: does it, or prepares that it will happen.
        ends: how the pull may end: right, or an exit code with its reason.
        shapes: of the models that it can befall.
        stores: on which it can.
        variants: in how many ways it can befall a model.
        env: settings of the pull.
        alters: whether it changes what is stored.
        packed: whether the objects are stored compressed, with contentEncoding gzip.
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
    """A fault of the victim's download, twice unless told otherwise; where there is none but by ranges, of those."""
    shapes = RANGED_SHAPES if what.get("ranged") else SHAPES
    return Fault(name, lambda way: way.spoil_downloads(**{"times": 2, **what}), ends or (RIGHT,), shapes, env=env or {})


def spoil_every_download(name: str, *ends: str, env: Mapping[str, str] | None = None, **what: Any) -> Fault:
    """A fault of every download of the victim."""
    return spoil_downloads(name, *ends, env={**ONE_RETRY, **(env or {})}, **{"times": None, **what})


def spoil_metadata(name: str, *ends: str, env: Mapping[str, str] | None = None, **what: Any) -> Fault:
    """A fault of the first question, twice unless told otherwise."""
    return Fault(name, lambda way: way.spoil_metadata(**{"times": 2, **what}), ends or (RIGHT,), env=env or {})

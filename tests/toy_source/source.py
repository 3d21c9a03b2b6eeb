"""The toy source: `toy://host:port/model/[@commit]`, a directory whose store versions the whole set."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelfetch.errors import ModelfetchError, UsageError
from modelfetch.net.retry import retry_request
from modelfetch.sources import Listing, RemoteObject, SignedRequest, Source, SourceOptions, SourceSpec
from modelfetch.sources.base import error_for_status
from modelfetch.uri import ModelURI

_ADDRESS = re.compile(r"toy://([^/]+)/([a-z]+/)(?:@([0-9a-f]+))?")


@dataclass(frozen=True)
class ToyOptions(SourceOptions):
    """Options of toy hubs: the token that the hub, and only the hub, may see."""

    token: str = field(default="", repr=False)


def parse_toy_uri(text: str) -> ModelURI:
    """Parse `toy://host:port/model/[@commit]`; a commit pins the directory.

    Raises:
        UsageError: the address has a different form.
    """
    found = _ADDRESS.fullmatch(text)
    if not found:
        raise UsageError(f"{text} is no toy address.", hint="Write toy://host:port/model/.")
    return ModelURI("toy", found[1], found[2], found[3])


def read_toy_options(environ: Mapping[str, str], common: SourceOptions) -> ToyOptions:
    """Read TOY_TOKEN."""
    return replace(ToyOptions.of(common), token=environ.get("TOY_TOKEN", ""))


class ToySource(Source):
    """A model on a toy hub."""

    has_sidecars = False

    def __init__(self, uri: ModelURI, options: SourceOptions) -> None:
        """Keep address and token; makes no request."""
        own = ToyOptions.of(options)
        super().__init__(uri, own.network)
        self._hub = f"http://{uri.bucket}"
        self._headers = {"Authorization": f"Bearer {own.token}"}

    def resolve(self) -> Listing:
        """See `Source.resolve`; asks the hub for the newest commit, or the pinned one."""
        tree: dict[str, Any] = retry_request(self._read_tree)
        objects = tuple(
            RemoteObject(
                key=f"{tree['commit']}/{file['path']}",
                path=file["path"],
                size=file["size"],
                version=tree["commit"],
                checksums={"sha256": file["sha256"]} if "sha256" in file else {},
            )
            for file in tree["files"]
        )
        return Listing(objects, directory=True, version=tree["commit"], pinned_uri=f"{self.uri}@{tree['commit']}")

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.sidecar`; the hub has none."""
        return None

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:
        """See `Source.sign`; the hub redirects the request to its CDN."""
        return SignedRequest(f"{self._hub}/files/{obj.key}", self._headers)

    def explain_refusal(self, obj: RemoteObject, status: int) -> ModelfetchError:
        """See `Source.explain_refusal`."""
        return error_for_status(status, f"{self.uri}{obj.path}")

    def _read_tree(self) -> Any:
        commit = self.uri.version or "main"
        response = self.pool.request("GET", f"{self._hub}/tree/{self.uri.key}{commit}", self._headers)
        body = response.read()  # also of a refusal: the connection is free for the next request
        if response.status != 200:
            raise error_for_status(response.status, str(self.uri))
        return json.loads(body)


SPEC = SourceSpec(("toy",), parse_toy_uri, read_toy_options, ToySource)

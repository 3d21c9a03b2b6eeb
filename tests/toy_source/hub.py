"""A hub and its CDN on loopback: the hub lists commits and redirects, the CDN serves ranges of files."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from testkit.scripted_server import (
    ScriptedServer,
    ServerRequest,
    ServerResponse,
    range_response,
    run_scripted_server,
)

TOKEN = "toy-token"


@dataclass
class ToyHub:
    """Commits of one model, served by a hub that redirects to a CDN with signed URLs.

    Attributes:
        hub: lists commits, redirects files; refuses requests without the token.
        cdn: serves files; refuses requests with a token, or with a signature of an earlier commit's.
        commits: files by path, by commit; the last commit is the newest.
        unchecked: paths without a sha256 in the listing.
    """

    hub: ScriptedServer
    cdn: ScriptedServer
    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    unchecked: frozenset[str] = frozenset()

    @property
    def address(self) -> str:
        """Return the model's address."""
        return f"toy://{self.hub.url.removeprefix('http://')}/model/"

    def count(self, path: str) -> tuple[int, int]:
        """Return the number of requests for a file to the hub and to the CDN."""
        hub = sum(request.path.endswith(f"/{path}") for request in self.hub.requests)
        return hub, sum(request.path.endswith(f"/{path}") for request in self.cdn.requests)

    def answer_hub(self, request: ServerRequest) -> ServerResponse:
        """List a commit, or redirect a file to the CDN."""
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return ServerResponse(401, body=b"who are you?")
        if request.path.startswith("/files/"):
            location = f"{self.cdn.url}/blobs/{request.path.removeprefix('/files/')}?signature=valid"
            return ServerResponse(302, (("Location", location),), b"Found elsewhere.")
        commit = request.path.rpartition("/")[2]
        commit = [*self.commits][-1] if commit == "main" else commit
        if commit not in self.commits:
            return ServerResponse(404, body=b"no such commit")
        files = [
            {"path": path, "size": len(data)}
            | ({} if path in self.unchecked else {"sha256": hashlib.sha256(data).hexdigest()})
            for path, data in self.commits[commit].items()
        ]
        return ServerResponse(body=json.dumps({"commit": commit, "files": files}).encode())

    def answer_cdn(self, request: ServerRequest) -> ServerResponse:
        """Serve a range of a file to a signed request without a token."""
        if "authorization" in request.headers or request.query.get("signature") != "valid":
            return ServerResponse(403, body=b"no")
        commit, _, path = request.path.removeprefix("/blobs/").partition("/")
        return range_response(request, self.commits[commit][path])


@contextmanager
def run_toy_hub() -> Iterator[ToyHub]:
    """Run a hub without commits and its CDN on loopback."""
    with ExitStack() as servers:
        toy = ToyHub(servers.enter_context(run_scripted_server()), servers.enter_context(run_scripted_server()))
        toy.hub.respond_with(toy.answer_hub)
        toy.cdn.respond_with(toy.answer_cdn)
        yield toy

"""What happens to the stream of bytes, below HTTP: toxiproxy in front of a server.

Its toxics and their attributes: https://github.com/Shopify/toxiproxy#toxics
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import urllib3

_NUMBERS = itertools.count()


class ToxicStream:
    """A TCP proxy of a toxiproxy server.

    Attributes:
        url: where it listens, for clients that speak HTTP.
    """

    def __init__(self, api: str, upstream: str) -> None:
        """Put a proxy in front of `upstream`, a URL with host and port."""
        self._name = f"stream-{next(_NUMBERS)}"
        self._api = f"{api}/proxies"
        self._pool = urllib3.PoolManager()
        proxy = {"name": self._name, "listen": "127.0.0.1:0", "upstream": urlsplit(upstream).netloc}
        self.url = f"http://{self._call_api('POST', '', proxy)['listen']}"

    def add_toxic(self, kind: str, **attributes: int) -> None:
        """Begin to spoil what the server sends, on open connections too; one toxic of a kind."""
        toxic = {"name": kind, "type": kind, "stream": "downstream", "attributes": attributes}
        self._call_api("POST", f"/{self._name}/toxics", toxic)

    def remove_toxic(self, kind: str) -> None:
        """Stop it."""
        self._call_api("DELETE", f"/{self._name}/toxics/{kind}")

    def refuse_connections(self) -> None:
        """End all connections and refuse new ones."""
        self._call_api("POST", f"/{self._name}", {"enabled": False})

    def accept_connections(self) -> None:
        """Take connections again."""
        self._call_api("POST", f"/{self._name}", {"enabled": True})

    def remove_all_toxics(self) -> None:
        """Spoil nothing any more."""
        for toxic in self._call_api("GET", f"/{self._name}/toxics"):
            self.remove_toxic(toxic["name"])
        self.accept_connections()

    def close(self) -> None:
        """Remove it."""
        self._call_api("DELETE", f"/{self._name}")
        self._pool.clear()

    def _call_api(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        reply = self._pool.request(method, self._api + path, body=json.dumps(body) if body else None, retries=False)
        if reply.status >= 300:
            raise RuntimeError(f"toxiproxy: {method} {path}: {reply.data.decode()}")
        return json.loads(reply.data or b"null")


@contextmanager
def open_stream(api: str, upstream: str) -> Iterator[ToxicStream]:
    """A proxy for as long as the block runs."""
    made = ToxicStream(api, upstream)
    try:
        yield made
    finally:
        made.close()

"""Faults of the byte stream, below HTTP: toxiproxy in front of a server.

Toxics and their attributes: https://github.com/Shopify/toxiproxy#toxics
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
        url: address of the proxy, for HTTP clients.
    """

    def __init__(self, api: str, upstream: str) -> None:
        """Put a proxy in front of `upstream`, a URL with host and port."""
        self._name = f"stream-{next(_NUMBERS)}"
        self._api = f"{api}/proxies"
        self._pool = urllib3.PoolManager()
        proxy = {"name": self._name, "listen": "127.0.0.1:0", "upstream": urlsplit(upstream).netloc}
        self.url = f"http://{self._call_api('POST', '', proxy)['listen']}"

    def add_toxic(self, kind: str, **attributes: int) -> None:
        """Break the server's data from now on, on open connections too; one toxic of a kind."""
        toxic = {"name": kind, "type": kind, "stream": "downstream", "attributes": attributes}
        self._call_api("POST", f"/{self._name}/toxics", toxic)

    def remove_toxic(self, kind: str) -> None:
        """Remove the toxic of one kind."""
        self._call_api("DELETE", f"/{self._name}/toxics/{kind}")

    def refuse_connections(self) -> None:
        """End all connections and refuse new connections."""
        self._call_api("POST", f"/{self._name}", {"enabled": False})

    def accept_connections(self) -> None:
        """Accept new connections again after refusal."""
        self._call_api("POST", f"/{self._name}", {"enabled": True})

    def remove_all_toxics(self) -> None:
        """Remove all toxics and accept connections."""
        for toxic in self._call_api("GET", f"/{self._name}/toxics"):
            self.remove_toxic(toxic["name"])
        self.accept_connections()

    def close(self) -> None:
        """Remove the proxy from the server."""
        self._call_api("DELETE", f"/{self._name}")
        self._pool.clear()

    def _call_api(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        reply = self._pool.request(method, self._api + path, body=json.dumps(body) if body else None, retries=False)
        if reply.status >= 300:
            raise RuntimeError(f"toxiproxy: {method} {path}: {reply.data.decode()}")
        return json.loads(reply.data or b"null")


@contextmanager
def open_stream(api: str, upstream: str) -> Iterator[ToxicStream]:
    """Provide a proxy for the duration of the block."""
    stream = ToxicStream(api, upstream)
    try:
        yield stream
    finally:
        stream.close()

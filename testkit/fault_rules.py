"""Faults of an HTTP request as `FaultProxy` injects them, and the record of each request."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Request:
    """Record of one request and its outcome.

    Attributes:
        headers: by lower-case name.
        status: of the response; 0 without a response.
        sent: body bytes sent to the client.
        rule: that broke the request, if any.
        done: whether the proxy has finished the request.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    status: int = 0
    sent: int = 0
    rule: "FaultRule | None" = None
    done: bool = False

    @property
    def range(self) -> str | None:
        """Return the Range header, if any."""
        return self.headers.get("range")

    def matches_pattern(self, method: str | None = None, path: str = "", query: str = "") -> bool:
        """Return whether the method is equal and both regular expressions are found in path and query."""
        return (
            method in (None, self.method)
            and re.search(path, self.path) is not None
            and re.search(query, self.query) is not None
        )

    def covers_offset(self, offset: int) -> bool:
        """Return whether the requested range covers this byte of the object."""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.range or "bytes=0-")
        if self.method != "GET" or span is None:
            return False
        return int(span[1]) <= offset and (not span[2] or offset <= int(span[2]))


@dataclass(kw_only=True)
class FaultRule:
    """Selects requests and describes their fault. Absent criteria match everything; absent faults change nothing.

    Attributes:
        method: of the request.
        path: regular expression to find in the percent-encoded path.
        query: regular expression to find in the query.
        ranged: whether the request has a Range header.
        covers: offset in the object that the request must cover.
        when: further condition on the request.
        nth: number of the first matching request to break, from 1.
        times: number of requests to break; None for all.

        rewrite: changes headers and query of the request before the server sees them.
        before: called before the request goes to the server.
        status: of a response sent in place of the server's.
        headers: headers to add to the response, or to replace the server's.
        extra_headers: headers to add beside the server's, possibly of equal names.
        drop: names of headers to remove; without Content-Length the end of the connection ends the body.
        body: of the response, if `status` is given.
        raw: bytes sent in place of a response, before the connection ends.
        length_off: error of the stated Content-Length, in bytes.
        slow_head: seconds between the lines of the response's head.
        http10: respond as HTTP/1.0, without a length; the end of the connection ends the body.
        chunked: send the body in chunks, without a length.
        bad_chunk: body bytes, sent in chunks, after which a chunk's size is no number.
        compress: compress the body on the way, as a proxy might.
        whole: request the whole object from the server although the client requests a range.
        flip_at: offset in the object of a byte to flip.
        cut_after: body bytes after which the connection ends, if more would follow.
        cut_at: the same limit, as the offset in the object of the first missing byte.
        clean: end a cut connection as if complete (FIN), without a reset (RST).
        stall_after: body bytes after which the response pauses.
        stall_seconds: length of the pause, unless the client leaves.
        trickle: bytes per piece, and seconds between pieces.
        edit: changes the whole body; for small bodies.
        extra: bytes sent after the body.
        reset: reset the connection in place of a response.
        redirect: send the client to the same address once more, with this status.
        silent: never respond; wait until the client leaves.
    """

    method: str | None = None
    path: str = ""
    query: str = ""
    ranged: bool | None = None
    covers: int | None = None
    when: Callable[[Request], bool] | None = None
    nth: int = 1
    times: int | None = 1

    rewrite: Callable[[Request], object] | None = None
    before: Callable[[], object] | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    extra_headers: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    body: bytes = b""
    raw: bytes = b""
    length_off: int = 0
    slow_head: float = 0.0
    http10: bool = False
    chunked: bool = False
    bad_chunk: int | None = None
    compress: bool = False
    whole: bool = False
    flip_at: int | None = None
    cut_after: int | None = None
    cut_at: int | None = None
    clean: bool = False
    stall_after: int | None = None
    stall_seconds: float = 60.0
    trickle: tuple[int, float] | None = None
    edit: Callable[[bytes], bytes] | None = None
    extra: bytes = b""
    reset: bool = False
    redirect: int = 0
    silent: bool = False
    matched: int = field(default=0, init=False)

    @property
    def hits(self) -> int:
        """Count the requests that the rule has broken."""
        broken = max(0, self.matched - self.nth + 1)
        return broken if self.times is None else min(broken, self.times)

    def claim_request(self, request: Request) -> bool:
        """Return whether to break this request; count each match."""
        offset = next((at for at in (self.covers, self.flip_at, self.cut_at) if at is not None), None)
        before = self.hits
        if (
            request.matches_pattern(self.method, self.path, self.query)
            and self.ranged in (None, request.range is not None)
            and (offset is None or request.covers_offset(offset))
            and (self.when is None or self.when(request))
        ):
            self.matched += 1
        return self.hits > before

    @property
    def sends_chunks(self) -> bool:
        """Return whether to send the body in chunks, whatever the server did."""
        return self.chunked or self.compress or self.bad_chunk is not None

    def alter_headers(self, headers: list[tuple[str, str]], *, body: bool = True) -> list[tuple[str, str]]:
        """Return a response's headers, with or without a body, as the client receives them; names may repeat."""
        gone = {name.lower() for name in (*self.drop, *self.headers)}
        if body and (self.http10 or self.sends_chunks):
            gone.add("content-length")
        kept = [(name, self._alter_length(name, value)) for name, value in headers if name.lower() not in gone]
        encoding = [("Content-Encoding", "gzip")] if self.compress else []
        return [*kept, *self.headers.items(), *self.extra_headers, *encoding]

    def _alter_length(self, name: str, value: str) -> str:
        return str(int(value) + self.length_off) if name.lower() == "content-length" else value

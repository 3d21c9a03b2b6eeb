"""What may go wrong with an HTTP request, as the fault proxy does it, and what it records of one."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request that came, and what became of it.

    Attributes:
        headers: by name in lower case.
        status: of the answer; 0 if there was none.
        sent: bytes of the body that the client was sent.
        rule: the rule that spoilt it.
        done: whether the proxy has finished with it.
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
        """Its Range header."""
        return self.headers.get("range")

    def matches_pattern(self, method: str | None = None, path: str = "", query: str = "") -> bool:
        """Whether it has this method, and these regular expressions are found in its path and query."""
        return (
            method in (None, self.method)
            and re.search(path, self.path) is not None
            and re.search(query, self.query) is not None
        )

    def covers_offset(self, offset: int) -> bool:
        """Whether this byte of the object is among those asked for."""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.range or "bytes=0-")
        if self.method != "GET" or span is None:
            return False
        return int(span[1]) <= offset and (not span[2] or offset <= int(span[2]))


@dataclass(kw_only=True)
class FaultRule:
    """Which requests go wrong, and how. Whatever is left out matches, or is left alone.

    Attributes:
        method: the request's method.
        path: a regular expression to be found in the path, which is percent-encoded.
        query: a regular expression to be found in the query.
        ranged: whether the request has a Range header.
        covers: an offset in the object that the request must ask for.
        when: a further condition, for what the others cannot tell.
        nth: the first matching request that goes wrong, from 1.
        times: how many go wrong; None for all.

        rewrite: alters headers and query of the request as the server will see it.
        before: called before the request goes to the server.
        status: the answer, given in the server's place.
        headers: headers to add to the answer, or to put in place of the server's.
        also: headers to add beside the server's, of the same names maybe.
        drop: names of headers to leave out; without Content-Length the body ends with the connection.
        body: the body of the answer, if `status` is given.
        raw: sent as it stands in place of an answer, before the connection ends.
        length_off: bytes by which the stated Content-Length is wrong.
        slow_head: seconds between the lines of the answer's head.
        old: answer as HTTP/1.0 does, without a length; the body ends with the connection.
        chunked: send the body in chunks, without a length.
        bad_chunk: bytes of the body, sent in chunks, after which the size of a chunk is no number.
        compress: compress the body on the way, as a proxy might.
        whole: ask the server for the whole object although a range was asked for.
        flip_at: the offset in the object of a byte to flip.
        cut_after: bytes of the body after which the connection ends, if more would come.
        cut_at: the same, given as the offset in the object of the first byte that does not come.
        clean: end a cut connection as if all had been said (FIN), not with a reset (RST).
        stall_after: bytes of the body after which nothing comes for a time.
        stall_seconds: how long, unless the client leaves.
        trickle: bytes per piece, and seconds between pieces.
        edit: alters the body as a whole, for those that are small.
        extra: bytes sent after the body.
        reset: reset the connection in place of an answer.
        redirect: send the client to the same address once more, with this status.
        mute: never answer; wait until the client leaves.
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
    also: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    body: bytes = b""
    raw: bytes = b""
    length_off: int = 0
    slow_head: float = 0.0
    old: bool = False
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
    mute: bool = False
    matched: int = field(default=0, init=False)

    @property
    def hits(self) -> int:
        """How many requests it has spoilt."""
        spoilt = max(0, self.matched - self.nth + 1)
        return spoilt if self.times is None else min(spoilt, self.times)

    def claim_request(self, request: Request) -> bool:
        """Whether this request is one to spoil; counts it if it matches."""
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
        """Whether the body is to be sent in chunks, however it came."""
        return self.chunked or self.compress or self.bad_chunk is not None

    def alter_headers(self, headers: list[tuple[str, str]], *, body: bool = True) -> list[tuple[str, str]]:
        """A reply's headers, with a body or without, as the client is to see them; a name may occur several times."""
        gone = {name.lower() for name in (*self.drop, *self.headers)}
        if body and (self.old or self.sends_chunks):
            gone.add("content-length")
        kept = [(name, self._alter_length(name, value)) for name, value in headers if name.lower() not in gone]
        encoding = [("Content-Encoding", "gzip")] if self.compress else []
        return [*kept, *self.headers.items(), *self.also, *encoding]

    def _alter_length(self, name: str, value: str) -> str:
        return str(int(value) + self.length_off) if name.lower() == "content-length" else value

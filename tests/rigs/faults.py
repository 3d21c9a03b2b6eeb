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
    rule: "Rule | None" = None
    done: bool = False

    @property
    def range(self) -> str | None:
        """Its Range header."""
        return self.headers.get("range")

    def matches(self, method: str | None = None, path: str = "", query: str = "") -> bool:
        """Whether it has this method, and these regular expressions are found in its path and query."""
        return (
            method in (None, self.method)
            and re.search(path, self.path) is not None
            and re.search(query, self.query) is not None
        )

    def asks_for(self, offset: int) -> bool:
        """Whether this byte of the object is among those asked for."""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.range or "bytes=0-")
        if self.method != "GET" or span is None:
            return False
        return int(span[1]) <= offset and (not span[2] or offset <= int(span[2]))


@dataclass(kw_only=True)
class Rule:
    """Which requests go wrong, and how. Whatever is left out matches, or is left alone.

    Attributes:
        method: the request's method.
        path: a regular expression to be found in the path, which is percent-encoded.
        query: a regular expression to be found in the query.
        ranged: whether the request has a Range header.
        covers: an offset in the object that the request must ask for.
        nth: the first matching request that goes wrong, from 1.
        times: how many go wrong; None for all.

        before: called before the request goes to the server.
        status: the answer, given in the server's place.
        headers: headers to add to the answer, or to put in place of the server's.
        drop: names of headers to leave out; without Content-Length the body ends with the connection.
        body: the body of the answer, if `status` is given.
        whole: ask the server for the whole object although a range was asked for.
        flip_at: the offset in the object of a byte to flip.
        cut_after: bytes of the body after which the connection ends, if more would come.
        clean: end a cut connection as if all had been said (FIN), not with a reset (RST).
        stall_after: bytes of the body after which nothing comes for a time.
        stall_seconds: how long, unless the client leaves.
        trickle: bytes per piece, and seconds between pieces.
        extra: bytes sent after the body.
        reset: reset the connection in place of an answer.
        redirect: send the client to the same address once more (307).
        mute: never answer; wait until the client leaves.
    """

    method: str | None = None
    path: str = ""
    query: str = ""
    ranged: bool | None = None
    covers: int | None = None
    nth: int = 1
    times: int | None = 1

    before: Callable[[], object] | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    body: bytes = b""
    whole: bool = False
    flip_at: int | None = None
    cut_after: int | None = None
    clean: bool = False
    stall_after: int | None = None
    stall_seconds: float = 60.0
    trickle: tuple[int, float] | None = None
    extra: bytes = b""
    reset: bool = False
    redirect: bool = False
    mute: bool = False
    matched: int = field(default=0, init=False)

    @property
    def used(self) -> int:
        """How many requests it has spoilt."""
        spoilt = max(0, self.matched - self.nth + 1)
        return spoilt if self.times is None else min(spoilt, self.times)

    def takes(self, request: Request) -> bool:
        """Whether this request is one to spoil; counts it if it matches."""
        offset = self.flip_at if self.covers is None else self.covers
        before = self.used
        if (
            request.matches(self.method, self.path, self.query)
            and self.ranged in (None, request.range is not None)
            and (offset is None or request.asks_for(offset))
        ):
            self.matched += 1
        return self.used > before

    def altered(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """A reply's headers as the client is to see them; a name may occur several times."""
        gone = {name.lower() for name in (*self.drop, *self.headers)}
        return [(name, value) for name, value in headers if name.lower() not in gone] + list(self.headers.items())

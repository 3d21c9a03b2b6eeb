"""Network faults: of streams, of responses, of bodies."""

import random
from typing import Any

from modelfetch.transfer.part_file import BLOCK_SIZE
from testkit.fault_rules import Request
from tests.faults.fault import (
    CHANGED,
    CREDENTIALS,
    HTML_RESPONSE,
    MISMATCH,
    ONE_RETRY,
    REFUSED,
    RIGHT,
    SHORT_STALL_TIMEOUT,
    TEN_RETRIES,
    TRANSIENT,
    Fault,
    spoil_downloads,
    spoil_every_download,
    spoil_metadata,
)
from tests.faults.network_route import NetworkRoute

TEN_FAST_RETRIES = {"MODELFETCH_RETRIES": "10", "MODELFETCH_RETRY_WAIT": "0.001s"}
OTHER_VERSION = {"ETag": '"0123456789abcdef0123456789abcdef"', "X-Goog-Generation": "1"}


def _limit_connection_bytes(route: NetworkRoute) -> None:
    route.stream.add_toxic("limit_data", bytes=route.model.victim_size // 8 + 80_000)


def _shift_range(request: Request) -> None:
    """Make the server send other bytes than requested."""
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    request.headers["range"] = f"bytes={int(first) + 1000}-{last}"


def _halve_range(request: Request) -> None:
    """Make the server send half of the requested range, as HTTP allows."""
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    request.headers["range"] = f"bytes={first}-{(int(first) + int(last)) // 2}"


def _cut_body_at_tenth(route: NetworkRoute) -> None:
    size = route.model.victim_size
    route.spoil_downloads(cut_at=min((route.variant + 1) * size // 10, size - 1))


def _flip_byte(route: NetworkRoute, times: int | None) -> None:
    route.spoil_downloads(flip_at=min(route.variant * BLOCK_SIZE + 12_345, route.model.victim_size - 1), times=times)


def _inject_five_faults(route: NetworkRoute) -> None:
    """Inject five random transient faults in turn."""
    pool: list[dict[str, Any]] = [
        {"reset": True}, {"cut_after": 60_000}, {"cut_after": 30_000, "clean": True}, {"status": 503},
        {"status": 500}, {"stall_after": 10_000}, {"status": 401}, {"redirect": 307}, {"flip_at": 50_000},
        {"raw": b"HTTP/1.1 2"}, {"headers": OTHER_VERSION}, {"length_off": -500}, {"bad_chunk": 20_000}, HTML_RESPONSE,
    ]  # fmt: skip
    for what in random.Random(f"{route.model.shape} {route.model.store.scheme} {route.variant}").sample(pool, 5):
        route.spoil_downloads(**what)


STREAM_FAULTS = (
    Fault("connection refused", lambda route: route.stream.refuse_connections(), (TRANSIENT,), env=ONE_RETRY),
    Fault(
        "connection refused from midway on",
        lambda route: route.spoil_downloads(before=route.stream.refuse_connections),
        (TRANSIENT,),
        env=ONE_RETRY,
    ),
    Fault("connection refused for a while", lambda route: route.refuse_connections(1.5), env=TEN_RETRIES),
    Fault(
        "every connection reset for a while",
        lambda route: route.spoil_stream("reset_peer", 4, timeout=50),
        env=TEN_RETRIES,
    ),
    Fault("no connection lives long", _limit_connection_bytes),
    Fault(
        "stream stalls for a while",
        lambda route: route.spoil_stream("timeout", 4, timeout=0),
        env={**TEN_RETRIES, **SHORT_STALL_TIMEOUT},
    ),
    Fault(
        "stream stalls",
        lambda route: route.spoil_stream("timeout", 1000, timeout=0),
        (TRANSIENT,),
        env={**ONE_RETRY, **SHORT_STALL_TIMEOUT},
    ),
    Fault("latency", lambda route: route.stream.add_toxic("latency", latency=100, jitter=50)),
    Fault("little bandwidth", lambda route: route.stream.add_toxic("bandwidth", rate=5000)),
    Fault(
        "small packets", lambda route: route.stream.add_toxic("slicer", average_size=2000, size_variation=1000, delay=0)
    ),
)
BROKEN_RESPONSES = (
    spoil_downloads("reset before the headers", times=3, reset=True),
    spoil_downloads("reset in the headers", raw=b"HTTP/1.1 206 Partial Content\r\nContent-Le"),
    spoil_downloads("closed after the headers", cut_after=0, clean=True),
    Fault("reset at a tenth of the body", _cut_body_at_tenth, variants=lambda _: 10),
    spoil_downloads("body cut short, with Content-Length", cut_after=60_000, clean=True),
    spoil_downloads("body cut short, without", cut_after=60_000, clean=True, drop=("Content-Length",)),
    spoil_every_download("every body cut short early", TRANSIENT, cut_after=10_000, clean=True),
    spoil_downloads("stall in the body", env=SHORT_STALL_TIMEOUT, stall_after=60_000),
    spoil_downloads("no answer", env=SHORT_STALL_TIMEOUT, silent=True),
    spoil_every_download("never an answer", TRANSIENT, env=SHORT_STALL_TIMEOUT, silent=True),
    spoil_downloads("trickle", trickle=(16_000, 0.001)),
    spoil_downloads("slow headers", slow_head=0.05),
    spoil_every_download(
        "slower than the time given", "75 deadline", env={"MODELFETCH_TIMEOUT": "3s"}, trickle=(1000, 0.2)
    ),
)
OVERLOADED_STORE = (
    *(
        spoil_downloads(f"{status} storm with Retry-After", times=4, status=status, headers={"Retry-After": "1"})
        for status in (429, 500, 503)
    ),
    *(spoil_downloads(f"{status} storm", times=4, status=status) for status in (408, 502, 504)),
    spoil_every_download("503 without end", TRANSIENT, status=503),
    spoil_metadata("questions: 429 storm", status=429, headers={"Retry-After": "1"}),
    spoil_metadata("questions: 500 storm", status=500),
    spoil_metadata("questions: 503 storm", status=503, headers={"Retry-After": "1"}),
    spoil_metadata("questions: 503 without end", TRANSIENT, env=ONE_RETRY, times=None, status=503),
)
REFUSED_REQUESTS = (
    spoil_downloads("401 midway", nth=2, times=1, status=401),
    spoil_downloads("403 midway", nth=2, times=1, status=403),
    spoil_every_download("401 without end", CREDENTIALS, status=401),
    spoil_every_download("403 without end", CREDENTIALS, status=403),
    Fault(
        "access taken away midway",
        lambda route: route.spoil_downloads(
            cut_after=60_000, before=lambda: route.proxy.add_rule(status=403, times=None)
        ),
        (CREDENTIALS,),
    ),
    *(spoil_downloads(f"{status} redirect", redirect=status) for status in (301, 302, 307, 308)),
    spoil_every_download("redirect loop", REFUSED, redirect=307),
)
WRONG_RESPONSES = (
    spoil_downloads("wrong Content-Range", ranged=True, headers={"Content-Range": "bytes 5-9/10"}),
    spoil_downloads("no Content-Range", ranged=True, drop=("Content-Range",)),
    spoil_downloads("other bytes than asked for", ranged=True, rewrite=_shift_range),
    spoil_downloads("206 of fewer bytes than asked for", ranged=True, rewrite=_halve_range),
    spoil_every_download("200 instead of 206", RIGHT, ranged=True, whole=True),
    spoil_downloads("another version's ETag", headers=OTHER_VERSION),
    spoil_every_download(
        "another version's ETag, in each of ten tries", CHANGED, env=TEN_FAST_RETRIES, headers=OTHER_VERSION
    ),
    spoil_downloads("empty body with 200", status=200),
    spoil_every_download("empty body with 200, always", TRANSIENT, CHANGED, status=200),
    spoil_downloads("error page with 200", **HTML_RESPONSE),
    spoil_every_download("error page with 200, always", TRANSIENT, CHANGED, **HTML_RESPONSE),
    spoil_downloads("Content-Length too small", length_off=-1000),
    spoil_downloads("Content-Length too large", env=SHORT_STALL_TIMEOUT, length_off=1000),
    spoil_downloads("Content-Length twice", extra_headers=(("Content-Length", "5"),)),
    spoil_downloads("no status line", raw=b"\x00\xff garbage\r\n\r\n"),
    spoil_every_download("HTTP/1.0 replies", RIGHT, http10=True),
    spoil_every_download("chunked replies", RIGHT, chunked=True),
    spoil_downloads("damaged chunk", bad_chunk=60_000),
    spoil_downloads("more bytes after the body", extra=b"more\r\n"),
    spoil_downloads("more bytes after the body, without Content-Length", extra=b"more\r\n", drop=("Content-Length",)),
)
ALTERED_BODIES = (
    Fault("flipped byte in each part", lambda route: _flip_byte(route, 1), variants=lambda model: model.block_count),
    Fault(
        "flipped byte in each part, always",
        lambda route: _flip_byte(route, None),
        (MISMATCH,),
        variants=lambda model: model.block_count,
    ),
    spoil_downloads("compressed on the way", times=1, compress=True),
    spoil_every_download("compressed on the way, always", MISMATCH, CHANGED, compress=True),
)
METADATA_FAULTS = (
    spoil_metadata("questions: reset", reset=True),
    spoil_metadata("questions: no answer", env=SHORT_STALL_TIMEOUT, silent=True),
    spoil_metadata("questions: no status line", raw=b"\x00\xff garbage\r\n\r\n"),
    spoil_metadata("questions: slow headers", slow_head=0.05),
    spoil_metadata("questions: answer cut short", cut_after=50, clean=True),
    spoil_metadata("questions: Content-Length too small", RIGHT, REFUSED, length_off=-10),
    spoil_metadata("questions: Content-Length too large", env=SHORT_STALL_TIMEOUT, length_off=1000),
    spoil_metadata("questions: no Content-Length", RIGHT, REFUSED, drop=("Content-Length",)),
    spoil_metadata("questions: damaged chunk", bad_chunk=50),
    spoil_metadata("questions: an answer of another kind", RIGHT, REFUSED, TRANSIENT, status=200, body=b"[]"),
    spoil_metadata("questions: redirect", RIGHT, REFUSED, redirect=307),
    spoil_metadata("questions: 403", RIGHT, CREDENTIALS, status=403),
    spoil_metadata("questions: 401", RIGHT, CREDENTIALS, status=401),
    spoil_metadata("questions: HTTP/1.0 replies", times=None, http10=True),
    spoil_metadata("questions: empty body with 200", RIGHT, REFUSED, TRANSIENT, status=200),
    spoil_metadata("questions: empty body with 200, always", REFUSED, TRANSIENT, times=None, status=200),
    spoil_metadata("questions: error page with 200", RIGHT, REFUSED, TRANSIENT, **HTML_RESPONSE),
    spoil_metadata("questions: error page with 200, always", REFUSED, TRANSIENT, times=None, **HTML_RESPONSE),
)
EVERY_RESPONSE = (
    Fault(
        "every answer is an error page with 200",
        lambda route: route.proxy.add_rule(times=None, **HTML_RESPONSE),
        (REFUSED, TRANSIENT),
        env=ONE_RETRY,
    ),
)
NETWORK_FAULTS = (
    *STREAM_FAULTS,
    *BROKEN_RESPONSES,
    *OVERLOADED_STORE,
    *REFUSED_REQUESTS,
    *WRONG_RESPONSES,
    *ALTERED_BODIES,
    *METADATA_FAULTS,
    *EVERY_RESPONSE,
    Fault(
        "five of these at once", _inject_five_faults, variants=lambda _: 5, env={**TEN_RETRIES, **SHORT_STALL_TIMEOUT}
    ),
)

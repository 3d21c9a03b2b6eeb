"""Faults of the network and of what stands in it: of streams, of replies, of their bytes."""

import random
from typing import Any

from modelfetch.transfer.part_file import BLOCK_SIZE
from testkit.faults import Request
from tests.faults.fault import (
    CHANGED,
    CREDENTIALS,
    HTML,
    MISMATCH,
    ONCE,
    PATIENT,
    REFUSED,
    RIGHT,
    STALLED,
    TRANSIENT,
    Fault,
    always,
    bodies,
    questions,
)
from tests.faults.network_route import Way

TENFOLD = {"MODELFETCH_RETRIES": "10", "MODELFETCH_RETRY_WAIT": "0.001s"}
OTHER_VERSION = {"ETag": '"0123456789abcdef0123456789abcdef"', "X-Goog-Generation": "1"}


def _limit(way: Way) -> None:
    way.stream.add("limit_data", bytes=way.model.victim_size // 8 + 80_000)


def _shifted(request: Request) -> None:
    """Have the server send other bytes than were asked for."""
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    request.headers["range"] = f"bytes={int(first) + 1000}-{last}"


def _halved(request: Request) -> None:
    """Have it send fewer, as it may."""
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    request.headers["range"] = f"bytes={first}-{(int(first) + int(last)) // 2}"


def _cut_at_a_tenth(way: Way) -> None:
    size = way.model.victim_size
    way.bodies(cut_at=min((way.nth + 1) * size // 10, size - 1))


def _flip(way: Way, times: int | None) -> None:
    way.bodies(flip_at=min(way.nth * BLOCK_SIZE + 12_345, way.model.victim_size - 1), times=times)


def _several(way: Way) -> None:
    """Five faults that heal, one after the other, chosen by chance."""
    pool: list[dict[str, Any]] = [
        {"reset": True}, {"cut_after": 60_000}, {"cut_after": 30_000, "clean": True}, {"status": 503},
        {"status": 500}, {"stall_after": 10_000}, {"status": 401}, {"redirect": 307}, {"flip_at": 50_000},
        {"raw": b"HTTP/1.1 2"}, {"headers": OTHER_VERSION}, {"length_off": -500}, {"bad_chunk": 20_000}, HTML,
    ]  # fmt: skip
    for what in random.Random(f"{way.model.shape} {way.model.store.scheme} {way.nth}").sample(pool, 5):
        way.bodies(**what)


STREAM = (
    Fault("connection refused", lambda way: way.stream.refuse(), (TRANSIENT,), env=ONCE),
    Fault(
        "connection refused from midway on",
        lambda way: way.bodies(before=way.stream.refuse),
        (TRANSIENT,),
        env=ONCE,
    ),
    Fault("connection refused for a while", lambda way: way.unreachable_for(1.5), env=PATIENT),
    Fault("every connection reset for a while", lambda way: way.during("reset_peer", 4, timeout=50), env=PATIENT),
    Fault("no connection lives long", _limit),
    Fault("stream stalls for a while", lambda way: way.during("timeout", 4, timeout=0), env={**PATIENT, **STALLED}),
    Fault("stream stalls", lambda way: way.during("timeout", 1000, timeout=0), (TRANSIENT,), env={**ONCE, **STALLED}),
    Fault("latency", lambda way: way.stream.add("latency", latency=100, jitter=50)),
    Fault("little bandwidth", lambda way: way.stream.add("bandwidth", rate=5000)),
    Fault("small packets", lambda way: way.stream.add("slicer", average_size=2000, size_variation=1000, delay=0)),
)
BROKEN = (
    bodies("reset before the headers", times=3, reset=True),
    bodies("reset in the headers", raw=b"HTTP/1.1 206 Partial Content\r\nContent-Le"),
    bodies("closed after the headers", cut_after=0, clean=True),
    Fault("reset at a tenth of the body", _cut_at_a_tenth, variants=lambda _: 10),
    bodies("body cut short, with Content-Length", cut_after=60_000, clean=True),
    bodies("body cut short, without", cut_after=60_000, clean=True, drop=("Content-Length",)),
    always("every body cut short early", TRANSIENT, cut_after=10_000, clean=True),
    bodies("stall in the body", env=STALLED, stall_after=60_000),
    bodies("no answer", env=STALLED, mute=True),
    always("never an answer", TRANSIENT, env=STALLED, mute=True),
    bodies("trickle", trickle=(16_000, 0.001)),
    bodies("slow headers", slow_head=0.05),
    always("slower than the time given", "75 deadline", env={"MODELFETCH_TIMEOUT": "3s"}, trickle=(1000, 0.2)),
)
BUSY = (
    *(
        bodies(f"{status} storm with Retry-After", times=4, status=status, headers={"Retry-After": "1"})
        for status in (429, 500, 503)
    ),
    *(bodies(f"{status} storm", times=4, status=status) for status in (408, 502, 504)),
    always("503 without end", TRANSIENT, status=503),
    questions("questions: 429 storm", status=429, headers={"Retry-After": "1"}),
    questions("questions: 500 storm", status=500),
    questions("questions: 503 storm", status=503, headers={"Retry-After": "1"}),
    questions("questions: 503 without end", TRANSIENT, env=ONCE, times=None, status=503),
)
REFUSED_MIDWAY = (
    bodies("401 midway", nth=2, times=1, status=401),
    bodies("403 midway", nth=2, times=1, status=403),
    always("401 without end", CREDENTIALS, status=401),
    always("403 without end", CREDENTIALS, status=403),
    Fault(
        "access taken away midway",
        lambda way: way.bodies(cut_after=60_000, before=lambda: way.proxy.add(status=403, times=None)),
        (CREDENTIALS,),
    ),
    *(bodies(f"{status} redirect", redirect=status) for status in (301, 302, 307, 308)),
    always("redirect loop", REFUSED, redirect=307),
)
LIES = (
    bodies("wrong Content-Range", ranged=True, headers={"Content-Range": "bytes 5-9/10"}),
    bodies("no Content-Range", ranged=True, drop=("Content-Range",)),
    bodies("other bytes than asked for", ranged=True, rewrite=_shifted),
    bodies("206 of fewer bytes than asked for", ranged=True, rewrite=_halved),
    always("200 instead of 206", RIGHT, ranged=True, whole=True),
    bodies("another version's ETag", headers=OTHER_VERSION),
    always("another version's ETag, in each of ten tries", CHANGED, env=TENFOLD, headers=OTHER_VERSION),
    bodies("empty body with 200", status=200),
    always("empty body with 200, always", TRANSIENT, CHANGED, status=200),
    bodies("error page with 200", **HTML),
    always("error page with 200, always", TRANSIENT, CHANGED, **HTML),
    bodies("Content-Length too small", length_off=-1000),
    bodies("Content-Length too large", env=STALLED, length_off=1000),
    bodies("Content-Length twice", also=(("Content-Length", "5"),)),
    bodies("no status line", raw=b"\x00\xff garbage\r\n\r\n"),
    always("HTTP/1.0 replies", RIGHT, old=True),
    always("chunked replies", RIGHT, chunked=True),
    bodies("damaged chunk", bad_chunk=60_000),
    bodies("more bytes after the body", extra=b"more\r\n"),
    bodies("more bytes after the body, without Content-Length", extra=b"more\r\n", drop=("Content-Length",)),
)
ALTERED = (
    Fault("flipped byte in each part", lambda way: _flip(way, 1), variants=lambda model: model.blocks),
    Fault(
        "flipped byte in each part, always",
        lambda way: _flip(way, None),
        (MISMATCH,),
        variants=lambda model: model.blocks,
    ),
    bodies("compressed on the way", times=1, compress=True),
    always("compressed on the way, always", MISMATCH, CHANGED, compress=True),
)
QUESTIONS = (
    questions("questions: reset", reset=True),
    questions("questions: no answer", env=STALLED, mute=True),
    questions("questions: no status line", raw=b"\x00\xff garbage\r\n\r\n"),
    questions("questions: slow headers", slow_head=0.05),
    questions("questions: answer cut short", cut_after=50, clean=True),
    questions("questions: Content-Length too small", RIGHT, REFUSED, length_off=-10),
    questions("questions: Content-Length too large", env=STALLED, length_off=1000),
    questions("questions: no Content-Length", RIGHT, REFUSED, drop=("Content-Length",)),
    questions("questions: damaged chunk", bad_chunk=50),
    questions("questions: an answer of another kind", RIGHT, REFUSED, TRANSIENT, status=200, body=b"[]"),
    questions("questions: redirect", RIGHT, REFUSED, redirect=307),
    questions("questions: 403", RIGHT, CREDENTIALS, status=403),
    questions("questions: 401", RIGHT, CREDENTIALS, status=401),
    questions("questions: HTTP/1.0 replies", times=None, old=True),
    questions("questions: empty body with 200", RIGHT, REFUSED, TRANSIENT, status=200),
    questions("questions: empty body with 200, always", REFUSED, TRANSIENT, times=None, status=200),
    questions("questions: error page with 200", RIGHT, REFUSED, TRANSIENT, **HTML),
    questions("questions: error page with 200, always", REFUSED, TRANSIENT, times=None, **HTML),
)
ANSWERS = (
    Fault(
        "every answer is an error page with 200",
        lambda way: way.proxy.add(times=None, **HTML),
        (REFUSED, TRANSIENT),
        env=ONCE,
    ),
)
NETWORK = (
    *STREAM,
    *BROKEN,
    *BUSY,
    *REFUSED_MIDWAY,
    *LIES,
    *ALTERED,
    *QUESTIONS,
    *ANSWERS,
    Fault("five of these at once", _several, variants=lambda _: 5, env={**PATIENT, **STALLED}),
)

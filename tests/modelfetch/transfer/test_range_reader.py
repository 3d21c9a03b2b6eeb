"""Range reads of one version: responses are checked, broken reads are resumed."""

import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from modelfetch.errors import ChangedError, ModelfetchError, NotFoundError, TransientError
from modelfetch.net.connection_pool import NetworkOptions
from modelfetch.sources import RemoteObject, SignedRequest, SourceOptions, open_source, parse_uri
from modelfetch.sources.base import NOTHING
from modelfetch.sources.https import HTTPSource
from modelfetch.transfer.range_reader import PartJob, RangeReader, TransferStopped, check_response, make_job
from testkit.file_tree import random_bytes
from testkit.scripted_server import (
    ScriptedServer,
    ServerRequest,
    ServerResponse,
    range_response,
    respond_always,
    run_scripted_server,
)

DATA = random_bytes(300_000)


class Kept:
    """Sink that keeps the received bytes."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.data = bytearray()
        self.checksums: Mapping[str, str] = {}

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        """A reply begins."""
        self.checksums = checksums

    def write(self, data: memoryview) -> None:
        """Bytes come."""
        self.data += data


Answer = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[tuple[Serve, list[str]]]:
    """Return a function that serves one response per request, and the list of requested ranges."""
    asked: list[str] = []
    answers: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()

        def start(*given: Answer) -> str:
            answers.extend(given)
            return f"http://127.0.0.1:{server.server_address[1]}/m.bin"

        yield start, asked
        server.shutdown()
        thread.join()


def answer(status: int, body: bytes = b"", length: int | None = None, **headers: str) -> Answer:
    """Return a response that may hold fewer bytes than stated."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return send


def kept_open(send: Answer) -> Answer:
    """The same reply, after which the connection waits for the next request."""

    def then(handler: BaseHTTPRequestHandler) -> None:
        send(handler)
        handler.close_connection = False

    return then


def part(start: int, end: int, *, sent: int | None = None, **headers: str) -> Answer:
    """A correct range, or its beginning."""
    scope = f"bytes {start}-{end - 1}/{len(DATA)}"
    return answer(206, DATA[start:end][:sent], end - start, **{"Content_Range": scope, "ETag": '"v1"', **headers})


def fetch(url: str, start: int, end: int | None, **changes: Any) -> tuple[Kept, RangeReader, int]:
    """Fetch a range; return the bytes, the reader and the reported number of bytes."""
    told: list[int] = []
    obj = RemoteObject(
        **{"key": "k", "path": "m", "size": len(DATA), "version": "v1", "pins": {"etag": '"v1"'}, **changes}
    )
    with closing(
        RangeReader(open_source(parse_uri(url), SourceOptions(NetworkOptions(stall_timeout=5))), told.append)
    ) as wire:
        wire.read_range(obj, start, end, sink := Kept())
    return sink, wire, sum(told)


def test_range_is_requested_and_progress_reported(serve: tuple[Serve, list[str]]) -> None:
    """The reported bytes add up to the range."""
    start, asked = serve
    sink, wire, told = fetch(start(part(5, 200_000)), 5, 200_000)

    assert sink.data == DATA[5:200_000]
    assert (asked, wire.retries, told) == (["bytes=5-199999"], 0, 199_995)


def test_broken_read_resumes_at_the_next_byte(serve: tuple[Serve, list[str]]) -> None:
    """No byte is requested twice."""
    start, asked = serve
    sink, wire, told = fetch(start(part(5, 200_000, sent=131_072), part(131_077, 200_000)), 5, 200_000)

    assert sink.data == DATA[5:200_000]
    assert asked[1] == "bytes=131077-199999"
    assert (wire.retries, told) == (1, 199_995)


@pytest.mark.parametrize(
    "bad",
    [
        part(0, 10),
        part(6, 11),
        answer(206, DATA[5:10]),
        answer(206, DATA[5:10], Content_Range="bytes x"),
        answer(206, DATA[5:10], Content_Range=f"bytes {'0' * 5000}5-9/{len(DATA)}"),
        answer(206, DATA[5:10], Content_Range=f"bytes 5-{'9' * 5000}/{len(DATA)}"),
        answer(500),
        answer(503),
        answer(429),
    ],
)
def test_response_of_another_range_is_requested_again(serve: tuple[Serve, list[str]], bad: Answer) -> None:
    """No byte of the wrong response is kept."""
    start, asked = serve
    sink, wire, _ = fetch(start(bad, part(5, 10)), 5, 10)

    assert sink.data == DATA[5:10]
    assert (asked, wire.retries) == (["bytes=5-9"] * 2, 1)


def test_server_without_ranges_is_read_from_the_first_byte(serve: tuple[Serve, list[str]]) -> None:
    """Bytes before the range are discarded; also with status 200 for a range."""
    start, _ = serve
    url = start(answer(200, DATA, ETag='"v1"'), answer(200, DATA[5:10], Content_Range=f"bytes 5-9/{len(DATA)}"))

    assert fetch(url, 150_000, 150_010)[0].data == DATA[150_000:150_010]
    assert fetch(url, 5, 10)[0].data == DATA[5:10]


@pytest.mark.parametrize(
    "other",
    [
        part(5, 10, ETag='"v2"'),
        answer(206, DATA[5:10], Content_Range="bytes 5-9/77", ETag='"v1"'),
        answer(200, b"other", ETag='"v1"'),
        answer(412),
        answer(416),
    ],
)
def test_response_of_another_version_is_refused_without_a_retry(serve: tuple[Serve, list[str]], other: Answer) -> None:
    """By validator, size or status; only a new pull finds the new version."""
    start, asked = serve
    with pytest.raises(ChangedError):
        fetch(start(other), 5, 10)

    assert len(asked) == 1


@pytest.mark.parametrize("start", [0, 150_000])
def test_excess_bytes_count_as_another_version(serve: tuple[Serve, list[str]], start: int) -> None:
    """The beginning of a larger object is another object, even without a stated length."""
    begin, _ = serve
    larger = answer(200, DATA + b"x", length=-1, ETag='"v1"')
    url = begin(larger, larger, answer(200, DATA, length=-1, ETag='"v1"'))  # twice: a library is needed to read it

    with pytest.raises(ChangedError):
        fetch(url, start, len(DATA))
    assert fetch(url, start, len(DATA))[0].data == DATA[start:]


@pytest.mark.parametrize("etag", ["v1", 'W/"v1"', '"v1"'])
def test_etag_with_other_quotes_or_weakness_matches(serve: tuple[Serve, list[str]], etag: str) -> None:
    """Proxies weaken ETags or drop the quotes."""
    start, _ = serve

    assert fetch(start(part(5, 10, ETag=etag)), 5, 10)[0].data == DATA[5:10]


def test_object_deleted_midway_is_not_found(serve: tuple[Serve, list[str]]) -> None:
    """Exit code 66, without a retry."""
    start, asked = serve
    with pytest.raises(NotFoundError):
        fetch(start(answer(404)), 5, 10)

    assert len(asked) == 1


def test_checksums_of_a_whole_object_reach_the_sink(serve: tuple[Serve, list[str]]) -> None:
    """Checksums stated with a part do not."""
    start, _ = serve
    stated = "sha-256=:YQ==:"
    url = start(answer(200, DATA, ETag='"v1"', Repr_Digest=stated), part(5, 10, Repr_Digest=stated))

    assert fetch(url, 0, len(DATA))[0].checksums == {"sha256": "61"}
    assert fetch(url, 5, 10)[0].checksums == {}


def test_object_of_unknown_size_is_read_to_the_end(serve: tuple[Serve, list[str]]) -> None:
    """A stated Content-Length must arrive in full."""
    start, _ = serve
    sink, wire, _ = fetch(start(answer(200, DATA[:100_000], len(DATA)), answer(200, DATA)), 0, None, size=None)

    assert sink.data == DATA
    assert wire.retries == 1


def test_local_file_is_read_by_the_same_reader(tmp_path: Path) -> None:
    """In ranges; a changed or shortened file is noticed."""
    (tmp_path / "a b%20#?.bin").write_bytes(DATA)
    source = open_source(parse_uri(str(tmp_path / "a b%20#?.bin")), SourceOptions())
    (obj,) = source.resolve().objects
    with closing(RangeReader(source, lambda _: None)) as wire:
        wire.read_range(obj, 5, 200_000, sink := Kept())
        assert sink.data == DATA[5:200_000]

        (tmp_path / "a b%20#?.bin").write_bytes(b"other")
        with pytest.raises(ChangedError):
            wire.read_range(obj, 5, 10, Kept())


FIRST, SECOND = kept_open(part(0, 1000)), kept_open(part(1000, 2000))


@pytest.mark.parametrize(
    ("answers", "asked_for"),
    [
        ([FIRST, SECOND], ["bytes=0-999", "bytes=1000-1999"]),
        ([FIRST, part(1000, 2000, sent=0), SECOND], ["bytes=0-999", "bytes=1000-1999", "bytes=1000-1999"]),
        ([FIRST, kept_open(answer(503)), SECOND], ["bytes=0-999", "bytes=1000-1999", "bytes=1000-1999"]),
        ([FIRST, kept_open(answer(401)), SECOND], ["bytes=0-999", "bytes=1000-1999", "bytes=1000-1999"]),
    ],
    ids=["as it should be", "broken off", "busy", "refused"],
)
def test_response_to_a_request_sent_ahead_is_used(
    serve: tuple[Serve, list[str]], answers: list[Answer], asked_for: list[str]
) -> None:
    """Once, if the response is good; otherwise the request is repeated."""
    start, asked = serve
    source = open_source(parse_uri(start(*answers)), SourceOptions(NetworkOptions(stall_timeout=5)))
    obj = RemoteObject("k", "m", len(DATA), "v1", pins={"etag": '"v1"'})
    with closing(RangeReader(source, lambda _: None)) as wire:
        assert not wire.send_ahead(obj, 0, 1000)  # no connection is idle yet
        wire.read_range(obj, 0, 1000, sink := Kept())
        assert wire.send_ahead(obj, 1000, 2000)
        assert wire.send_ahead(obj, 1000, 2000)  # it has been
        while len(asked) < 2:
            time.sleep(0.001)
        wire.read_range(obj, 1000, 2000, sink)

    assert sink.data == DATA[:2000]
    assert asked == asked_for


def test_unused_requests_sent_ahead_are_closed_at_the_end(serve: tuple[Serve, list[str]]) -> None:
    """No thread will read the responses."""
    start, _ = serve
    obj = RemoteObject("k", "m", len(DATA), "v1")
    wire = RangeReader(
        open_source(parse_uri(start(FIRST, SECOND)), SourceOptions(NetworkOptions(stall_timeout=5))), lambda _: None
    )
    wire.read_range(obj, 0, 1000, Kept())
    assert wire.send_ahead(obj, 1000, 2000)
    ((_, asked),) = wire._pending.values()
    wire.close()

    assert not wire._pending
    assert asked._connection.sock is None
    assert not wire.send_ahead(obj, 1000, 2000)


def test_closed_reader_sends_no_request_ahead(serve: tuple[Serve, list[str]]) -> None:
    """The thread that waited for the response ends."""
    start, asked_for = serve
    arrived, release = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        arrived.set()
        release.wait(30)
        handler.close_connection = True

    obj = RemoteObject("k", "m", len(DATA), "v1")
    wire = RangeReader(
        open_source(parse_uri(start(FIRST, hang)), SourceOptions(NetworkOptions(stall_timeout=30))), lambda _: None
    )
    wire.read_range(obj, 0, 1000, Kept())
    assert wire.send_ahead(obj, 1000, 2000)
    assert arrived.wait(30)

    def end() -> None:
        wire.close()
        release.set()

    waker = threading.Timer(0.2, end)
    waker.start()
    with pytest.raises(TransferStopped):
        wire.read_range(obj, 1000, 2000, Kept())
    waker.join()

    assert len(asked_for) == 2


def test_close_ends_a_waiting_read(serve: tuple[Serve, list[str]]) -> None:
    """At once, whatever the server does."""
    start, asked = serve
    release = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        part(0, 200_000, sent=10)(handler)
        handler.wfile.flush()
        release.wait(30)

    wire = RangeReader(
        open_source(parse_uri(start(hang)), SourceOptions(NetworkOptions(stall_timeout=60))), lambda _: None
    )
    failures: list[BaseException] = []

    def read() -> None:
        try:
            wire.read_range(RemoteObject("k", "m", len(DATA), "v1"), 0, 200_000, Kept())
        except BaseException as error:  # noqa: BLE001  whatever it is, it is looked at below
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not wire._open:
        assert thread.is_alive()
    wire.close()
    thread.join(10)
    alive = thread.is_alive()
    release.set()

    assert not alive
    assert len(asked) == 1
    assert not isinstance(failures[0], TransientError)


PINS_BY_SOURCE: dict[str, Mapping[str, str]] = {
    "file": NOTHING,
    "https": {"etag": '"v1"', "last-modified": "Tue, 01 Jan 2030 00:00:00 GMT"},
    "s3": {"etag": '"v1"', "x-amz-version-id": "3HL4"},
    "gs": {"x-goog-generation": "1700000000000000"},
}


@pytest.mark.parametrize("pins", PINS_BY_SOURCE.values(), ids=PINS_BY_SOURCE)
def test_job_survives_pickling_when_it_has_the_pins_of_a_source(pins: Mapping[str, str]) -> None:
    """A worker process receives an equal job, whatever mappings the source used."""
    obj = RemoteObject("k", "m", 100, "v1", pins=MappingProxyType(pins))
    job = make_job(SignedRequest("https://h/k?signature=s", MappingProxyType({"Authorization": "a"})), obj, 10, 20)

    assert pickle.loads(pickle.dumps(job)) == job
    assert job == PartJob(
        "https://h/k?signature=s", {"Authorization": "a"}, "k", "m", 100, offset=10, length=10, pins=dict(pins)
    )


@pytest.mark.parametrize(
    ("start", "end", "size", "expected"),
    [
        (0, 100, 100, {}),
        (0, None, 100, {}),
        (0, None, None, {}),
        (0, 10, 100, {"Range": "bytes=0-9"}),
        (10, 100, 100, {"Range": "bytes=10-99"}),
        (10, None, None, {"Range": "bytes=10-"}),
    ],
)
def test_job_asks_for_a_range_unless_for_the_whole_object(
    start: int, end: int | None, size: int | None, expected: dict[str, str]
) -> None:
    """The last byte of a `Range` header is inclusive; the end of the object may stay open."""
    job = make_job(SignedRequest("https://h/k"), RemoteObject("k", "m", size, "v1"), start, end)

    assert job.range_header == expected


RANGE_JOB = PartJob("https://h/k", {}, "k", "m", size=100, offset=10, length=10, pins={"etag": '"v1"'})
WHOLE_JOB = RANGE_JOB._replace(offset=0, length=100)
GZIP_JOB = WHOLE_JOB._replace(gzip=True)
OPEN_JOB = RANGE_JOB._replace(size=None, length=None)


@pytest.mark.parametrize(
    ("job", "status", "headers", "skipped"),
    [
        (WHOLE_JOB, 200, {"content-length": "100"}, 0),
        (WHOLE_JOB, 200, {}, 0),
        (RANGE_JOB, 200, {"content-length": "100"}, 10),
        (RANGE_JOB, 200, {"content-range": "bytes 10-19/100", "content-length": "10"}, 0),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/100"}, 0),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/*"}, 0),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/100", "etag": '"v1"'}, 0),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/100", "etag": 'W/"v1"'}, 0),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/100", "etag": "v1"}, 0),
        (OPEN_JOB, 206, {"content-range": "bytes 10-99/100"}, 0),
        (GZIP_JOB, 200, {"content-length": "60"}, 0),
    ],
    ids=[
        "200 whole",
        "200 without length",
        "200 whole for a range",
        "200 with content-range",
        "206",
        "206 of unknown size",
        "same etag",
        "weak etag",
        "etag without quotes",
        "206 to an open end",
        "gzip length",
    ],
)
def test_response_of_the_requested_range_states_the_bytes_to_skip(
    job: PartJob, status: int, headers: dict[str, str], skipped: int
) -> None:
    """Only a body that starts at the object's first byte has bytes before the range."""
    assert check_response(job, status, headers) == skipped


@pytest.mark.parametrize(
    ("job", "status", "headers", "error"),
    [
        (RANGE_JOB, 206, {}, TransientError),
        (RANGE_JOB, 206, {"content-range": "bytes 0-9/100"}, TransientError),
        (RANGE_JOB, 206, {"content-range": "bytes 10-29/100"}, TransientError),
        (RANGE_JOB, 200, {"content-range": "bytes 0-9/100"}, TransientError),
        (RANGE_JOB, 206, {"content-range": "bytes */100"}, TransientError),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/101"}, ChangedError),
        (WHOLE_JOB, 200, {"content-length": "101"}, ChangedError),
        (RANGE_JOB, 200, {"content-length": "10"}, ChangedError),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/100", "etag": '"v2"'}, ChangedError),
        (RANGE_JOB, 206, {"content-range": "bytes 10-19/100", "etag": 'W/"v2"'}, ChangedError),
        (GZIP_JOB, 200, {"content-length": "60", "etag": '"v2"'}, ChangedError),
    ],
    ids=[
        "206 without content-range",
        "other range",
        "longer range",
        "other range with 200",
        "no range",
        "other size",
        "other length",
        "200 of ten bytes",
        "other etag",
        "other weak etag",
        "gzip with other etag",
    ],
)
def test_response_of_other_bytes_is_refused(
    job: PartJob, status: int, headers: dict[str, str], error: type[ModelfetchError]
) -> None:
    """Another version is a change for good; another range may be a proxy's passing fault."""
    with pytest.raises(error):
        check_response(job, status, headers)


class TokenSource(HTTPSource):
    """Web source whose requests hold two kinds of secrets."""

    def sign(self, obj: RemoteObject, *, renew: bool = False) -> SignedRequest:
        """Add a bearer token and the session token of temporary AWS credentials."""
        request = super().sign(obj, renew=renew)
        return SignedRequest(
            request.url, {**request.headers, "Authorization": "secret", "x-amz-security-token": "secret"}
        )


@pytest.fixture
def hub() -> Iterator[ScriptedServer]:
    """Server that redirects each request to `/signed/<path>` of the mirror."""
    with run_scripted_server() as server:
        yield server


@pytest.fixture
def mirror(hub: ScriptedServer) -> Iterator[ScriptedServer]:
    """Server of the bytes, at an origin different from the hub's."""
    with run_scripted_server() as server:
        hub.respond_with(
            lambda request: ServerResponse(302, (("Location", f"{server.url}/signed{request.path}"),), b"moved")
        )
        server.respond_with(serve_data)
        yield server


def serve_data(request: ServerRequest) -> ServerResponse:
    """Return the requested range of the object's first version."""
    return range_response(request, DATA, (("ETag", '"v1"'),))


def redirected_object(key: str = "m.bin") -> RemoteObject:
    """Return an object at the hub."""
    return RemoteObject(key, key, len(DATA), "v1", pins={"etag": '"v1"'})


@pytest.fixture
def reader(hub: ScriptedServer) -> Iterator[RangeReader]:
    """Reader of the hub's object, with secrets in each request."""
    source = TokenSource(parse_uri(f"{hub.url}/m.bin"), SourceOptions(NetworkOptions(stall_timeout=5)))
    with closing(RangeReader(source, lambda _: None)) as range_reader:
        yield range_reader


@pytest.mark.server
def test_second_range_goes_straight_to_the_target_of_the_redirect(
    reader: RangeReader, hub: ScriptedServer, mirror: ScriptedServer
) -> None:
    """The hub is asked once, and no secret reaches the other server."""
    sink = Kept()
    for start in range(0, 3000, 1000):
        reader.read_range(redirected_object(), start, start + 1000, sink)

    assert sink.data == DATA[:3000]
    assert [request.headers["authorization"] for request in hub.requests] == ["secret"]
    assert [request.headers["range"] for request in mirror.requests] == [
        "bytes=0-999",
        "bytes=1000-1999",
        "bytes=2000-2999",
    ]
    assert all(request.headers["if-match"] == '"v1"' for request in mirror.requests)
    assert not any("secret" in request.headers.values() for request in mirror.requests)


@pytest.mark.server
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_reader_asks_the_hub_again_when_the_redirect_target_expired(
    reader: RangeReader, hub: ScriptedServer, mirror: ScriptedServer, status: int
) -> None:
    """A signed URL is valid for some minutes only; its refusal is no failure and no retry."""
    reader.read_range(redirected_object(), 0, 1000, sink := Kept())
    mirror.respond_with(lambda request: None if request.path.startswith("/new") else ServerResponse(status), serve_data)
    hub.respond_with(respond_always(ServerResponse(307, (("Location", f"{mirror.url}/new"),), b"moved")))
    for start in range(1000, 3000, 1000):
        reader.read_range(redirected_object(), start, start + 1000, sink)

    assert sink.data == DATA[:3000]
    assert len(hub.requests) == 1
    assert [request.path for request in mirror.requests] == ["/signed/m.bin", "/new", "/new"]
    assert reader.retries == 0


@pytest.mark.server
def test_refusal_by_the_target_of_a_fresh_redirect_is_final(
    reader: RangeReader, hub: ScriptedServer, mirror: ScriptedServer
) -> None:
    """A missing object stays missing: the hub is not asked without end."""
    mirror.respond_with(respond_always(ServerResponse(404)))
    with pytest.raises(NotFoundError):
        reader.read_range(redirected_object(), 0, 1000, Kept())

    assert len(hub.requests) == 1


@pytest.mark.server
def test_request_sent_ahead_follows_the_redirect(
    reader: RangeReader, hub: ScriptedServer, mirror: ScriptedServer
) -> None:
    """A second object's range, sent ahead to the hub, is fetched from the mirror without secrets."""
    other = redirected_object("m.bin.other")
    reader.read_range(redirected_object(), 0, 1000, sink := Kept())
    assert reader.send_ahead(other, 1000, 2000)
    reader.read_range(other, 1000, 2000, sink)
    assert reader.send_ahead(other, 2000, 3000)
    reader.read_range(other, 2000, 3000, sink)

    assert sink.data == DATA[:3000]
    assert [request.path for request in hub.requests] == ["/m.bin", "/m.bin.other"]
    assert [request.path for request in mirror.requests] == ["/signed/m.bin", *["/signed/m.bin.other"] * 2]
    assert not any("secret" in request.headers.values() for request in mirror.requests)

"""Fuzz targets: functions of bytes that feed a reader of hostile input and assert the reader's promises.

Our own errors are valid results; any other exception is a finding.
"""

import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import urllib3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from urllib3.connection import HTTPConnection

from modelfetch import plan, safe_paths
from modelfetch.archive.decompress import PIECE_BYTES, decompress_stream, load_codec
from modelfetch.cli import settings
from modelfetch.cli.failure_report import TERMINATION_LIMIT, report_error, write_termination_message
from modelfetch.cli.redaction import Redactor
from modelfetch.cli.settings import format_value
from modelfetch.errors import (
    ModelfetchError,
    NotFoundError,
    TransientError,
    UnsafeNameError,
    UsageError,
    WrongBytesError,
)
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions, Response
from modelfetch.net.http1 import KeepAliveResponse, RedirectedResponse, ResponseHead, parse_head
from modelfetch.provenance import manifest
from modelfetch.sources import Listing, RemoteObject, SourceOptions, open_source, parse_uri
from modelfetch.sources.base import SignedRequest, parse_number, parse_retry_after
from modelfetch.sources.gcs.source import GCSSource
from modelfetch.sources.gcs.spec import GCSOptions, pin_gcs_uri
from modelfetch.sources.https import HTTPSource
from modelfetch.sources.s3.source import S3Source
from modelfetch.sources.s3.spec import S3Options, pin_s3_uri
from modelfetch.transfer.range_reader import check_response, make_job
from modelfetch.volume import receipt
from modelfetch.volume.resume_journal import ResumeJournal
from testkit.archives import GuardedExtractor
from tests.fuzz import archive_seeds

Target = Callable[[bytes], None]

MAX_BYTES = 2**22
_HEX = re.compile(r"([0-9a-f]{2})*")
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="modelfetch-fuzz-", dir=_MEMORY)


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _check_message(error: ModelfetchError, limit: int = 6000) -> None:
    """Check that the message is not empty and short enough to read."""
    assert 0 < len(error.message) < limit


def _check_one_line(error: ModelfetchError) -> None:
    """Check that the message is short and printable."""
    _check_message(error, 1000)
    assert error.message.isprintable()


def _check_hint(error: ModelfetchError) -> None:
    """Check that the error has a hint."""
    assert error.hint


def extract_archives(data: bytes) -> None:
    """Extract an archive: the files on disk stay within the budget, and nothing else appears."""
    with _temporary_directory() as place:
        try:
            root = GuardedExtractor(Path(place))(archive_seeds.wrap_archive(data), max_bytes=MAX_BYTES, max_files=50)
        except WrongBytesError as error:
            _check_one_line(error)
            return
        states = [path.lstat() for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        assert sum({state.st_ino: state.st_size for state in states}.values()) <= MAX_BYTES


def decompress_streams(data: bytes) -> None:
    """Decompress a stream of any format: pieces are bounded, and the stream ends."""
    kinds = ("gzip", "deflate", "bzip2", "xz", "zstd")
    kind, step = kinds[data[0] % len(kinds)] if data else "gzip", (1, 100, 100_000)[len(data) % 3]
    pieces = iter([data[start : start + step] for start in range(1, len(data), step)])
    size = 0
    with suppress(WrongBytesError):
        for piece in decompress_stream(pieces, load_codec(kind)):
            assert 0 < len(piece) <= PIECE_BYTES
            size += len(piece)
            if size > 100 * PIECE_BYTES:
                return


def check_names(data: bytes) -> None:
    """Check names, one a line: accepted names stay inside and keep their spelling on disk."""
    paths = [_decode_text(line) for line in data.split(b"\n")][:200]
    try:
        safe_paths.check_paths(paths)
    except UnsafeNameError as error:
        _check_one_line(error)
        return
    with _temporary_directory() as place:
        for path in paths:
            at = Path(place, path)
            with suppress(OSError):  # too long below this directory
                at.parent.mkdir(parents=True, exist_ok=True)
                at.touch(exist_ok=False)
                assert at.resolve() == at
                assert at.relative_to(place).as_posix() == path
        existing = {found.relative_to(place).as_posix() for found in Path(place).rglob("*") if found.is_file()}
        assert existing <= set(paths)


def parse_uris(data: bytes) -> None:
    """Parse a URI: an accepted URI can be printed, named and parsed again."""
    try:
        parsed = parse_uri(_decode_text(data))
    except UsageError as error:
        _check_hint(error)
        return
    assert "\0" not in parsed.key
    str(parsed).encode()
    assert "/" not in parsed.name
    if parsed.version:
        pin = {"s3": pin_s3_uri, "gs": pin_gcs_uri}[parsed.scheme]
        assert parse_uri(pin(parsed, parsed.version)) == parsed


def check_ranges(data: bytes) -> None:
    """Check response headers: the requested range, or an error that a retry may heal."""
    text = data.decode("latin-1")
    job = make_job(SignedRequest("https://h/k"), RemoteObject("k", "k", 100, "v"), 5, 10)
    with suppress(TransientError):
        assert check_response(job, 206, {"content-range": text}) == 0
        assert re.fullmatch(r"bytes 0*5-0*9/(100|\*)", text)
    wait, size = parse_retry_after(text), parse_number(text)
    assert wait is None or wait >= 0
    assert size is None or size >= 0


@cache
def _https_source() -> HTTPSource:
    source = open_source(parse_uri("https://h/m"), SourceOptions())
    assert isinstance(source, HTTPSource)
    return source


def parse_checksums(data: bytes) -> None:
    """Parse checksum headers: hexadecimal digests, or none."""
    text = data.decode("latin-1")
    for source in (_https_source(), _s3_source()):
        names_ = ("repr-digest", "x-goog-hash", "etag", *(f"x-amz-checksum-{name}" for name in ("crc32", "sha256")))
        try:
            found = source.checksums(dict.fromkeys(names_, text))
        except ModelfetchError as error:
            _check_message(error)
            continue
        assert all(value and _HEX.fullmatch(value) for value in found.values())


def read_receipts(data: bytes) -> None:
    """Read a receipt: an accepted receipt can be written and read again."""
    with _temporary_directory() as place:
        path = Path(place, "r")
        path.write_bytes(data)
        try:
            read = receipt.read_receipt(path)
        except WrongBytesError as error:
            _check_message(error)
            return
        receipt.is_intact(read, Path(place))
        path.write_text(read.to_json(), encoding="utf-8", errors="surrogatepass")


def read_manifests(data: bytes) -> None:
    """Read a manifest: accepted names are safe, numbers in range."""
    for directory in (True, False):
        try:
            read = manifest.parse_manifest(data, "m", directory=directory)
        except WrongBytesError as error:
            _check_message(error)
            continue
        safe_paths.check_paths(f.path for f in read.files)
        assert all(0 <= f.size < 2**63 and len(f.sha256) == 64 for f in read.files)
        assert (
            manifest.parse_manifest(read.to_json(directory=directory).encode(), "m", directory=directory).files
            == read.files
        )


def read_journals(data: bytes) -> None:
    """Read a journal left by a crash or forged: usable or ignored."""
    with _temporary_directory() as place:
        path = Path(place, "j")
        path.write_bytes(b'{"plan": "p"}\n' + data if data[:1] != b"{" else data)
        journal = ResumeJournal(path, "p")
        journal.open()
        journal.record_block("a", 0, 1)
        journal.close()
        assert ResumeJournal(path, "p").block_crcs["a", 0] == 1


SETTINGS = ("max_bytes", "timeout", "include", "sha256", "retries", "max_ratio", "memory", "retry_wait", "anonymous")


def load_settings(data: bytes) -> None:
    """Load a setting: a usable value, or an error with a hint."""
    field = SETTINGS[data[0] % len(SETTINGS)] if data else SETTINGS[0]
    try:
        value = getattr(settings.load_settings({field: _decode_text(data[1:])}), field)
    except UsageError as error:
        _check_hint(error)
        return
    if isinstance(value, float | int):
        assert isinstance(value, int) or math.isfinite(value) or field == "max_ratio"
        assert value < 2**63 + 1 or field in ("retries", "max_ratio")
    format_value(field, value)


@cache
def _s3_source() -> S3Source:
    os.environ.setdefault("AWS_REGION", "us-east-1")
    source = open_source(parse_uri("s3://b/p/"), S3Options(anonymous=True, endpoint="http://h.invalid"))
    assert isinstance(source, S3Source)
    return source


class _ResponseBody:
    """The part of a response body that botocore uses."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self) -> Iterator[bytes]:
        yield self._data


def list_s3_pages(data: bytes) -> None:
    """List a bucket with the same page repeated, parsed by the SDK."""

    def reply(**_: Any) -> AWSResponse:
        return AWSResponse("http://h.invalid", 200, HTTPHeaders(), _ResponseBody(data))

    source = _s3_source()
    events: Any = source._client.meta.events  # its stubs let no handler return anything
    events.register_first("before-send.s3", reply)
    try:
        _check_listing(lambda: source._list_prefix(source._client, NotFoundError("There is nothing.")))
    finally:
        events.unregister("before-send.s3", reply)


class _FixedResponsePool(ConnectionPool):
    """Returns the same response to every request."""

    def __init__(self) -> None:
        super().__init__(NetworkOptions())
        self.data = b""

    def request(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        return urllib3.HTTPResponse(io.BytesIO(self.data), preload_content=False)


@cache
def _gcs_source() -> tuple[GCSSource, _FixedResponsePool]:
    source = open_source(parse_uri("gs://b/p/"), GCSOptions(emulator="http://h.invalid"))
    assert isinstance(source, GCSSource)
    source.pool = canned = _FixedResponsePool()
    return source, canned


def list_gcs_pages(data: bytes) -> None:
    """List a GCS bucket with the same page repeated."""
    source, canned = _gcs_source()
    canned.data = data
    _check_listing(source._list_prefix)


def _check_listing(find: Callable[[], Listing]) -> None:
    """Check that every planned path is below the prefix, and would be below any directory."""
    try:
        found = find()
        assert all(o.key.startswith("p/") and o.key[2:] == o.path for o in found.objects)
        assert all(_HEX.fullmatch(value) for o in found.objects for value in o.checksums.values())
        wanted = plan.make_plan(found, parse_uri("s3://b/p/"), plan.PlanLimits(max_files=100))
    except ModelfetchError as error:
        _check_message(error)
        return
    for path in (*(o.path for o in wanted.objects), *wanted.folders):
        assert os.path.normpath(f"/d/{path}") == f"/d/{path}"
    assert all((o.size or 0) >= 0 for o in wanted.objects)
    str(wanted.resume_key)


class _ReceivingSocket:
    """Socket that receives `data` in pieces of `step` bytes, and then the end of the connection."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = io.BytesIO(data), step

    def sendall(self, _: bytes) -> None:
        """Drop the request."""

    def recv(self, size: int) -> bytes:
        return self._data.read(min(size, self._step))

    def recv_into(self, buffer: memoryview) -> int:
        return self._data.readinto(buffer[: self._step])

    def makefile(self, _: str) -> io.BytesIO:
        return self._data


class _OfflinePool(ConnectionPool):
    """Pool whose connections receive `data`, and whose requests through urllib3 are counted."""

    def __init__(self, data: bytes) -> None:
        super().__init__(NetworkOptions())
        self.urllib3_requests = 0
        self._data = data

    def _request_urllib3(self, method: str, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        self.urllib3_requests += 1
        return urllib3.HTTPResponse(io.BytesIO(), preload_content=False)

    def _connect_to(self, _: str) -> HTTPConnection:
        step = (1, 100, 100_000)[len(self._data) % 3]
        connection = SimpleNamespace(sock=_ReceivingSocket(self._data, step), is_connected=False, close=lambda: None)
        return cast("HTTPConnection", connection)


def read_response_heads(data: bytes) -> None:
    """Read a response to a GET: as http.client reads the same bytes, or left to urllib3."""
    pool = _OfflinePool(data)
    response: Response | RedirectedResponse
    try:
        response = pool._get_once("http://h.invalid/k", {})
    except RedirectedResponse as redirect:
        response = redirect
    except TransientError as error:  # the connection ended before the response did, or the head is too long
        _check_hint(error)
        end = data.find(b"\r\n\r\n") + 4
        assert end < 4 or end > _MAX_LINE or parse_head(data[:end]).length > len(data) - end
        return
    if not isinstance(response, KeepAliveResponse | RedirectedResponse):
        assert pool.urllib3_requests == 1
        return
    assert pool.urllib3_requests == 0
    head = _parse_checked_head(data)
    if isinstance(response, RedirectedResponse):
        assert response.location == head.headers["location"]
    else:
        _check_body(response, data[data.index(b"\r\n\r\n") + 4 :], head.length)


_MAX_LINE, _MAX_FIELDS = 65_536, 100  # limits of http.client; ours takes any number of fields


def _parse_checked_head(data: bytes) -> ResponseHead:
    """Return the head as we parse it; http.client finds the same status, headers, length and use of the connection."""
    end = data.index(b"\r\n\r\n") + 4
    head = parse_head(data[:end])
    if end > _MAX_LINE or data.count(b"\r\n", 0, end) > _MAX_FIELDS:
        return head
    reference = HTTPResponse(cast("Any", _ReceivingSocket(data, len(data))), method="GET")
    reference.begin()
    headers: dict[str, str] = {}
    for name, value in reference.headers.items():
        key, text = name.lower(), value.strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    assert (head.status, head.headers) == (reference.status, headers)
    assert not re.search(r"[\0-\x08\x0a-\x1f\x7f]", "".join(headers.values()))
    assert not (head.keeps_alive and reference.will_close)
    if head.status < 400:
        assert not reference.chunked
        assert head.length == reference.length
    return head


def _check_body(response: KeepAliveResponse, received: bytes, length: int) -> None:
    """Check that the body is what was received, to the stated length, or too short."""
    body, buffer = b"", memoryview(bytearray(1000))
    try:
        while count := response.readinto(buffer):
            body += buffer[:count]
    except IncompleteRead:
        assert len(received) < length
    else:
        assert len(body) == length
    assert body == received[:length]


def write_failure_reports(data: bytes) -> None:
    """Write a failure's report: one short line of JSON without invisible characters."""
    words = _decode_text(data).split("|", 2)
    error = WrongBytesError(words[0], hint=words[1] if len(words) > 1 else "")
    with _temporary_directory() as place:
        path = Path(place, "termination-log")
        write_termination_message(path, report_error(error, words[-1]), Redactor())
        left = path.read_bytes()
    assert len(left) <= TERMINATION_LIMIT
    assert isinstance(json.loads(left), dict)
    assert not set(map(chr, (*range(32), *range(127, 160), 0x202E, 0x200B, 0xFEFF))) & set(left.decode())


TARGETS: dict[str, Target] = {
    target.__name__.replace("_", "-"): target
    for target in (
        *(
            extract_archives,
            decompress_streams,
            check_names,
            parse_uris,
            check_ranges,
            parse_checksums,
            read_receipts,
            read_manifests,
            read_journals,
            load_settings,
        ),
        *(list_s3_pages, list_gcs_pages, read_response_heads, write_failure_reports),
    )
}

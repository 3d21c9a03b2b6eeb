"""What reads hostile input, each as a function of bytes: it returns, or an assertion says what went wrong.

Our own errors are answers like any other; whatever else is raised is a finding.
"""

import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import urllib3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from modelfetch import plan, safe_paths
from modelfetch.archive.decompress import PIECE_BYTES, decompress_stream, load_codec
from modelfetch.cli.failure_report import TERMINATION_LIMIT, report_error, write_termination_message
from modelfetch.cli.redaction import Redactor
from modelfetch.cli.settings import format_value, load_settings
from modelfetch.errors import (
    ModelfetchError,
    NotFoundError,
    TransientError,
    UnsafeNameError,
    UsageError,
    WrongBytesError,
)
from modelfetch.net.connection_pool import ConnectionPool, NetworkOptions
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
from tests.fuzz import archives as wrappings

Target = Callable[[bytes], None]

MAX_BYTES = 2**22
_HEX = re.compile(r"([0-9a-f]{2})*")
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="modelfetch-fuzz-", dir=_MEMORY)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _is_told_well(error: ModelfetchError, most: int = 6000) -> None:
    """Its message is one for a person: of these many characters at most."""
    assert 0 < len(error.message) < most


def _is_one_line(error: ModelfetchError) -> None:
    """Its message is short, and shows all that it holds."""
    _is_told_well(error, 1000)
    assert error.message.isprintable()


def _has_hint(error: ModelfetchError) -> None:
    """It says what to do."""
    assert error.hint


def unpacking(data: bytes) -> None:
    """An archive: what comes out is what is on the disk, within the budget; nothing comes to lie beside it."""
    with _place() as place:
        try:
            root = GuardedExtractor(Path(place))(wrappings.wrapped(data), max_bytes=MAX_BYTES, max_files=50)
        except WrongBytesError as error:
            _is_one_line(error)
            return
        states = [path.lstat() for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        assert sum({state.st_ino: state.st_size for state in states}.values()) <= MAX_BYTES


def inflating(data: bytes) -> None:
    """A stream of any compression: bounded pieces, and an end."""
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


def naming(data: bytes) -> None:
    """Names, one a line: those that pass stay inside, and are on the disk what they were."""
    paths = [_text(line) for line in data.split(b"\n")][:200]
    try:
        safe_paths.check_paths(paths)
    except UnsafeNameError as error:
        _is_one_line(error)
        return
    with _place() as place:
        for path in paths:
            at = Path(place, path)
            with suppress(OSError):  # too long below this directory
                at.parent.mkdir(parents=True, exist_ok=True)
                at.touch(exist_ok=False)
                assert at.resolve() == at
                assert at.relative_to(place).as_posix() == path
        there = {found.relative_to(place).as_posix() for found in Path(place).rglob("*") if found.is_file()}
        assert there <= set(paths)


def addressing(data: bytes) -> None:
    """A URI: what is understood can be shown, named, and written down again."""
    try:
        parsed = parse_uri(_text(data))
    except UsageError as error:
        _has_hint(error)
        return
    assert "\0" not in parsed.key
    str(parsed).encode()
    assert "/" not in parsed.name
    if parsed.version:
        pin = {"s3": pin_s3_uri, "gs": pin_gcs_uri}[parsed.scheme]
        assert parse_uri(pin(parsed, parsed.version)) == parsed


def ranging(data: bytes) -> None:
    """Headers of a reply: the range that was asked for, or an error that another try may heal."""
    text = data.decode("latin-1")
    job = make_job(SignedRequest("https://h/k"), RemoteObject("k", "k", 100, "v"), 5, 10)
    with suppress(TransientError):
        assert check_response(job, 206, {"content-range": text}) == 0
        assert re.fullmatch(r"bytes 0*5-0*9/(100|\*)", text)
    wait, size = parse_retry_after(text), parse_number(text)
    assert wait is None or wait >= 0
    assert size is None or size >= 0


@cache
def _web() -> HTTPSource:
    source = open_source(parse_uri("https://h/m"), SourceOptions())
    assert isinstance(source, HTTPSource)
    return source


def stating(data: bytes) -> None:
    """Checksums in headers: in hexadecimal, or none."""
    text = data.decode("latin-1")
    for source in (_web(), _s3()):
        names_ = ("repr-digest", "x-goog-hash", "etag", *(f"x-amz-checksum-{name}" for name in ("crc32", "sha256")))
        try:
            found = source.checksums(dict.fromkeys(names_, text))
        except ModelfetchError as error:
            _is_told_well(error)
            continue
        assert all(value and _HEX.fullmatch(value) for value in found.values())


def receiving(data: bytes) -> None:
    """A receipt: what is read can be written, and read again."""
    with _place() as place:
        path = Path(place, "r")
        path.write_bytes(data)
        try:
            read = receipt.read_receipt(path)
        except WrongBytesError as error:
            _is_told_well(error)
            return
        receipt.is_intact(read, Path(place))
        path.write_text(read.to_json(), encoding="utf-8", errors="surrogatepass")


def declaring(data: bytes) -> None:
    """A manifest: its names are safe, its numbers are."""
    for directory in (True, False):
        try:
            read = manifest.parse_manifest(data, "m", directory=directory)
        except WrongBytesError as error:
            _is_told_well(error)
            continue
        safe_paths.check_paths(f.path for f in read.files)
        assert all(0 <= f.size < 2**63 and len(f.sha256) == 64 for f in read.files)
        assert (
            manifest.parse_manifest(read.to_json(directory=directory).encode(), "m", directory=directory).files
            == read.files
        )


def journaling(data: bytes) -> None:
    """What a crash left, or somebody else: it is taken or not."""
    with _place() as place:
        path = Path(place, "j")
        path.write_bytes(b'{"plan": "p"}\n' + data if data[:1] != b"{" else data)
        journal = ResumeJournal(path, "p")
        journal.open()
        journal.record_block("a", 0, 1)
        journal.close()
        assert ResumeJournal(path, "p").block_crcs["a", 0] == 1


SETTINGS = ("max_bytes", "timeout", "include", "sha256", "retries", "max_ratio", "memory", "retry_wait", "anonymous")


def configuring(data: bytes) -> None:
    """A setting: a value that can be used, or what is wrong with it."""
    field = SETTINGS[data[0] % len(SETTINGS)] if data else SETTINGS[0]
    try:
        value = getattr(load_settings({field: _text(data[1:])}), field)
    except UsageError as error:
        _has_hint(error)
        return
    if isinstance(value, float | int):
        assert isinstance(value, int) or math.isfinite(value) or field == "max_ratio"
        assert value < 2**63 + 1 or field in ("retries", "max_ratio")
    format_value(field, value)


@cache
def _s3() -> S3Source:
    os.environ.setdefault("AWS_REGION", "us-east-1")
    source = open_source(parse_uri("s3://b/p/"), S3Options(anonymous=True, endpoint="http://h.invalid"))
    assert isinstance(source, S3Source)
    return source


class _Body:
    """All that botocore asks of a reply's body."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self) -> Iterator[bytes]:
        yield self._data


def listing_s3(data: bytes) -> None:
    """A page of an S3 listing, as the SDK parses it; each page is followed by the same."""

    def reply(**_: Any) -> AWSResponse:
        return AWSResponse("http://h.invalid", 200, HTTPHeaders(), _Body(data))

    source = _s3()
    events: Any = source._client.meta.events  # its stubs let no handler return anything
    events.register_first("before-send.s3", reply)
    try:
        _planned(lambda: source._list_prefix(source._client, NotFoundError("There is nothing.")))
    finally:
        events.unregister("before-send.s3", reply)


class _Canned(ConnectionPool):
    """Answers every request with the same."""

    def __init__(self) -> None:
        super().__init__(NetworkOptions())
        self.data = b""

    def open(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        return urllib3.HTTPResponse(io.BytesIO(self.data), preload_content=False)


@cache
def _gcs() -> tuple[GCSSource, _Canned]:
    source = open_source(parse_uri("gs://b/p/"), GCSOptions(emulator="http://h.invalid"))
    assert isinstance(source, GCSSource)
    source.pool = canned = _Canned()
    return source, canned


def listing_gcs(data: bytes) -> None:
    """A page of a GCS listing; each page is followed by the same."""
    source, canned = _gcs()
    canned.data = data
    _planned(source._list_prefix)


def _planned(find: Callable[[], Listing]) -> None:
    """What is found and planned lies below the prefix, and would below any directory."""
    try:
        found = find()
        assert all(o.key.startswith("p/") and o.key[2:] == o.path for o in found.objects)
        assert all(_HEX.fullmatch(value) for o in found.objects for value in o.checksums.values())
        wanted = plan.make_plan(found, parse_uri("s3://b/p/"), plan.PlanLimits(max_files=100))
    except ModelfetchError as error:
        _is_told_well(error)
        return
    for path in (*(o.path for o in wanted.objects), *wanted.folders):
        assert os.path.normpath(f"/d/{path}") == f"/d/{path}"
    assert all((o.size or 0) >= 0 for o in wanted.objects)
    str(wanted.resume_key)


def telling(data: bytes) -> None:
    """A failure's words: one short line of JSON, in which everything shows."""
    words = _text(data).split("|", 2)
    error = WrongBytesError(words[0], hint=words[1] if len(words) > 1 else "")
    with _place() as place:
        path = Path(place, "termination-log")
        write_termination_message(path, report_error(error, words[-1]), Redactor())
        left = path.read_bytes()
    assert len(left) <= TERMINATION_LIMIT
    assert isinstance(json.loads(left), dict)
    assert not set(map(chr, (*range(32), *range(127, 160), 0x202E, 0x200B, 0xFEFF))) & set(left.decode())


TARGETS: dict[str, Target] = {
    target.__name__.replace("_", "-"): target
    for target in (
        *(unpacking, inflating, naming, addressing, ranging, stating, receiving, declaring, journaling, configuring),
        *(listing_s3, listing_gcs, telling),
    )
}

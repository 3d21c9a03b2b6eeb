"""Range reads pinned to one object version: validate each response, resume after a broken connection."""

import contextlib
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from modelfetch.errors import ChangedError, ModelfetchError, TransientError
from modelfetch.net.connection_pool import Response
from modelfetch.net.http1 import PendingResponse, RedirectedResponse, UnsupportedResponse
from modelfetch.net.network_errors import NETWORK_ERRORS, explain_network_error
from modelfetch.net.redirects import follow_redirect
from modelfetch.net.retry import request_attempts
from modelfetch.sources.base import (
    NOTHING,
    RemoteObject,
    SignedRequest,
    Source,
    changed_error,
    error_for_status,
    parse_number,
    parse_retry_after,
    unconfirmed_version_error,
)

CHUNK = 256 * 1024  # bytes per read: small enough to stay in a core's cache while hashed and written
_PROGRESS = 64 * 1024  # bytes after which a broken request starts a new series of attempts
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)\Z")
_EXPIRED = (400, 401, 403)  # short-lived credentials ran out; S3 says so with 400
_STALE = (*_EXPIRED, 404, 410)  # a URL that a redirect led to is not valid for ever

_ReadInto = Callable[[memoryview], int]  # fills the buffer as far as possible; returns the bytes read, 0 at the end


class PartJob(NamedTuple):
    """One range of one object version, as a picklable value: a worker process needs nothing else to fetch the bytes.

    Attributes:
        url: signed URL.
        headers: signed headers, without `Range`.
        key: object key, for messages.
        path: relative path of the file that the bytes belong to.
        size: bytes of the whole object; None if unknown.
        offset: first byte of the range, in the object and in the file.
        length: bytes of the range; None for all bytes up to the object's end.
        pins: headers that a response must repeat if it has them.
        gzip: whether the stored bytes are gzip-encoded, so that a stated length may be of either form.
        confirmed_by: header of `pins` that a response must have.
    """

    url: str
    headers: Mapping[str, str]
    key: str
    path: str
    size: int | None
    offset: int
    length: int | None
    pins: Mapping[str, str] = NOTHING
    gzip: bool = False
    confirmed_by: str = ""

    @property
    def end(self) -> int | None:
        """Return the offset behind the last byte; None for the object's end."""
        return None if self.length is None else self.offset + self.length

    @property
    def range_header(self) -> dict[str, str]:
        """Return the `Range` header; empty for the whole object."""
        if self.offset == 0 and self.end in (None, self.size):
            return {}
        return {"Range": f"bytes={self.offset}-{'' if self.end is None else self.end - 1}"}


def make_job(request: SignedRequest, obj: RemoteObject, start: int, end: int | None) -> PartJob:
    """Describe the range `[start, end)` of an object; `end` None means the object's end."""
    length = None if end is None else end - start
    # Plain dicts: a mapping proxy cannot be pickled.
    headers, pins = dict(request.headers), dict(obj.pins)
    return PartJob(request.url, headers, obj.key, obj.path, obj.size, start, length, pins, obj.gzip, obj.confirmed_by)


def check_response(job: PartJob, status: int, headers: Mapping[str, str]) -> int:
    """Check that a response with status 200 or 206 holds the range of the job's version.

    The status alone proves nothing: some S3 servers answer a ranged GET with 200, ignore `If-Match`, or send a range
    with status 200.

    Args:
        job: requested range.
        status: status code, 200 or 206.
        headers: response headers, names in lower case.

    Returns:
        Bytes to skip: the offset of the range if the body starts at the object's first byte, else 0.

    Raises:
        ChangedError: the response is of another version.
        WrongBytesError: the response does not say that its version is the requested one.
        TransientError: the response holds a different range.
    """
    for name, value in job.pins.items():
        if name in headers and _strip_validator(headers[name]) != _strip_validator(value):
            raise changed_error(job.key)
    if job.confirmed_by and job.confirmed_by not in headers:
        raise unconfirmed_version_error(job.key, job.pins[job.confirmed_by], "")
    if "content-range" in headers:
        _check_range(job, headers["content-range"])
        return 0
    if status == 206:
        raise TransientError(f"The server sent a part of {job.key} without saying which.", hint="Try again later.")
    length = parse_number(headers.get("content-length"))
    if None not in (job.size, length) and length != job.size and not job.gzip:
        raise changed_error(job.key)
    return job.offset


def _check_range(job: PartJob, stated: str) -> None:
    found = _CONTENT_RANGE.match(stated)
    if found and job.size is not None and found[3] not in ("*", str(job.size)):
        raise changed_error(job.key)
    last = job.end - 1 if job.end is not None else None
    if not found or parse_number(found[1]) != job.offset or (last is not None and parse_number(found[2]) != last):
        raise TransientError(
            f"The server sent other bytes of {job.key} than were asked for ({stated[:100]}).",
            hint="A proxy in between may be broken.",
        )


def _unpinned_error(obj: RemoteObject) -> ChangedError:
    """Return the error for a broken transfer of an object without validators: only the whole pull may begin again."""
    return ChangedError(
        f"The connection broke, and nothing tells whether the rest of {obj.key} would be of the same version.",
        hint="Try again; a server that sends an ETag lets a pull resume.",
    )


def _strip_validator(value: str) -> str:
    """Remove the weakness mark and quotes that proxies add to a validator or take away."""
    return value.removeprefix("W/").strip('"')


class Sink(Protocol):
    """Receiver of a range's bytes, in order."""

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        """Take the checksums that a response states; empty unless the response holds the whole object."""
        ...

    def write(self, data: memoryview) -> None:
        """Take the next bytes; the buffer is reused after the call."""
        ...


class MemorySink:
    """Sink that collects the bytes of one range in a buffer of fixed size."""

    def __init__(self, buffer: bytearray) -> None:
        """Fill `buffer` from its start."""
        self._buffer = buffer
        self._filled = 0

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        """Ignore the checksums: the caller knows them."""

    def write(self, data: memoryview) -> None:
        """Append `data` to the buffer."""
        self._buffer[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def take(self) -> memoryview:
        """Return the collected bytes and release the buffer."""
        buffer, self._buffer = self._buffer, bytearray()
        return memoryview(buffer)[: self._filled]


class TransferStopped(Exception):  # noqa: N818  no error: the pull ended for a different reason
    """Raised in a reading thread when the pull has ended elsewhere."""


class RangeReader:
    """Reads ranges of a source's objects, for several threads; repeats broken requests from the byte they reached."""

    def __init__(self, source: Source, advance: Callable[[int], None]) -> None:
        """Prepare to read from `source`.

        Args:
            source: signs requests and explains refusals.
            advance: called with the number of bytes of each received piece.
        """
        self.source = source
        self.retries = 0
        self.bytes_received = 0  # threads add to the number unlocked: only rates are compared
        self.advance = advance
        self._pool = source.pool
        self._stop = threading.Event()
        self._tries = request_attempts(self._stop)
        self.open_ended: set[str] = set()  # keys of objects whose end nobody stated: the connection just ended
        self._open: set[Response] = set()
        self._pending: dict[tuple[str, int, int | None], tuple[PartJob, PendingResponse]] = {}
        self._resolved: dict[str, SignedRequest] = {}  # by key: where redirects led, for an object's further ranges

    @property
    def closed(self) -> bool:
        """Return whether the pull is over, or failed elsewhere."""
        return self._stop.is_set()

    def close(self) -> None:
        """End every read at once, also reads that wait for bytes."""
        self._stop.set()
        for response in list(self._open):
            with contextlib.suppress(Exception):  # the reading thread may close the response too
                response.shutdown()
        self._drop_pending()
        self._pool.close()

    def send_ahead(self, obj: RemoteObject, start: int, end: int | None) -> bool:
        """Send the request of a later `read_range` on an idle connection, if there is one.

        Returns:
            Whether the request was sent. Failures show in `read_range`, which sends the request again.
        """
        place = (obj.key, start, end)
        if place not in self._pending and self._pool.has_idle:
            with contextlib.suppress(ModelfetchError):
                job = make_job(self._sign(obj), obj, start, end)
                pending = self._pool.send_ahead(job.url, {**job.headers, **job.range_header})
                if pending is not None:
                    self._pending[place] = (job, pending)
        if self.closed:
            self._drop_pending()
        return place in self._pending

    def _drop_pending(self) -> None:
        with contextlib.suppress(KeyError):
            while True:
                _, (_, pending) = self._pending.popitem()
                pending.close()

    def read_range(self, obj: RemoteObject, start: int, end: int | None, sink: Sink) -> None:
        """Write the bytes `[start, end)` of an object into a sink.

        Args:
            obj: object, with the pins of its version.
            start: first byte.
            end: offset behind the last byte; None for the object's end.
            sink: receives the bytes.

        Raises:
            TransientError: the connection broke too often.
            ModelfetchError: refused, changed or deleted.
        """
        offset, done = start, False
        while not done:
            begun = offset
            for attempt in self._tries:
                with attempt:
                    self.retries += attempt.retry_state.attempt_number > 1
                    try:
                        with contextlib.closing(self._read_pieces(obj, offset, end, sink)) as pieces:
                            for data in pieces:
                                sink.write(data)
                                offset += len(data)
                                self.bytes_received += len(data)
                                self.advance(len(data))
                        done = True
                    except TransientError as error:
                        if not obj.pins and offset > start:
                            raise _unpinned_error(obj) from error
                        if isinstance(error, ChangedError) or offset - begun < _PROGRESS:
                            raise
                        self.retries += 1

    def _read_pieces(
        self, obj: RemoteObject, start: int, end: int | None, sink: Sink
    ) -> Generator[memoryview, None, None]:
        with self._open_range(obj, start, end) as (read, checksums):
            sink.expect_checksums(checksums)
            left = None if end is None else end - start
            buffer = memoryview(bytearray(CHUNK if left is None else min(CHUNK, left)))
            while left is None or left > 0:
                count = read(buffer if left is None else buffer[:left])
                if self._stop.is_set():
                    raise TransferStopped
                if not count:
                    if left is None:
                        return
                    raise TransientError(f"The server sent {left} bytes too few of {obj.key}.", hint="Try again later.")
                yield buffer[:count]
                left = None if left is None else left - count
            if end == obj.size:
                _refuse_excess(read, obj)

    @contextlib.contextmanager
    def _open_range(self, obj: RemoteObject, start: int, end: int | None) -> Iterator[tuple[_ReadInto, dict[str, str]]]:
        """Open a body positioned at `start`; yields the checksums that a response for the whole object states."""
        job, response = self._send_job(obj, start, end)
        self._open.add(response)
        try:
            read = self._guard_reads(response, urlsplit(job.url).netloc)
            if response.status not in (200, 206):
                raise self._explain_status(response, obj)
            skip = check_response(job, response.status, response.headers)
            if not {"content-length", "transfer-encoding"} & response.headers.keys():
                self.open_ended.add(obj.key)
            discarded = memoryview(bytearray(min(CHUNK, skip)))
            while skip:  # a server without ranges starts at the first byte
                skip -= read(discarded[:skip]) or skip
            whole = response.status == 200 and not job.range_header
            yield read, dict(self.source.checksums(response.headers)) if whole else {}
        finally:
            self._open.discard(response)
            response.close()

    def _send_job(self, obj: RemoteObject, start: int, end: int | None) -> tuple[PartJob, Response]:
        """Return the response to the request sent ahead, else to a new one; renew URLs and credentials that ran out."""
        resolved = self._resolved.get(obj.key)
        job, response = self._take_pending(obj, start, end) or self._open_job(self._sign(obj), obj, start, end)
        if resolved is not None and response.status in _STALE:
            response.close()
            self._resolved.pop(obj.key, None)
            job, response = self._open_job(self.source.sign(obj), obj, start, end)
        if response.status in _EXPIRED:
            response.close()
            job, response = self._open_job(self.source.sign(obj, renew=True), obj, start, end)
        if response.url != job.url and job.range_header and response.status == 206:
            headers = {name: value for name, value in response.request_headers.items() if name != "Range"}
            self._resolved[obj.key] = SignedRequest(response.url, headers)
        return job, response

    def _sign(self, obj: RemoteObject) -> SignedRequest:
        """Return the request that an earlier range was redirected to, else a newly signed one."""
        return self._resolved.get(obj.key) or self.source.sign(obj)

    def _open_job(
        self, request: SignedRequest, obj: RemoteObject, start: int, end: int | None
    ) -> tuple[PartJob, Response]:
        job = make_job(request, obj, start, end)
        return job, self.source.open_range(request, job.range_header)

    def _take_pending(self, obj: RemoteObject, start: int, end: int | None) -> tuple[PartJob, Response] | None:
        """Return the job and response of a request sent ahead; None if none was sent, or the response is unusable."""
        sent = self._pending.pop((obj.key, start, end), None)
        if sent is None:
            return None
        job, pending = sent
        try:
            response = pending.read_head()
            response.url = job.url
        except RedirectedResponse as redirect:
            request = SignedRequest(*follow_redirect(job.url, job.headers, redirect.location))
            return job, self.source.open_range(request, job.range_header)
        except (UnsupportedResponse, *NETWORK_ERRORS):
            pass
        else:
            return job, response
        if self._stop.is_set():
            raise TransferStopped
        return None

    def _guard_reads(self, response: Response, host: str) -> _ReadInto:
        """Return the body's `readinto` with network errors explained."""

        def read(buffer: memoryview) -> int:
            try:
                return response.readinto(buffer)
            except NETWORK_ERRORS as error:
                if self._stop.is_set():
                    raise TransferStopped from error
                raise explain_network_error(error, host, self.source.network.stall_timeout) from error

        return read

    def _explain_status(self, response: Response, obj: RemoteObject) -> ModelfetchError:
        status = response.status
        wait = parse_retry_after(response.headers.get("retry-after"))
        response.close()
        if status == 416:
            return changed_error(obj.key)
        error = error_for_status(status, obj.key, wait=wait)
        if isinstance(error, TransientError):
            return error
        return self.source.explain_refusal(obj, status)


def _refuse_excess(read: _ReadInto, obj: RemoteObject) -> None:
    """Refuse an object that grew: without a stated length only a further byte shows the growth."""
    excess = 0
    with contextlib.suppress(TransientError):  # every requested byte has arrived
        excess = read(memoryview(bytearray(1)))
    if excess:
        raise changed_error(obj.key)

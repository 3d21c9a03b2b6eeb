"""Reads ranges of one version of an object: every reply is checked, every break resumed where it happened."""

import contextlib
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from modelfetch.errors import ChangedError, ModelfetchError, RefusedError, TransientError
from modelfetch.net.connection_pool import Response
from modelfetch.net.http1 import PendingResponse, UnsupportedResponse
from modelfetch.net.network_errors import NETWORK_ERRORS, explain_network_error
from modelfetch.net.retry import request_attempts
from modelfetch.sources.base import (
    RemoteObject,
    SignedRequest,
    Source,
    changed_error,
    error_for_status,
    parse_number,
    parse_retry_after,
)

CHUNK = 256 * 1024  # bytes read at a time: what stays in a core's cache while it is hashed and written
_PROGRESS = 64 * 1024  # bytes after which a broken request counts as a new one, not as one more failure
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)\Z")

_Reader = Callable[[memoryview], int]  # fills a buffer as far as it can, and says how far; 0 at the end


class Sink(Protocol):
    """Where the bytes of a range go, in order."""

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        """Learn the whole object's checksums, from a reply that holds the whole object."""
        ...

    def write(self, data: memoryview) -> None:
        """Take the next bytes; others will be in their place afterwards."""
        ...


class MemorySink:
    """Sink that collects the bytes of one range in a buffer of fixed size."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._filled = 0

    def expect_checksums(self, checksums: Mapping[str, str]) -> None:
        """Ignore the checksums: the caller knows them."""

    def write(self, data: memoryview) -> None:
        """Append `data` to the buffer."""
        self._buffer[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def take(self) -> memoryview:
        """What came; nothing of it is left here."""
        buffer, self._buffer = self._buffer, bytearray()
        return memoryview(buffer)[: self._filled]


class TransferStopped(Exception):  # noqa: N818  no error: the pull has ended for another reason
    """The pull is over; a thread that reads has nothing more to do."""


class RangeReader:
    """One source's connections, shared by the threads of a pull."""

    def __init__(self, source: Source, advance: Callable[[int], None]) -> None:
        """Take the source, and whom to tell of each piece that arrived, by its number of bytes."""
        self.source = source
        self.retries = 0
        self.bytes_received = 0  # bytes so far; threads add to it unlocked, for it only serves to compare rates
        self.advance = advance
        self._pool = source.pool
        self._stop = threading.Event()
        self._tries = request_attempts(self._stop)
        self._open: set[Response] = set()
        self._pending: dict[tuple[str, int, int | None], tuple[SignedRequest, PendingResponse]] = {}

    @property
    def closed(self) -> bool:
        """Whether the pull is over, or has failed elsewhere."""
        return self._stop.is_set()

    def close(self) -> None:
        """End every read at once, those that wait for bytes included."""
        self._stop.set()
        for reply in list(self._open):
            with contextlib.suppress(Exception):  # the other thread may be closing it too
                reply.shutdown()
        self._drop_pending()
        self._pool.close()

    def send_ahead(self, obj: RemoteObject, start: int, end: int | None) -> bool:
        """Send the request for bytes that will be fetched soon; whether it has been.

        It is not if no connection is idle. What goes wrong is for `fetch` to find.
        """
        place = (obj.key, start, end)
        if place not in self._pending and self._pool.has_idle:
            with contextlib.suppress(ModelfetchError):
                request = self.source.sign(obj)
                asked = self._pool.send_ahead(request.url, {**request.headers, **_range_header(obj, start, end)})
                if asked is not None:
                    self._pending[place] = (request, asked)
        if self.closed:
            self._drop_pending()
        return place in self._pending

    def _drop_pending(self) -> None:
        with contextlib.suppress(KeyError):
            while True:
                _, (_, asked) = self._pending.popitem()
                asked.close()

    def read_range(self, obj: RemoteObject, start: int, end: int | None, sink: Sink) -> None:
        """Write the bytes from `start` up to `end` (None: to the end of the object) into the sink.

        Raises:
            TransientError: it broke off too often.
            ModelfetchError: it was refused, or the object changed or went away.
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
                        if isinstance(error, ChangedError) or offset - begun < _PROGRESS:
                            raise
                        self.retries += 1

    def _read_pieces(
        self, obj: RemoteObject, start: int, end: int | None, sink: Sink
    ) -> Generator[memoryview, None, None]:
        with self._open_response(obj, start, end) as (read, checksums):
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
    def _open_response(
        self, obj: RemoteObject, start: int, end: int | None
    ) -> Iterator[tuple[_Reader, dict[str, str]]]:
        """An open body that stands at `start`, and the checksums stated with it if it is the whole object."""
        scope = _range_header(obj, start, end)
        asked, reply = self._take_pending(obj, start, end)
        if asked.url.startswith("file:"):
            with _open_file(asked.url, start) as read_file:
                yield read_file, {}
            return
        if reply is None:
            reply = self._pool.get(asked.url, {**asked.headers, **scope})
        if reply.status in (400, 401, 403):  # short-lived credentials may have run out; S3 says so with 400
            reply.close()
            asked = self.source.sign(obj, renew=True)
            reply = self._pool.get(asked.url, {**asked.headers, **scope})
        self._open.add(reply)
        try:
            read = self._body_reader(reply, urlsplit(asked.url).netloc)
            skip = self._check_response(reply, obj, start, end)
            passed_over = memoryview(bytearray(min(CHUNK, skip)))
            while skip:  # a server without ranges begins at the beginning
                skip -= read(passed_over[:skip]) or skip
            yield read, dict(self.source.checksums(reply.headers)) if reply.status == 200 and not scope else {}
        finally:
            self._open.discard(reply)
            reply.close()

    def _take_pending(self, obj: RemoteObject, start: int, end: int | None) -> tuple[SignedRequest, Response | None]:
        """The request for a range, and the reply if it has been sent ahead and was answered."""
        if (ahead := self._pending.pop((obj.key, start, end), None)) is not None:
            request, asked = ahead
            with contextlib.suppress(UnsupportedResponse, *NETWORK_ERRORS):
                return request, asked.read_head()
            if self._stop.is_set():
                raise TransferStopped
        return self.source.sign(obj), None

    def _body_reader(self, reply: Response, host: str) -> _Reader:
        def read(buffer: memoryview) -> int:
            try:
                return reply.readinto(buffer)
            except NETWORK_ERRORS as error:
                if self._stop.is_set():
                    raise TransferStopped from error
                raise explain_network_error(error, host, self.source.connect.stall_timeout) from error

        return read

    def _check_response(
        self,
        reply: Response,
        obj: RemoteObject,
        start: int,
        end: int | None,
    ) -> int:
        """Trust no reply's status alone; returns how many bytes come before `start`."""
        headers = reply.headers
        if reply.status not in (200, 206):
            raise self._refusal_error(reply, obj)
        for name, value in obj.pins.items():
            if name in headers and _strip_validator(headers[name]) != _strip_validator(value):
                raise changed_error(obj.key)
        if "content-range" in headers:  # some servers send a range with status 200
            return _check_range(headers["content-range"], obj, start, end)
        if reply.status == 206:
            raise TransientError(f"The server sent a part of {obj.key} without saying which.", hint="Try again later.")
        length = parse_number(headers.get("content-length"))
        if None not in (obj.size, length) and length != obj.size and not obj.gzip:
            raise changed_error(obj.key)
        return start

    def _refusal_error(self, reply: Response, obj: RemoteObject) -> ModelfetchError:
        status = reply.status
        wait = parse_retry_after(reply.headers.get("retry-after"))
        reply.close()
        if status == 416:
            return changed_error(obj.key)
        error = error_for_status(status, obj.key, wait=wait)
        if isinstance(error, TransientError):
            return error
        return self.source.explain_refusal(obj, status)


def _refuse_excess(read: _Reader, obj: RemoteObject) -> None:
    """Where no length is stated, what is larger than the object that was found shows only at its end."""
    more = 0
    with contextlib.suppress(TransientError):  # all that was asked for is here
        more = read(memoryview(bytearray(1)))
    if more:
        raise changed_error(obj.key)


def _strip_validator(value: str) -> str:
    """A validator without what proxies add to it or take from it: weakness and quotes."""
    return value.removeprefix("W/").strip('"')


def _check_range(stated: str, obj: RemoteObject, start: int, end: int | None) -> int:
    found = _CONTENT_RANGE.match(stated)
    if found and obj.size is not None and found[3] not in ("*", str(obj.size)):
        raise changed_error(obj.key)
    last = end - 1 if end is not None else None
    if not found or parse_number(found[1]) != start or (last is not None and parse_number(found[2]) != last):
        raise TransientError(
            f"The server sent other bytes of {obj.key} than were asked for ({stated[:100]}).",
            hint="A proxy in between may be broken.",
        )
    return 0


def _range_header(obj: RemoteObject, start: int, end: int | None) -> dict[str, str]:
    """The header that asks for a part; none for the whole object."""
    whole = start == 0 and (end is None or end == obj.size)
    return {} if whole else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}


@contextlib.contextmanager
def _open_file(url: str, start: int) -> Iterator[_Reader]:
    path = Path(unquote(urlsplit(url).path))
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            yield file.readinto
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be read: {error.strerror}.", hint="Check its owner and mode, and the disk it is on."
        ) from error

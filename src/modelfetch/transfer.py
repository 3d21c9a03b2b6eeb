"""Moves bytes for every source: files in parallel parts onto the disk, archives in order through a bounded window."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from modelfetch import integrity
from modelfetch.crew import Crew, run
from modelfetch.errors import DestinationError
from modelfetch.integrity import Fingerprint, InOrder
from modelfetch.journal import Journal
from modelfetch.landing import PART, Landing
from modelfetch.sources.base import RemoteObject
from modelfetch.wire import CHUNK, Stopped, Wire

_LARGE, _SMALL = Crew(1, 16), Crew(4, 32, lean=True)  # connections for objects of many parts, and of one
_AHEAD = 16  # requests sent ahead, at most
_LITTLE = 1024**2  # bytes to ask for ahead, at most: what waits in a connection's buffers keeps no server waiting
_PER_CONNECTION = 1024**2  # bytes of memory: its buffers, and those of TLS and of the SDK
_WINDOW_PART = 4 * 1024**2  # bytes of one request when the bytes are wanted in order


class Limits(NamedTuple):
    """Bytes of memory for buffers, and how many requests may run at once (None: as suits)."""

    memory: int = 64 * 1024**2
    connections: int | None = None

    def crew(self, usual: Crew) -> Crew:
        """How many requests run at once, within these limits."""
        if self.connections:
            return Crew(self.connections, self.connections)
        return usual.at_most(max(1, self.memory // _PER_CONNECTION))


def download(
    wire: Wire,
    objects: Sequence[RemoteObject],
    into: Path,
    journal: Journal,
    limits: Limits,
    arrived: Callable[[RemoteObject, Fingerprint, int], None],
) -> None:
    """Fetch objects as files below `into`.

    Args:
        wire: connections to their source.
        objects: what to fetch, each to its `path`.
        into: an existing directory.
        journal: what is there already; what comes is noted in it.
        limits: how many requests run at once.
        arrived: called once for each object (with its checksums), what its bytes are, and how many were there before.

    Raises:
        ModelfetchError: the first failure; all else is stopped.
    """
    landings: list[Landing] = []
    gate = _Gate()
    large = any(o.size is None or o.size > PART for o in objects)
    crew = limits.crew(_LARGE if large else _SMALL.at_most(max(1, len(objects))))

    def stop() -> None:
        gate.shut()
        wire.close()
        for landing in landings.copy():  # threads change it
            landing.halt()

    try:
        tasks = _tasks(wire, objects, into, journal, landings, gate, arrived)
        run(tasks if large else _ahead(tasks), crew, lambda: wire.moved, stop)
    finally:
        gate.wait()
        for landing in landings:
            with contextlib.suppress(DestinationError):  # what has failed before is what counts
                landing.close()


def _tasks(
    wire: Wire,
    objects: Sequence[RemoteObject],
    into: Path,
    journal: Journal,
    landings: list[Landing],
    gate: "_Gate",
    arrived: Callable[[RemoteObject, Fingerprint, int], None],
) -> Iterator["_Run"]:
    """One task for each missing run of blocks, made when its turn comes: a directory may hold a million."""
    for obj in objects:
        large = obj.size is None or obj.size > PART
        known = wire.source.complete(obj) if large and not obj.checksums else obj
        if wire.closed:
            return
        with gate:
            landing = Landing(known, into / obj.path, journal)
            landings.append(landing)
        wire.advance(landing.resumed)
        task = _Arrival(wire, landing, landings, gate, arrived)
        runs = landing.runs
        if known.size == 0 and not known.checksums:
            wire.fetch(known, 0, 0, _Buffer(bytearray()))  # nothing else shows that what is listed as empty is so
        if not runs:
            task.finish()
        for blocks in runs:
            yield _Run(task, blocks)


def _ahead(tasks: Iterator["_Run"]) -> Iterator["_Run"]:
    """The same, asked for ahead as far as connections are idle: a thread need not wait for each reply by itself."""
    waiting: deque[_Run] = deque()
    while True:
        while len(waiting) < _AHEAD and (not waiting or waiting[-1].ask()):
            task = next(tasks, None)
            if task is None:
                break
            waiting.append(task)
        if not waiting:
            return
        yield waiting.popleft()


class _Gate:
    """Lets threads at the disk until it is shut: whoever stops them may then wait until the last has left."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._state:
            if self._shut:
                raise Stopped
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._state:
            self._inside -= 1
            self._state.notify_all()

    def shut(self) -> None:
        with self._state:
            self._shut = True

    def wait(self) -> None:
        with self._state:
            self._state.wait_for(lambda: not self._inside)


class _Arrival:
    """Fetches the runs of one file; whoever brings the last one finishes the file."""

    def __init__(
        self,
        wire: Wire,
        landing: Landing,
        landings: list[Landing],
        gate: _Gate,
        arrived: Callable[[RemoteObject, Fingerprint, int], None],
    ) -> None:
        self._wire = wire
        self._landing = landing
        self._landings = landings
        self._gate = gate
        self._arrived = arrived
        self._left = len(landing.runs)
        self._lock = threading.Lock()

    def ask(self, run: list[int]) -> bool:
        start, end = self._span(run)
        return end is not None and end - start <= _LITTLE and self._wire.ask(self._landing.obj, start, end)

    def _span(self, run: list[int]) -> tuple[int, int | None]:
        return self._landing.blocks[run[0]][0], self._landing.blocks[run[-1]][1]

    def fetch(self, run: list[int]) -> None:
        start, end = self._span(run)
        sink = _RunSink(self._landing, run[0], self._gate)
        self._wire.fetch(self._landing.obj, start, end, sink)
        sink.end()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.finish()

    def finish(self) -> None:
        landing = self._landing
        with self._gate:
            came = landing.fingerprint()
            landing.close()
            self._landings.remove(landing)
            self._arrived(landing.obj, came, landing.resumed)


class _Run:
    """A task: to fetch neighbouring blocks of one file."""

    def __init__(self, arrival: _Arrival, blocks: list[int]) -> None:
        self._arrival = arrival
        self._blocks = blocks

    def __call__(self) -> None:
        self._arrival.fetch(self._blocks)

    def ask(self) -> bool:
        """Ask for them ahead, if that can be; whether they have been asked for."""
        return self._arrival.ask(self._blocks)


class _RunSink:
    """Passes the bytes of neighbouring blocks on to their file, each block with its CRC."""

    def __init__(self, landing: Landing, block: int, gate: _Gate) -> None:
        self._landing = landing
        self._gate = gate
        self._block = block
        self._offset = self._start = landing.blocks[block][0]
        self._crc = 0

    def begin(self, checksums: Mapping[str, str]) -> None:
        if checksums and not self._landing.obj.checksums and self._offset == self._start:
            self._landing.expect(checksums)

    def write(self, data: memoryview) -> None:
        with self._gate:
            self._write(data)

    def _write(self, view: memoryview) -> None:
        while view:
            end = self._landing.blocks[self._block][1]
            piece = view if end is None else view[: end - self._offset]
            self._crc = integrity.crc(self._landing.algorithm, piece, self._crc)
            self._landing.write(piece, self._offset)
            self._offset += len(piece)
            view = view[len(piece) :]
            if self._offset == end:
                self._complete()

    def end(self) -> None:
        """The last block of an object of unknown size ends where its bytes do."""
        if self._block < len(self._landing.blocks) and self._landing.blocks[self._block][1] is None:
            with self._gate:
                self._complete()

    def _complete(self) -> None:
        self._landing.complete(self._block, self._crc)
        self._block += 1
        self._crc = 0


class Window:
    """An object's bytes in order, fetched a few parts ahead of the reader: an archive is unpacked from it."""

    def __init__(self, wire: Wire, obj: RemoteObject, limits: Limits) -> None:
        """Begin to fetch; the object must have a size and its server ranges."""
        assert obj.size is not None
        self.obj = obj
        self._wire = wire
        self._algorithm = integrity.crc_of(obj.checksums)
        self._in_order = InOrder(obj.checksums)
        self._crc = 0
        part = min(_WINDOW_PART, max(CHUNK, limits.memory // 4))
        self._starts = range(0, obj.size, part)
        # With the one that is being read they take half of the memory; the rest is for what is made of them.
        self._ahead = max(2, limits.memory // 2 // part - 1)
        self._arrived: dict[int, memoryview] = {}  # by their start
        self._spare: list[bytearray] = []  # parts that have been read: new ones are written over them
        self._hashed = 0  # bytes: those before have been hashed, and may be read
        self._hashing = threading.Lock()
        self._failure: BaseException | None = None
        self._change = threading.Condition()
        self._part = memoryview(b"")
        self._parts_read = 0
        crew = limits.crew(_LARGE)
        threading.Thread(target=self._fetch_all, args=[crew], name="window", daemon=True).start()

    def _fetch_all(self, crew: Crew) -> None:
        try:
            run(self._tasks(), crew, lambda: self._wire.moved, self._wire.close)
        except BaseException as error:  # noqa: BLE001  whoever reads raises it
            with self._change:
                self._failure = error
                self._change.notify_all()

    def _tasks(self) -> Iterator[Callable[[], None]]:
        """One task for each part, made once there is room for it in the window."""
        for number, start in enumerate(self._starts):
            with self._change:
                self._change.wait_for(partial(self._may_ask, number))
            if self._wire.closed:
                return
            yield partial(self._fetch, start)

    def _may_ask(self, number: int) -> bool:
        return self._wire.closed or number - self._parts_read < self._ahead

    def _fetch(self, start: int) -> None:
        assert self.obj.size is not None
        sink = _Buffer(self._unused())
        try:
            self._wire.fetch(self.obj, start, min(start + self._starts.step, self.obj.size), sink)
        except BaseException:
            sink.take()  # else the traceback would keep it
            raise
        self._arrived[start] = sink.take()
        while self._hashed in self._arrived and self._hashing.acquire(blocking=False):
            try:
                self._hash()
            finally:
                self._hashing.release()

    def _unused(self) -> bytearray:
        try:
            return self._spare.pop()
        except IndexError:
            return bytearray(self._starts.step)

    def _hash(self) -> None:
        """Hash what follows the bytes already hashed: not in the reader's thread, which has an archive to inflate."""
        while (part := self._arrived.get(self._hashed)) is not None:
            self._in_order.update(part)
            self._crc = integrity.crc(self._algorithm, part, self._crc)
            with self._change:
                self._hashed += len(part)
                self._change.notify_all()

    def _next(self, start: int) -> memoryview:
        with self._change:
            self._change.wait_for(lambda: start < self._hashed or self._failure)
            if self._failure:
                raise self._failure
            self._parts_read += 1
            self._change.notify_all()
            return self._arrived.pop(start)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`; none at the end.

        Raises:
            ModelfetchError: they cannot be had.
        """
        if not self._part and self._parts_read < len(self._starts):
            self._part = self._next(self._starts[self._parts_read])
        piece = bytes(self._part[:size] if size >= 0 else self._part)
        self._part = self._part[len(piece) :]
        if piece and not self._part and isinstance(self._part.obj, bytearray):
            self._spare.append(self._part.obj)
        return piece

    def fingerprint(self) -> Fingerprint:
        """What the bytes were, once all are read."""
        crc = {self._algorithm: integrity.crc_hex(self._algorithm, self._crc)}
        return Fingerprint(self._hashed, {**crc, **self._in_order.results()})

    def close(self) -> None:
        """Stop fetching, and give the memory back at once: what failed may be tried again, in a window of its own."""
        self._wire.close()
        with self._change:
            self._change.notify_all()
        self._arrived.clear()
        self._spare.clear()
        self._part = memoryview(b"")


class _Buffer:
    """Takes bytes into memory, as many as it has room for."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._filled = 0

    def begin(self, checksums: Mapping[str, str]) -> None:
        pass

    def write(self, data: memoryview) -> None:
        self._buffer[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def take(self) -> memoryview:
        """What came; nothing of it is left here."""
        buffer, self._buffer = self._buffer, bytearray()
        return memoryview(buffer)[: self._filled]

"""Thread pool that grows while throughput grows, and shrinks when Python's global lock is the bottleneck."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from modelfetch.errors import ResourceError
from modelfetch.transfer.range_reader import TransferStopped

_SAMPLE = 0.25  # seconds; the first sample after a change is skipped: new connections start slowly
_WORTH = 1.2  # factor of throughput that justifies twice the threads: smaller gains are noise
_BUSY = 0.8  # processors in use: Python runs one thread at a time, so more threads only switch more often
_BUSY_SHARE = 0.4  # of many processors: most of the work of large objects is OpenSSL's and the kernel's, in parallel
_PER_CONNECTION = 1024**2  # bytes of memory: buffers of the connection, of TLS and of the SDK
_PATIENCE = 8  # samples before a useless step is tried again: networks change


class WorkerLimits(NamedTuple):
    """Numbers of threads.

    Attributes:
        initial: threads at the start.
        maximum: largest number of threads.
        cpu_bound: whether Python's global lock, not the network, limits the tasks: handing the lock over costs as much
            as the work, so fewer threads are faster.
    """

    initial: int
    maximum: int
    cpu_bound: bool = False

    def capped_at(self, limit: int) -> "WorkerLimits":
        """Return the numbers, none above `limit`."""
        return self._replace(initial=min(self.initial, limit), maximum=min(self.maximum, limit))


LARGE_OBJECTS = WorkerLimits(1, 16)  # for objects of several parts
SMALL_OBJECTS = WorkerLimits(4, 32, cpu_bound=True)  # for objects of one part


class TransferLimits(NamedTuple):
    """Bytes of memory for buffers, and number of parallel requests; None lets the controller choose."""

    memory: int = 64 * 1024**2
    connections: int | None = None

    def worker_limits(self, usual: WorkerLimits) -> WorkerLimits:
        """Return the numbers of parallel requests within the limits."""
        if self.connections:
            return WorkerLimits(self.connections, self.connections)
        return usual.capped_at(max(1, self.memory // _PER_CONNECTION))


class ConcurrencyController:
    """Chooses the number of threads by measured throughput and processor load."""

    def __init__(self, limits: WorkerLimits, processors: int) -> None:
        """Start with the initial number of threads."""
        self.count = limits.initial
        self._busy = _BUSY if limits.cpu_bound else max(_BUSY, _BUSY_SHARE * processors)
        self._limits = limits
        self._earlier_rate = 0.0
        self._samples_to_skip = 1

    def adjust(self, rate: float, load: float = 0.0) -> int:
        """Take a sample and adjust the number of threads.

        Args:
            rate: bytes per second.
            load: processors that the process kept busy.

        Returns:
            Number of threads to run from now on.
        """
        busy = load > self._busy  # the network is not the bottleneck
        if busy and self._limits.cpu_bound:
            self.count = max(1, self.count // 2)
            self._earlier_rate, self._samples_to_skip = 0.0, 1
        elif self._samples_to_skip:
            self._samples_to_skip -= 1
        elif busy:
            self._earlier_rate = 0.0
        elif rate and rate < self._earlier_rate * _WORTH:  # the last step gained little: undo, then wait
            self.count = max(1, self.count // 2)
            self._earlier_rate, self._samples_to_skip = 0.0, _PATIENCE
        elif rate and self.count < self._limits.maximum:
            self.count = min(self._limits.maximum, self.count * 2)
            self._earlier_rate, self._samples_to_skip = rate, 1
        return self.count


def _usable_cpus() -> int:
    """Return the number of processors that the process may use."""
    with contextlib.suppress(OSError, AttributeError):  # a seccomp filter refuses; macOS and Windows lack the call
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_thread(call: Callable[[], None], name: str) -> "Future[None]":
    """Run a call in a new thread; the returned future holds the error of the call, if any.

    Raises:
        ResourceError: the system grants no further thread.
    """
    future: Future[None] = Future()

    def run_call() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  the future's owner raises the error
            future.set_exception(error)
        else:
            future.set_result(None)

    try:
        threading.Thread(target=run_call, name=name, daemon=True).start()
    except (RuntimeError, MemoryError) as error:  # RuntimeError: pthread_create(3) failed
        raise ResourceError(
            "The system grants no further thread.", hint="Raise the limit of processes (pids) or the memory limit."
        ) from error
    return future


def run_tasks(
    tasks: Iterator[Callable[[], None]],
    limits: WorkerLimits,
    bytes_received: Callable[[], int],
    stop: Callable[[], None],
) -> None:
    """Run tasks in the order of the iterator; the first failure stops all tasks and is raised.

    Fewer threads than the limits say do the work if the system grants no more; without any, the calling thread works.

    Args:
        tasks: iterator of tasks; advanced by one thread at a time.
        limits: numbers of threads.
        bytes_received: returns the number of bytes received so far.
        stop: ends running tasks.
    """
    tasks_lock = threading.Lock()
    stopped = threading.Event()
    controller = ConcurrencyController(limits, _usable_cpus())

    def run_worker(number: int) -> None:
        while number < controller.count and not stopped.is_set():
            with tasks_lock:
                task = next(tasks, None)
            if task is None:
                return
            task()

    def start_worker(number: int) -> "Future[None]":
        return start_thread(partial(run_worker, number), f"transfer-{number}")

    try:
        workers = _start_workers(start_worker, range(limits.initial))
        if not workers:
            run_worker(0)
            return
        _supervise_workers(workers, controller, limits, bytes_received, start_worker)
    except BaseException:  # a failure or a signal: leave without waiting for the threads
        stopped.set()
        stop()
        raise


def _start_workers(start: "Callable[[int], Future[None]]", numbers: Iterable[int]) -> "list[Future[None]]":
    """Start workers until the system grants no further thread."""
    workers: list[Future[None]] = []
    with suppress(ResourceError):
        for number in numbers:
            workers.append(start(number))  # noqa: PERF401  the workers before a failure count
    return workers


def _supervise_workers(
    workers: "list[Future[None]]",
    controller: ConcurrencyController,
    limits: WorkerLimits,
    bytes_received: Callable[[], int],
    start: "Callable[[int], Future[None]]",
) -> None:
    """Wait for all workers and start more while throughput grows; raise the first failure."""
    grows = limits.initial < limits.maximum
    received, now, cpu_time = bytes_received(), time.monotonic(), time.process_time()
    while True:
        done, busy = wait(workers, timeout=_SAMPLE if grows else None, return_when=FIRST_EXCEPTION)
        failures = [error for worker in done if (error := worker.exception()) is not None]
        if failures:
            raise next((error for error in failures if not isinstance(error, TransferStopped)), failures[0])
        if not busy:
            return
        earlier_received, earlier, earlier_cpu_time = received, now, cpu_time
        received, now, cpu_time = bytes_received(), time.monotonic(), time.process_time()
        elapsed = now - earlier
        count = controller.adjust((received - earlier_received) / elapsed, (cpu_time - earlier_cpu_time) / elapsed)
        for number, worker in enumerate(workers[:count]):
            # The worker left when the number fell, or no task is left; a failure waits for the next look.
            if worker.done() and worker.exception() is None:
                workers[number : number + 1] = _start_workers(start, [number]) or [worker]
        workers += _start_workers(start, range(len(workers), count))

"""Runs tasks on a few threads, and on more of them as long as more bring more bytes a second."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from modelfetch.transfer.range_reader import TransferStopped

_SAMPLE = 0.25  # seconds; of two samples the first is passed over: new connections begin slowly
_WORTH = 1.2  # as many times the bytes a second must twice the threads bring
_BUSY = 0.8  # processors' worth of work: Python runs one thread at a time, and more threads only take turns more often
_BUSY_SHARE = 0.4  # the same where there are many processors: most of the work is OpenSSL's and the kernel's
_PER_CONNECTION = 1024**2  # bytes of memory: its buffers, and those of TLS and of the SDK
_PATIENCE = 8  # samples after which what brought nothing is tried again: networks change


class WorkerLimits(NamedTuple):
    """How many threads to begin with, and how many there may be.

    Attributes:
        few: to begin with.
        many: at most.
        lean: whether most of the work is Python's own: it runs one thread at a time, and passing its lock on costs as
            much as the work, so the fewer do it the better once it is what they wait for.
    """

    initial: int
    maximum: int
    cpu_bound: bool = False

    def capped_at(self, most: int) -> "WorkerLimits":
        """The same within a limit."""
        return self._replace(initial=min(self.initial, most), maximum=min(self.maximum, most))


LARGE_OBJECTS = WorkerLimits(1, 16)  # for objects of several parts
SMALL_OBJECTS = WorkerLimits(4, 32, cpu_bound=True)  # for objects of one part


class TransferLimits(NamedTuple):
    """Bytes of memory for buffers, and how many requests may run at once (None: as suits)."""

    memory: int = 64 * 1024**2
    connections: int | None = None

    def worker_limits(self, usual: WorkerLimits) -> WorkerLimits:
        """How many requests run at once, within these limits."""
        if self.connections:
            return WorkerLimits(self.connections, self.connections)
        return usual.capped_at(max(1, self.memory // _PER_CONNECTION))


class ConcurrencyController:
    """How many threads are worth having, judged by what they bring."""

    def __init__(self, crew: WorkerLimits, processors: int) -> None:
        """Begin with few."""
        self.count = crew.initial
        self._busy = _BUSY if crew.cpu_bound else max(_BUSY, _BUSY_SHARE * processors)
        self._crew = crew
        self._before = 0.0
        self._rest = 1  # samples to pass over

    def adjust(self, rate: float, load: float = 0.0) -> int:
        """Learn how many bytes a second came, and at what work.

        Args:
            rate: bytes a second.
            load: processors that this process kept busy meanwhile.

        Returns:
            How many threads there should be.
        """
        busy = load > self._busy  # the network is not what it waits for
        if busy and self._crew.cpu_bound:
            self.count = max(1, self.count // 2)
            self._before, self._rest = 0.0, 1
        elif self._rest:
            self._rest -= 1
        elif busy:
            self._before = 0.0
        elif rate and rate < self._before * _WORTH:  # the last step brought little: back, and stay for a while
            self.count = max(1, self.count // 2)
            self._before, self._rest = 0.0, _PATIENCE
        elif rate and self.count < self._crew.maximum:
            self.count = min(self._crew.maximum, self.count * 2)
            self._before, self._rest = rate, 1
        return self.count


def _usable_cpus() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    tasks: Iterator[Callable[[], None]],
    limits: WorkerLimits,
    bytes_received: Callable[[], int],
    stop: Callable[[], None],
) -> None:
    """Run tasks in the order of their making; the first failure stops all and is raised.

    Args:
        tasks: asked for the next one by one thread at a time.
        limits: how many run at once.
        bytes_received: says how many bytes have come so far.
        stop: makes tasks that are under way end.
    """
    turn = threading.Lock()
    growth = ConcurrencyController(limits, _usable_cpus())

    def work(number: int) -> None:
        while number < growth.count:
            with turn:
                task = next(tasks, None)
            if task is None:
                return
            task()

    executor = ThreadPoolExecutor(limits.maximum, thread_name_prefix="transfer")
    workers = [executor.submit(work, number) for number in range(limits.initial)]
    try:
        _supervise_workers(workers, growth, limits, bytes_received, lambda number: executor.submit(work, number))
    except BaseException:  # a failure, or a signal: leave at once, whatever the threads wait for
        stop()
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def _supervise_workers(
    workers: "list[Future[None]]",
    controller: ConcurrencyController,
    limits: WorkerLimits,
    bytes_received: Callable[[], int],
    spawn: "Callable[[int], Future[None]]",
) -> None:
    """Wait for all workers, hiring more while that pays; raises the first failure."""
    grows = limits.initial < limits.maximum
    came, at, worked = bytes_received(), time.monotonic(), time.process_time()
    while True:
        done, busy = wait(workers, timeout=_SAMPLE if grows else None, return_when=FIRST_EXCEPTION)
        failures = [error for worker in done if (error := worker.exception()) is not None]
        if failures:
            raise next((error for error in failures if not isinstance(error, TransferStopped)), failures[0])
        if not busy:
            return
        before, since, spent = came, at, worked
        came, at, worked = bytes_received(), time.monotonic(), time.process_time()
        wanted = controller.adjust((came - before) / (at - since), (worked - spent) / (at - since))
        for number, worker in enumerate(workers[:wanted]):
            if worker.done():  # it left when fewer were wanted, or there is nothing left to do
                workers[number] = spawn(number)
        workers += [spawn(number) for number in range(len(workers), wanted)]

"""Number of transfer threads, and the failure of a thread."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelfetch.errors import RefusedError
from modelfetch.transfer.adaptive_pool import ConcurrencyController, WorkerLimits, run_tasks
from modelfetch.transfer.range_reader import TransferStopped
from testkit import strace


def grown(crew: WorkerLimits, brings: Callable[[int], float], samples: int = 40) -> list[int]:
    """Return the number of threads after each sample, for a throughput by number of threads."""
    growth = ConcurrencyController(crew, processors=2)
    return [growth.adjust(brings(growth.count)) for _ in range(samples)]


def test_threads_double_while_throughput_grows() -> None:
    """As with a store that limits each connection."""
    assert grown(WorkerLimits(2, 16), lambda count: 20.0 * count)[:8] == [2, 4, 4, 8, 8, 16, 16, 16]


def test_threads_without_a_gain_are_removed() -> None:
    """As with a busy processor or network; the controller tries again later."""
    counts = grown(WorkerLimits(2, 16), lambda _: 100.0)
    assert set(counts) == {2, 4}
    assert counts.count(2) > counts.count(4)
    assert counts[-1] in (2, 4)


def test_threads_stay_while_the_processor_is_busy() -> None:
    """More threads would only switch more often, whatever a single sample shows."""
    growth = ConcurrencyController(WorkerLimits(1, 16), processors=2)
    assert {growth.adjust(rate, load=1.2) for rate in (100.0, 500.0, 50.0, 900.0) * 5} == {1}
    assert [growth.adjust(20.0 * growth.count, load=0.3) for _ in range(6)] == [2, 2, 4, 4, 8, 8]


def test_cpu_bound_tasks_keep_few_threads() -> None:
    """Threads pass Python's lock more often than they work; with an idle processor the number grows again."""
    growth = ConcurrencyController(WorkerLimits(8, 32, cpu_bound=True), processors=16)
    assert [growth.adjust(100.0, load=0.95) for _ in range(5)] == [4, 2, 1, 1, 1]
    assert [growth.adjust(20.0 * growth.count, load=0.3) for _ in range(6)] == [1, 2, 2, 4, 4, 8]


def test_threads_grow_on_a_machine_with_many_processors() -> None:
    """On 16 processors, the same load is small."""
    growth = ConcurrencyController(WorkerLimits(1, 16), processors=16)
    assert [growth.adjust(20.0 * growth.count, load=1.2) for _ in range(6)] == [1, 2, 2, 4, 4, 8]
    assert {growth.adjust(20.0 * growth.count, load=7.0) for _ in range(6)} == {8}


def test_threads_stop_growing_at_the_network_s_limit() -> None:
    """A link of 100 with connections of 20 each."""
    counts = grown(WorkerLimits(2, 16), lambda count: min(100.0, 20.0 * count))
    assert max(counts) == 16
    assert sorted(counts)[len(counts) // 2] == 8


@pytest.mark.parametrize("few", [1, 3])
def test_number_of_threads_stays_within_the_limits(few: int) -> None:
    """For every sequence of samples, the first samples without bytes included."""
    rates = iter([0.0, 0.0, 5.0, 50.0, 1.0, 100.0, 0.5, 3.0, 800.0] * 20)
    counts = grown(WorkerLimits(few, 5), lambda _: next(rates), 100)
    assert min(counts) >= 1
    assert max(counts) == 5


def test_pool_starts_more_threads_while_throughput_grows() -> None:
    """Each task waits until four tasks run at once: two threads would wait for ever."""
    four = threading.Barrier(4)
    came = iter(range(0, 10**9, 10**6))
    began = threading.Event()

    def task() -> None:
        began.set()
        four.wait(60)

    def moved() -> int:
        assert began.wait(60)
        return next(came)

    run_tasks(iter([task] * 4), WorkerLimits(2, 4), moved, stop=four.abort)


def test_first_failure_stops_all_tasks_and_is_raised() -> None:
    """Errors of the stopped tasks are not raised."""
    stopped = threading.Event()
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        stopped.wait(60)
        raise TransferStopped

    def fail() -> None:
        waits.wait(60)
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        run_tasks(iter([wait, fail]), WorkerLimits(2, 2), lambda: 0, stop=stopped.set)
    assert stopped.is_set()


def test_failure_of_the_task_iterator_is_raised() -> None:
    """The iterator makes tasks while other tasks run."""

    def tasks() -> Iterator[Callable[[], None]]:
        yield lambda: None
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        run_tasks(tasks(), WorkerLimits(2, 8), lambda: 0, stop=lambda: None)


@pytest.mark.process
def test_pool_starts_where_sched_getaffinity_is_refused(tmp_path: Path) -> None:
    """A seccomp filter may refuse to name the processors of this process."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    program = (
        "from modelfetch.transfer.adaptive_pool import _usable_cpus as fetcher\n"
        "from modelserve.process.settings import _count_cpus as app\n"
        "assert fetcher() >= 1\n"
        "assert app() >= 1\n"
    )
    trace = ["strace", "-f", "-qq", "-o", str(tmp_path / "log"), "-e", "trace=sched_getaffinity"]

    subprocess.run(
        [*trace, "-e", "inject=sched_getaffinity:error=EPERM", sys.executable, "-c", program], check=True, timeout=60
    )


def test_failure_between_two_looks_at_the_workers_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that fails while the number of threads is adjusted is not replaced by a new one."""
    adjusting, failed = threading.Event(), threading.Event()

    def fail() -> None:
        adjusting.wait(10)
        threading.Timer(0.05, failed.set).start()  # after this thread's end
        raise ValueError("a part is lost")

    def adjust(*_: object) -> int:
        adjusting.set()
        assert failed.wait(10)
        return 1

    monkeypatch.setattr(ConcurrencyController, "adjust", adjust)

    with pytest.raises(ValueError, match="a part is lost"):
        run_tasks(iter([fail]), WorkerLimits(1, 2), lambda: 0, lambda: None)

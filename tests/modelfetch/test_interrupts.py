"""Signals end a pull at once, but not between two renames of one model."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelfetch import interrupts, uri
from modelfetch.errors import Interrupted
from modelfetch.progress import Silent
from modelfetch.pull import Options, pull
from modelfetch.sources import Access
from modelfetch.verify import verify


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Ours during a test, pytest's own afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    interrupts.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGALRM])
def test_a_signal_interrupts(signum: signal.Signals) -> None:
    """It is raised where the main thread is, and no `except Exception` stops it."""
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signum)

    assert caught.value.signum == signum
    assert not isinstance(caught.value, Exception)


def test_a_signal_waits_until_the_deferring_block_is_done() -> None:
    """It is not lost either."""
    done = []

    def work() -> None:
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with pytest.raises(Interrupted):
        work()
    assert done == [True]


def test_a_signal_goes_before_a_failure_that_might_be_tried_again() -> None:
    """Who was asked to stop stops; and the signal is told once."""

    def work() -> None:
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("disk")

    with pytest.raises(Interrupted):
        work()
    with interrupts.deferred():
        pass


def test_a_signal_while_files_are_moved_leaves_the_model_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun to be published is published: every file, and the receipt."""
    source, dest = tmp_path / "source", tmp_path / "dest"
    for path in (source, dest):
        path.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    (dest / "a stranger's").write_text("stays")  # so that the files are moved one by one
    replace = Path.replace

    def interrupted_replace(path: Path, target: Path) -> Path:
        if target == dest / "b":
            os.kill(os.getpid(), signal.SIGTERM)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted_replace)
    with pytest.raises(Interrupted):
        pull(uri.parse(str(source)), str(dest), Access(), Options(), Silent())

    assert [entry.path for entry in verify(dest).files] == ["a", "b", "c"]
    assert (dest / "a stranger's").exists()

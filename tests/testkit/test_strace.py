"""Tests of parsing strace's output."""

import subprocess
from pathlib import Path

import pytest

from testkit import strace

LOG = """\
10 openat(AT_FDCWD</home>, "/v/new file", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 3</v/new file>
11 openat(AT_FDCWD</home>, "/v/read", O_RDONLY|O_CLOEXEC) = 4</v/read>
10 pwrite64(3</v/new file>, ""..., 1000, 0 <unfinished ...>
11 unlinkat(5</v/dir>, "name", 0) = 0
10 <... pwrite64 resumed>)             = 1000
11 rename("/v/a", "/v/b") = -1 ENOENT (No such file or directory)
10 1795280000.250000 --- SIGTERM {si_signo=SIGTERM, si_code=SI_KERNEL} ---
10 1795280000.260000 symlink("target", "/v/link") = 0
10 openat(AT_FDCWD</home>, "below", O_WRONLY|O_TRUNC) = 4</home/below>
11 1795280000.500000 --- SIGTERM {si_signo=SIGTERM, si_code=SI_KERNEL} ---
11 rename("/v/c", "/v") = ?
11 1795280000.750000 +++ exited with 143 +++
10 1795280001.750000 +++ exited with 143 +++
"""


def test_calls_are_parsed_with_their_absolute_paths(tmp_path: Path) -> None:
    """A name is relative to the preceding descriptor; a symlink's target is no path."""
    (tmp_path / "log").write_text(LOG)

    calls = strace.read_calls(tmp_path / "log")

    assert [(call.thread, call.name, call.nth, call.paths) for call in calls] == [
        (10, "openat", 1, ("/v/new file",)),
        (11, "openat", 1, ("/v/read",)),
        (10, "pwrite64", 1, ("/v/new file",)),
        (11, "unlinkat", 1, ("/v/dir/name",)),
        (11, "rename", 1, ("/v/a", "/v/b")),
        (10, "symlink", 1, ("/v/link",)),
        (10, "openat", 2, ("/home/below",)),
        (11, "rename", 2, ("/v/c", "/v")),
    ]
    assert [call.changes_disk for call in calls] == [True, False, True, True, False, True, True, True]
    assert [call.cut for call in calls] == [False] * 7 + [True]
    assert calls[-1].paths_below(Path("/v")) == ("c", ".")
    assert calls[-2].paths_below(Path("/v")) == ()


def test_signal_is_timed_to_the_exit_of_the_last_thread(tmp_path: Path) -> None:
    """The time starts at the first signal of its kind."""
    (tmp_path / "log").write_text(LOG)

    assert strace.seconds_to_exit(tmp_path / "log", "SIGTERM") == pytest.approx(1.5)
    assert strace.seconds_to_exit(tmp_path / "log", "SIGINT") is None


@pytest.mark.process
def test_injected_signal_kills_before_the_call(tmp_path: Path) -> None:
    """The process is killed before the chosen call, and the log shows which call."""
    if strace.unavailable_reason():
        pytest.skip(strace.unavailable_reason())
    log, paths = tmp_path / "log", [str(tmp_path / name) for name in ("one", "two", "three")]

    traced = strace.strace_command(log, "?mkdir,mkdirat:signal=KILL:when=2")
    subprocess.run([*traced, "mkdir", *paths], check=False)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "one"]
    assert [call.paths[0] for call in strace.read_calls(log) if call.cut] == paths[1:2]

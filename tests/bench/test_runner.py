import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

RUNNER = Path(__file__).parents[2] / "bench/runner.py"
MIB = 1024**2


def run_measured(*command: str, timeout: float = 60) -> dict[str, Any]:
    """Return the runner's report on a command."""
    line = [sys.executable, "-I", "-S", str(RUNNER), str(timeout), "-", *command]
    found: dict[str, Any] = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)
    return found


def test_the_cost_of_children_that_were_waited_for_counts() -> None:
    """A waiting shell costs as much as its command."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"

    found = run_measured("sh", "-c", f'"{sys.executable}" -c "{burn}"; true')

    assert found["status"] == 0
    assert found["user"] + found["system"] >= 0.3


def test_memory_is_the_commands_own() -> None:
    """Peak memory excludes the measuring process and earlier commands."""
    big = bytearray(200 * MIB)
    big[::4096] = b"x" * len(big[::4096])  # this process is large, and really so

    small = run_measured("true")
    large = run_measured(sys.executable, "-c", f"bytes(range(256)) * {100 * MIB // 256}")

    assert small["rss"] < 50 * MIB
    assert large["rss"] > 100 * MIB


def test_what_a_command_prints_is_not_mistaken_for_its_cost() -> None:
    """The command's stdout goes to /dev/null, not into the report."""
    assert run_measured("sh", "-c", "echo '{}'; exit 7")["status"] == 7


def test_a_command_that_does_not_end_is_ended_with_all_it_started() -> None:
    """At the timeout the whole process group is killed."""
    found = run_measured("sh", "-c", "sleep 600; true", timeout=0.2)

    assert found["status"] == -9


def test_a_runner_that_is_told_to_end_takes_its_command_along() -> None:
    """SIGTERM to the runner kills the command: Ctrl-C leaves no tool behind."""
    line = [sys.executable, "-I", "-S", str(RUNNER), "60", "-", "sh", "-c", "echo $$ >&2; exec sleep 600"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as runner:
        assert runner.stderr
        command = int(runner.stderr.readline())  # it runs
        runner.terminate()
        runner.wait(60)

    with pytest.raises(ProcessLookupError):
        os.kill(command, 0)

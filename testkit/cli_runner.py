"""Runs the command line as a user does: a process, a clean environment, with or without a terminal."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 150.0  # seconds: one flush may take a minute on a busy disk; below pytest's timeout, so the run is quoted
# Variables that a process needs to run at all, and to be measured.
KEPT_VARIABLES = ("PATH", "PYTHONPATH", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
KEPT_PREFIXES = ("COVERAGE_", "COV_CORE_")


@dataclass(frozen=True)
class Run:
    """Result of a finished run.

    Attributes:
        code: the exit code; negative if a signal killed it.
        termination: message written for `kubectl describe pod`.
    """

    code: int
    stdout: str
    stderr: str
    termination: str = ""

    @property
    def log(self) -> list[dict[str, Any]]:
        """Parse the lines of stderr, all of them JSON."""
        return [json.loads(line) for line in self.stderr.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """Return the last line of the log."""
        return self.log[-1]

    @property
    def receipts(self) -> list[dict[str, Any]]:
        """Parse the lines of stdout, all of them JSON."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def receipt(self) -> dict[str, Any]:
        """Return the only line of stdout."""
        (only,) = self.receipts
        return only

    @property
    def all_output(self) -> str:
        """Return stdout, stderr and the termination message."""
        return self.stdout + self.stderr + self.termination


class RunningCommand:
    """Run under way; its output goes to files."""

    def __init__(self, process: "subprocess.Popen[bytes]", outputs: Path, termination_log: Path) -> None:
        """Take over a process that prints to `outputs`/stdout and `outputs`/stderr."""
        self.process = process
        self._stdout, self._stderr = outputs / "stdout", outputs / "stderr"
        self._termination_log = termination_log

    @property
    def log(self) -> list[dict[str, Any]]:
        """Parse the complete lines of the log so far."""
        whole, _, _ = self._stderr.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def wait_for(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until a condition holds while the run lasts.

        Raises:
            TimeoutError: the condition did not hold in time, or the run ended before.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"condition not met within {seconds} s; output:\n{self._stderr.read_text()}")
            time.sleep(0.01)

    def wait_for_bytes(self, count: int) -> None:
        """Wait until the log's progress lines report at least `count` bytes."""
        self.wait_for(lambda: any(int(line.get("bytes") or 0) >= count for line in self.log))

    def finish(self, timeout: float = PATIENCE) -> Run:
        """Wait for the end of the run."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            output = self._stdout.read_text() + self._stderr.read_text()
            raise TimeoutError(f"did not end within {timeout} s; output:\n{output}") from None
        termination = self._termination_log.read_text() if self._termination_log.exists() else ""
        return Run(self.process.returncode, self._stdout.read_text(), self._stderr.read_text(), termination)

    def stop(self) -> None:
        """Kill the process if still running."""
        self.process.kill()
        self.process.wait()

    def send_signal(self, signum: signal.Signals, timeout: float = PATIENCE) -> Run:
        """Send a signal, and wait for the end."""
        self.process.send_signal(signum)
        return self.finish(timeout)


class CliRunner:
    """Runs `modelfetch`; a call with arguments waits for the end.

    Attributes:
        env: environment of every run; a call adds its own, where None removes a variable.
        home: home and working directory of a run.
        prefix: command with options that runs `modelfetch`, such as strace.
    """

    def __init__(self, home: Path) -> None:
        """Keep all files of the runs below `home`."""
        self.home = home
        self.termination_log = home / "termination-log"
        self.prefix: list[str] = []
        self._runs: list[RunningCommand] = []
        kept = {k: v for k, v in os.environ.items() if k in KEPT_VARIABLES or k.startswith(KEPT_PREFIXES)}
        self.env = {
            **kept,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "AWS_EC2_METADATA_DISABLED": "true",  # no wait for an absent metadata server
            "NO_GCE_CHECK": "true",
            "MODELFETCH_RETRY_WAIT": "0.1s",
            "MODELFETCH_TERMINATION_LOG": str(self.termination_log),
        }

    def __call__(
        self,
        *args: object,
        env: Mapping[str, str | None] | None = None,
        timeout: float = PATIENCE,
        **popen: Any,
    ) -> Run:
        """Run the command to its end."""
        return self.start(*args, env=env, **popen).finish(timeout)

    def ok(self, *args: object, env: Mapping[str, str | None] | None = None, timeout: float = PATIENCE) -> Run:
        """Run the command and require exit code 0."""
        run = self(*args, env=env, timeout=timeout)
        assert run.code == 0, f"exit code {run.code}:\n{run.stdout}\n{run.stderr}"
        return run

    def start(self, *args: object, env: Mapping[str, str | None] | None = None, **popen: Any) -> RunningCommand:
        """Start the command; `popen` are options of Popen, such as umask and user."""
        self.termination_log.unlink(missing_ok=True)
        outputs = self.home / ".outputs" / str(len(self._runs))
        outputs.mkdir(parents=True)
        options = {"cwd": self.home, "stdin": subprocess.DEVNULL, **popen}
        with (outputs / "stdout").open("wb") as stdout, (outputs / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                self._build_command(args), env=self._merge_env(env), stdout=stdout, stderr=stderr, **options
            )
        self._runs.append(RunningCommand(process, outputs, self.termination_log))
        return self._runs[-1]

    def close(self) -> None:
        """Kill the runs that a failed test left behind."""
        for run in self._runs:
            run.stop()

    def run_on_terminal(
        self, *args: object, env: Mapping[str, str | None] | None = None, columns: int = 100, timeout: float = PATIENCE
    ) -> Run:
        """Run the command on a real terminal: `stdout` is the whole screen output, escapes included."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.termination_log.unlink(missing_ok=True)
        environment = self._merge_env({"TERM": "xterm-256color", **(env or {})})
        process = subprocess.Popen(
            self._build_command(args), env=environment, cwd=self.home, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        try:
            screen = _read_until_closed(master, time.monotonic() + timeout)
        finally:
            process.kill() if process.poll() is None else None
            os.close(master)
        termination = self.termination_log.read_text() if self.termination_log.exists() else ""
        return Run(process.wait(timeout), screen.decode(errors="replace"), "", termination)

    def _build_command(self, args: tuple[object, ...]) -> list[str]:
        return [*self.prefix, sys.executable, "-m", "modelfetch", *map(str, args)]

    def _merge_env(self, extra: Mapping[str, str | None] | None) -> dict[str, str]:
        return {name: value for name, value in {**self.env, **(extra or {})}.items() if value is not None}


def _read_until_closed(master: int, deadline: float) -> bytes:
    """Return all output until the last process has closed the terminal."""
    printed = b""
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(master, 65536)
        except OSError:  # EIO: the last process has closed the terminal
            return printed
        if not piece:
            return printed
        printed += piece
    raise TimeoutError(f"did not end in time; output:\n{printed.decode(errors='replace')}")

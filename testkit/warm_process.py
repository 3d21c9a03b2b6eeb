"""Runs `modelfetch` many times without a Python start each: a process with all modules loaded forks for each run.

A run is still a process with its own environment; loading the libraries (a second) is saved. The peak of memory is
measured, too: the kernel counts the parent's at the fork, here a fresh process.
"""

import ctypes
import importlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit.cli_runner import CliRunner, Run

PRELOADED = (
    "modelfetch.__main__", "modelfetch.cli.app", "modelfetch.sources.s3.source", "modelfetch.sources.gcs.source",
    "modelfetch.sources.gcs.upload", "modelfetch.sources.gcs.errors",
)  # fmt: skip
READY = b"ready\n"
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class WarmProcess:
    """Handle of the forking process, reached by a socket."""

    socket: Path

    def __call__(self, cli: CliRunner, *args: object, env: Mapping[str, str | None], timeout: int) -> tuple[Run, int]:
        """Run `modelfetch` as `cli` would; return the run and its largest resident set in bytes.

        Raises:
            TimeoutError: the run did not end in time, and was killed.
        """
        cli.termination_log.unlink(missing_ok=True)
        environment = {name: value for name, value in {**cli.env, **env}.items() if value is not None}
        job = {"args": [*map(str, args)], "env": environment, "home": str(cli.home), "timeout": timeout}
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self.socket))
            channel.sendall(json.dumps(job).encode() + b"\n")
            answer = json.loads(channel.makefile("rb").readline())
        stdout, stderr = ((cli.home / name).read_text() for name in ("stdout", "stderr"))
        if answer["code"] == -signal.SIGKILL:
            raise TimeoutError(f"did not end within {timeout} s; output:\n{stdout}{stderr}")
        termination = cli.termination_log.read_text() if cli.termination_log.exists() else ""
        return Run(answer["code"], stdout, stderr, termination), answer["peak"]


@contextmanager
def start_warm_process(directory: Path) -> Iterator[WarmProcess]:
    """Keep the process for the duration of the block."""
    path = directory / "socket"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    env = {name: value for name, value in env.items() if not name.startswith(("COVERAGE_", "COV_CORE_"))}
    command = [sys.executable, "-m", "testkit.warm_process", str(path)]
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != READY:
            raise RuntimeError("the process to fork from did not start")
        try:
            yield WarmProcess(path)
        finally:
            process.kill()


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        job = json.loads(self.rfile.readline())
        child = os.fork()
        if child == 0:
            _become_run(job)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(job["timeout"])
        _, status, usage = os.wait4(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "peak": usage.ru_maxrss * 1024}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = 100
    request_queue_size = 100


def _become_run(job: dict[str, Any]) -> None:
    """Become the run for the rest of this process's life."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    home = Path(job["home"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.chdir(home)
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv[:] = ["modelfetch", *job["args"]]
    try:
        importlib.import_module("modelfetch.__main__").main()
    except BaseException:  # noqa: BLE001  main() should have ended the process
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with _Server(sys.argv[1], _Handler) as server:
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        server.serve_forever(0.05)

"""Runs `modelfetch` many times without starting Python each time: a process that has loaded it all forks for each run.

A run is a process of its own, with its own environment, as always; what it saves is a second of loading libraries. It
also measures: to the kernel a process's peak of memory includes that of its parent at the fork, here a fresh one.
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

LOADED = (
    "modelfetch.__main__", "modelfetch.cli.app", "modelfetch.sources.s3.source", "modelfetch.sources.gcs.source",
    "modelfetch.sources.gcs.upload", "modelfetch.sources.gcs.errors",
)  # fmt: skip
READY = b"ready\n"
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class WarmProcess:
    """The process that forks, reached by its socket."""

    socket: Path

    def __call__(self, cli: CliRunner, *args: object, env: Mapping[str, str | None], timeout: int) -> tuple[Run, int]:
        """Run `modelfetch` as `cli` would; also gives the largest resident set, in bytes.

        Raises:
            TimeoutError: it did not end in time, and was killed.
        """
        cli.termination_log.unlink(missing_ok=True)
        wanted = {name: value for name, value in {**cli.env, **env}.items() if value is not None}
        asked = {"args": [*map(str, args)], "env": wanted, "home": str(cli.home), "timeout": timeout}
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self.socket))
            channel.sendall(json.dumps(asked).encode() + b"\n")
            answer = json.loads(channel.makefile("rb").readline())
        stdout, stderr = ((cli.home / name).read_text() for name in ("stdout", "stderr"))
        if answer["code"] == -signal.SIGKILL:
            raise TimeoutError(f"did not end within {timeout} s; it said:\n{stdout}{stderr}")
        told = cli.termination_log.read_text() if cli.termination_log.exists() else ""
        return Run(answer["code"], stdout, stderr, told), answer["peak"]


@contextmanager
def start_warm_process(directory: Path) -> Iterator[WarmProcess]:
    """The process, for as long as the block runs."""
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
        asked = json.loads(self.rfile.readline())
        child = os.fork()
        if child == 0:
            _become_run(asked)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(asked["timeout"])
        _, status, usage = os.wait4(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "peak": usage.ru_maxrss * 1024}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = 100
    request_queue_size = 100


def _become_run(asked: dict[str, Any]) -> None:
    """Become the run: the rest of this process's life."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    home = Path(asked["home"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.chdir(home)
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv[:] = ["modelfetch", *asked["args"]]
    try:
        importlib.import_module("modelfetch.__main__").main()
    except BaseException:  # noqa: BLE001  it should have ended the process itself
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with _Server(sys.argv[1], _Handler) as server:
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        server.serve_forever(0.05)

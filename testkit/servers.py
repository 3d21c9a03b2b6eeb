"""Real servers for the tests, built once per user and started on free ports.

`python -m testkit.servers build` builds them in advance and prints their paths. MODELFETCH_TEST_SERVERS=embedded: use
moto's server for S3 and skip tests of GCS; MODELFETCH_TEST_SERVERS=built: fail if a server cannot be built. Default: as
`embedded` where Go or the network is missing.
"""

import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BUILD_SECONDS = 1800  # MinIO takes 130 s on two free cores
READY_SECONDS = 60
PORT_RANGES = 16
MODE = os.environ.get("MODELFETCH_TEST_SERVERS", "")  # read once: tests run without the developer's settings
PORTS = range(10_000, 32_000)  # below Linux's ephemeral ports: no outgoing connection takes one of them


@dataclass(frozen=True)
class Program:
    """Go program at the version that the tests were written against."""

    name: str
    module: str
    version: str

    @property
    def path(self) -> Path:
        """Return the path once built; the version is in the name, so another version is built anew."""
        return cache_dir() / "bin" / f"{self.name}-{self.version}"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


MINIO = Program("minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c")
FAKE_GCS = Program("fake-gcs-server", "github.com/fsouza/fake-gcs-server", "v1.56.1")
TOXIPROXY = Program("toxiproxy", "github.com/Shopify/toxiproxy/v2/cmd/server", "v2.5.0")


class BuildError(Exception):
    """A server could not be built.

    Attributes:
        summary: the reason in one line.
    """

    def __init__(self, summary: str, output: str = "") -> None:
        super().__init__(f"{summary}\n{output}".strip())
        self.summary = summary


def cache_dir() -> Path:
    """Return the user's cache directory of these tests."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelfetch-tests"


def can_build() -> bool:
    """Return whether Go is installed and not disabled by MODELFETCH_TEST_SERVERS=embedded."""
    return shutil.which("go") is not None and MODE != "embedded"


def explain_absence(*programs: Program) -> str:
    """Return why the tests do without these programs in one line, or "" once all of them are built.

    Raises:
        BuildError: a build failed, and MODELFETCH_TEST_SERVERS=built forbids to do without.
    """
    if MODE == "embedded":
        return "MODELFETCH_TEST_SERVERS=embedded"
    try:
        for program in programs:
            build_program(program)
    except BuildError as error:
        if MODE == "built":
            raise
        return error.summary
    return ""


def build_program(program: Program) -> Path:
    """Build a program unless already built; of two callers at once the second waits for the first.

    Raises:
        BuildError: Go is not installed, or `go install` failed or took too long.
    """
    program.path.parent.mkdir(parents=True, exist_ok=True)
    with (cache_dir() / f"{program.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.path.exists():
            _install_program(program)
    return program.path


def _install_program(program: Program) -> None:
    with tempfile.TemporaryDirectory(dir=cache_dir()) as gobin:
        env = {
            **os.environ,
            "GOBIN": gobin,
            "GOFLAGS": "-buildvcs=false",
            "CGO_ENABLED": "0",
        }  # static: the programs run in an image too
        command = ["go", "install", f"{program.module}@{program.version}"]
        try:
            done = subprocess.run(
                command, env=env, cwd=gobin, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
            )
        except FileNotFoundError:
            raise BuildError(f"{program.name} is built with Go, which is not installed") from None
        except subprocess.TimeoutExpired:
            raise BuildError(f"{program.name} was not built within {BUILD_SECONDS} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise BuildError(f"{program.name} could not be built: {lines[-1].strip()}", done.stderr[-2000:])
        (binary,) = Path(gobin).iterdir()  # named after the last part of the module's path
        binary.rename(program.path)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on; workers of pytest-xdist choose from ranges of their own.

    Raises:
        OSError: each of a hundred ports was in use.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PORT_RANGES
    for port in random.sample(PORTS[worker::PORT_RANGES], 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port was found")


@contextmanager
def run_server(command: list[str], ready: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server until the block ends; enter the block once `ready`, a URL, answers without an error.

    Raises:
        RuntimeError: the server stopped or was not ready in time; the message quotes its log.
    """
    # A killed test run must leave no servers behind.
    leash = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*leash, *command], stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}
        )
        try:
            _wait_until_ready(process, ready, log)
            yield
        finally:
            process.kill()  # a test's server has nothing to save
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} is not ready at {url}:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def run_minio(directory: Path, access_key: str, secret_key: str) -> Iterator[str]:
    """Run MinIO with data below `directory` and yield the endpoint."""
    endpoint = f"127.0.0.1:{free_port()}"
    env = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key, "MINIO_BROWSER": "off"}
    command = [str(build_program(MINIO)), "server", "--address", endpoint, str(directory / "data")]
    with run_server(command, f"http://{endpoint}/minio/health/ready", directory / "log", env):
        yield f"http://{endpoint}"


@contextmanager
def run_fake_gcs(directory: Path) -> Iterator[str]:
    """Run a fake-gcs-server with objects in memory and yield its endpoint."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [str(build_program(FAKE_GCS)), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-public-host", address]
    with run_server(command, f"http://{address}/_internal/healthcheck", directory / "log"):
        yield f"http://{address}"


@contextmanager
def run_toxiproxy(directory: Path) -> Iterator[str]:
    """Run a toxiproxy without proxies and yield the URL of its API."""
    port = free_port()
    command = [str(build_program(TOXIPROXY)), "-host", "127.0.0.1", "-port", str(port)]
    with run_server(command, f"http://127.0.0.1:{port}/version", directory / "log"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def run_moto(directory: Path) -> Iterator[str]:
    """Run moto's S3 server, which needs no Go but checks no credentials, and yield its endpoint."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with run_server(command, f"http://127.0.0.1:{port}/moto-api/", directory / "log"):
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m testkit.servers build")
    try:
        if absence := explain_absence(MINIO, FAKE_GCS, TOXIPROXY):
            sys.stderr.write(f"{absence}: the tests use moto's server for S3 and skip what needs GCS\n")
        else:
            sys.stdout.writelines(f"{program.path}\n" for program in (MINIO, FAKE_GCS, TOXIPROXY))
    except BuildError as failure:
        sys.exit(str(failure))

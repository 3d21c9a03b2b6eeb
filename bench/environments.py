"""The programs that are compared, each in an environment of its own; modelfetch as its image ships it."""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip, from locked requirements, with bytecode for all of it."""

    path: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.path / "bin/python")

    def program(self, name: str) -> str:
        """One of its commands."""
        return str(self.path / "bin" / name)

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (found,) = self.path.glob("lib/python3*/site-packages")
        return found

    def size(self) -> int:
        """Bytes of its site-packages, bytecode included: as an image would hold them."""
        return sum(path.stat().st_size for path in self.packages.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Environments:
    """All of them.

    Attributes:
        ours: modelfetch as the init image has it, trimmed.
        sdks: the same versions of the clouds' SDKs, as they come.
        peers: s5cmd, rclone, the AWS command line; and what draws.
        kserve: kserve-storage and all that it asks for.
    """

    ours: Environment
    sdks: Environment
    peers: Environment
    kserve: Environment


def prepare(directory: Path) -> Environments:
    """Install what is not there yet; modelfetch anew each time, from this checkout and not editable."""
    names = ("modelfetch", "sdks", "peers", "kserve")
    environments = Environments(*(Environment(directory / name) for name in names))
    _locked(environments.ours, ROOT / "requirements/init.txt", trim=ROOT / "scripts/trim.py")
    _locked(environments.sdks, ROOT / "requirements/init.txt")
    _locked(environments.peers, ROOT / "bench/bench.txt")
    _locked(environments.kserve, ROOT / "bench/kserve.txt")
    _project(environments.ours)
    return environments


def _locked(environment: Environment, lock: Path, trim: Path | None = None) -> None:
    """What a lock names, byte-compiled; `trim` is what Dockerfile.init takes out of it."""
    wanted = lock.read_text() + (trim.read_text() if trim else "")
    installed = environment.path / "installed"
    if installed.is_file() and installed.read_text() == wanted:
        return
    shutil.rmtree(environment.path, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.path)], check=True)
    _install(environment, "--require-hashes", "--no-deps", "-r", str(lock))
    if trim:
        subprocess.run([sys.executable, str(trim), str(environment.packages)], check=True, stdout=subprocess.DEVNULL)
    _compile(environment.packages)
    installed.write_text(wanted)


def _project(environment: Environment) -> None:
    """The wheel of this checkout, built with the developer's tools: nothing is fetched for it."""
    with tempfile.TemporaryDirectory() as wheels:
        here = ["--python", sys.executable, "--no-build-isolation"]
        _uv("build", "--wheel", "--quiet", *here, "--out-dir", wheels, str(ROOT))
        (wheel,) = Path(wheels).glob("*.whl")
        _install(environment, "--no-deps", "--reinstall", str(wheel))
    for package in environment.packages.glob("model*"):
        _compile(package)


def _install(environment: Environment, *arguments: str) -> None:
    _uv("pip", "install", "--quiet", "--python", environment.python, *arguments)


def _uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments], check=True, stdout=subprocess.DEVNULL)


def _compile(path: Path) -> None:
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*command, "-x", "/tests/", str(path)], check=True)

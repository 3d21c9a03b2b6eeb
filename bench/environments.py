"""Environments of the compared programs, one each; modelfetch as shipped in its image."""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip, from locked requirements, with all bytecode."""

    path: Path

    @property
    def python(self) -> str:
        """Return the path of the interpreter."""
        return str(self.path / "bin/python")

    def program_path(self, name: str) -> str:
        """Return the path of an installed command."""
        return str(self.path / "bin" / name)

    @property
    def site_packages(self) -> Path:
        """Return the path of site-packages."""
        (found,) = self.path.glob("lib/python3*/site-packages")
        return found

    def package_bytes(self) -> int:
        """Return the bytes of site-packages, bytecode included, as in an image."""
        return sum(path.stat().st_size for path in self.site_packages.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Environments:
    """Environments of all programs.

    Attributes:
        ours: modelfetch as in the init image, trimmed.
        sdks: the same versions of the clouds' SDKs, untrimmed.
        peers: s5cmd, rclone, the AWS command line, and matplotlib.
        kserve: kserve-storage and all its requirements.
    """

    ours: Environment
    sdks: Environment
    peers: Environment
    kserve: Environment


def install_environments(directory: Path) -> Environments:
    """Install missing environments; modelfetch anew each time, as a wheel of this checkout."""
    names = ("modelfetch", "sdks", "peers", "kserve")
    environments = Environments(*(Environment(directory / name) for name in names))
    _install_locked(environments.ours, ROOT / "requirements/init.txt", trim=ROOT / "scripts/trim.py")
    _install_locked(environments.sdks, ROOT / "requirements/init.txt")
    _install_locked(environments.peers, ROOT / "bench/bench.txt")
    _install_locked(environments.kserve, ROOT / "bench/kserve.txt")
    _install_project(environments.ours)
    return environments


def _install_locked(environment: Environment, lock: Path, trim: Path | None = None) -> None:
    """Install a lock's packages with bytecode; `trim` is the script of Dockerfile.init."""
    wanted = lock.read_text() + (trim.read_text() if trim else "")
    installed = environment.path / "installed"
    if installed.is_file() and installed.read_text() == wanted:
        return
    shutil.rmtree(environment.path, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.path)], check=True)
    _install_packages(environment, "--require-hashes", "--no-deps", "-r", str(lock))
    if trim:
        subprocess.run(
            [sys.executable, str(trim), str(environment.site_packages)], check=True, stdout=subprocess.DEVNULL
        )
    _compile_bytecode(environment.site_packages)
    installed.write_text(wanted)


def _install_project(environment: Environment) -> None:
    """Install the wheel of this checkout, built with the developer's tools: nothing is downloaded."""
    with tempfile.TemporaryDirectory() as wheels:
        here = ["--python", sys.executable, "--no-build-isolation"]
        _run_uv("build", "--wheel", "--quiet", *here, "--out-dir", wheels, str(ROOT))
        (wheel,) = Path(wheels).glob("*.whl")
        _install_packages(environment, "--no-deps", "--reinstall", str(wheel))
    for package in environment.site_packages.glob("model*"):
        _compile_bytecode(package)


def _install_packages(environment: Environment, *arguments: str) -> None:
    _run_uv("pip", "install", "--quiet", "--python", environment.python, *arguments)


def _run_uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments], check=True, stdout=subprocess.DEVNULL)


def _compile_bytecode(path: Path) -> None:
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*command, "-x", "/tests/", str(path)], check=True)

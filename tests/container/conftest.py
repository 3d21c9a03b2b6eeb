"""Fixtures: the images, built for real, and containers with the restrictions of Kubernetes."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.13-slim"
# Makes the base image where no registry is reached; elsewhere it is simply pulled.
MAKE_BASE = Path(os.environ.get("MODELFETCH_TEST_BASE_IMAGE", ROOT / "../shared/cluster/base-image"))
UID = 65532
RUNC = """
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STRICT_FLAGS = [
    "--network=host",
    "--read-only",
    "--read-only-tmpfs=false",  # Kubernetes gives no writable /tmp either
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=256m",
    "--memory-swap=256m",
]
BUILD_SECONDS = 900


@dataclass(frozen=True)
class Images:
    """Names of the built images."""

    init: str
    app: str


class Podman:
    """Container engine with every restriction of the manifests; the volume is mounted at /mnt/models."""

    def __init__(self, config: Path) -> None:
        self._env = {**os.environ, "CONTAINERS_CONF": str(config)}

    def __call__(self, *args: object) -> "subprocess.CompletedProcess[str]":
        """Run podman and wait for the end."""
        command = ["podman", *map(str, args)]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, check=False, timeout=120)

    def run(
        self, image: str, *args: str, volume: Path, env: Mapping[str, str], mode: str = "U", flags: tuple[str, ...] = ()
    ) -> "subprocess.CompletedProcess[str]":
        """Run a container of an image; with `--detach` among the flags, return the container's id at once."""
        given = [f"--env={name}={value}" for name, value in env.items()]
        mount = f"--volume={volume}:/mnt/models:{mode}"
        return self("run", *STRICT_FLAGS, mount, *given, *(flags or ("--rm",)), image, *args)


def _find_skip_reason() -> str | None:
    """Return the reason why no image can be built here; None if images can be built."""
    missing = [tool for tool in ("buildah", "podman", "runc") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "building and running with runc needs root"
    if subprocess.run(["buildah", "images", "-q", BASE], capture_output=True, check=False).returncode == 0:
        return None
    make = [str(MAKE_BASE)] if MAKE_BASE.exists() else ["buildah", "pull", "-q", BASE]
    done = subprocess.run(make, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    return f"no base image {BASE}: {done.stderr.strip()[-200:]}" if done.returncode else None


@pytest.fixture(scope="session")
def build() -> Iterator[Callable[..., str]]:
    """Return a function that builds an image by kind and build flags; remove all images at the end."""
    if reason := _find_skip_reason():
        pytest.skip(reason)
    names = []

    def build_image(kind: str, flags: str = "") -> str:
        name = f"localhost/modelfetch-test-{kind}:{uuid4().hex[:8]}"
        names.append(name)
        variables = {"ENGINE": "buildah", "BUILD_FLAGS": f"--runtime runc {flags}", f"IMAGE_{kind.upper()}": name}
        command = [str(ROOT / "scripts/images"), kind]
        env = {**os.environ, **variables}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
        assert done.returncode == 0, done.stderr[-4000:]
        return name

    yield build_image
    with suppress(subprocess.SubprocessError):
        subprocess.run(["buildah", "rmi", *names], capture_output=True, check=False, timeout=60)


@pytest.fixture(scope="session")
def images(build: Callable[..., str]) -> Images:
    """Build the init image and the app image."""
    return Images(build("init"), build("app"))


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """Return the container engine, configured to work without systemd and with lowered limits."""
    config = tmp_path_factory.mktemp("podman") / "containers.conf"
    config.write_text(RUNC)
    return Podman(config)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return a directory shared by init container and app."""
    directory = tmp_path / "volume"
    directory.mkdir()
    return directory


@pytest.fixture
def image_config(podman: Podman, images: Images) -> Callable[[str], dict[str, object]]:
    """Return a function that inspects an image and returns the image's configuration."""

    def inspect(image: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(podman("image", "inspect", image).stdout)[0]["Config"]
        return found

    return inspect

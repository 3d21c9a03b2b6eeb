"""The manifests, rendered as `kubectl apply -k` renders them."""

import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Manifests = list[dict[str, Any]]


def render(directory: Path) -> Manifests:
    """What `kubectl kustomize` makes of a directory."""
    done = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # deprecations
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="session")
def kubectl() -> str:
    """The path of kubectl."""
    path = shutil.which("kubectl")
    if path is None:
        pytest.skip("kubectl is not installed: nothing renders the manifests")
    return path


@pytest.fixture(scope="session")
def manifests(kubectl: str) -> Callable[[str], Manifests]:
    """Called with `base` or an overlay's name, it gives the rendered manifests."""

    @cache
    def rendered(name: str) -> Manifests:
        return render(ROOT / "k8s" / (name if name == "base" else f"overlays/{name}"))

    return lambda name: deepcopy(rendered(name))


@pytest.fixture
def edited(kubectl: str, tmp_path: Path) -> Callable[[str, str, str], Manifests]:
    """Called with an overlay, a variable and a value, it gives the manifests with that one value changed."""

    def change(overlay: str, variable: str, value: str) -> Manifests:
        shutil.rmtree(tmp_path / "k8s", ignore_errors=True)
        shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
        path = tmp_path / "k8s" / "overlays" / overlay / "model-configmaps.yaml"
        config = yaml.safe_load(path.read_text())
        config["data"][variable] = value
        path.write_text(yaml.safe_dump(config))
        return render(path.parent)

    return change

"""Fixtures: the manifests, rendered as `kubectl apply -k` renders them."""

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


def render_manifests(directory: Path) -> Manifests:
    """Render a directory with `kubectl kustomize`."""
    done = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # deprecations
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Return the path of kubectl; skip the test if not installed."""
    path = shutil.which("kubectl")
    if path is None:
        pytest.skip("kubectl is not installed: nothing renders the manifests")
    return path


@pytest.fixture(scope="session")
def manifests(kubectl: str) -> Callable[[str], Manifests]:
    """Return a function that renders `base` or an overlay by name."""

    @cache
    def render_cached(name: str) -> Manifests:
        return render_manifests(ROOT / "k8s" / (name if name == "base" else f"overlays/{name}"))

    return lambda name: deepcopy(render_cached(name))


@pytest.fixture
def edit_configmap(kubectl: str, tmp_path: Path) -> Callable[[str, str, str], Manifests]:
    """Return a function that renders an overlay after changing one variable of the ConfigMap."""

    def render_changed(overlay: str, variable: str, value: str) -> Manifests:
        shutil.rmtree(tmp_path / "k8s", ignore_errors=True)
        shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
        path = tmp_path / "k8s" / "overlays" / overlay / "model-configmaps.yaml"
        config = yaml.safe_load(path.read_text())
        config["data"][variable] = value
        path.write_text(yaml.safe_dump(config))
        return render_manifests(path.parent)

    return render_changed

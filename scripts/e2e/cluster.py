"""The cluster that kubectl is set to, and a namespace of the run's own in it."""
# ruff: noqa: INP001, S603, S607, T201  part of a script: it prints, and runs what it wrote itself

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

HERE = Path(__file__).parent
IMAGES = {
    "modelfetch-init": os.environ.get("IMAGE_INIT", "localhost/modelfetch-init:dev"),
    "modelserve": os.environ.get("IMAGE_APP", "localhost/modelserve:dev"),
    "localhost/minio": os.environ.get("IMAGE_MINIO", "localhost/minio:dev"),
}
MINIO = "app.kubernetes.io/name=minio"
IRIS = "app.kubernetes.io/instance=iris"
PATIENCE = 180  # seconds for any one thing that the cluster does
T = TypeVar("T")


class Failed(Exception):  # noqa: N818  the outcome of the run
    """The story did not go as told."""


def kubectl(*args: str, given: str | None = None) -> str:
    """Run kubectl to its end and give what it prints.

    Raises:
        Failed: it failed; with what it said.
    """
    done = subprocess.run(["kubectl", *args], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"kubectl {' '.join(args[:6])}: {done.stderr.strip()}")
    return done.stdout


def until(ask: Callable[[], T | None], what: str) -> T:
    """Poll until the answer is not None.

    Raises:
        Failed: it still is when patience ends.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (answer := ask()) is not None:
            return answer
        time.sleep(0.5)
    raise Failed(f"not seen within {PATIENCE} s: {what}")


class Namespace:
    """A namespace, and the directory from which kustomize fills it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory.resolve()

    def kubectl(self, *args: str) -> str:
        """Run kubectl in this namespace."""
        return kubectl("-n", self.name, *args)

    def items(self, kind: str, label: str) -> list[dict[str, Any]]:
        """All objects of a kind with a label."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", label, "-o", "json"))["items"]
        return found

    def apply(self, path: str, *selection: str) -> None:
        """Apply the local overlay with the model at `path`: the one value that a user changes."""
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "iris-model"}}
        parts = {name: image.rpartition(":") for name, image in IMAGES.items()}
        kustomization = {
            "resources": [os.path.relpath(HERE.resolve(), self.directory)],
            "namespace": self.name,
            "images": [{"name": name, "newName": new, "newTag": tag} for name, (new, _, tag) in parts.items()],
            "patches": [{"patch": json.dumps({**config, "data": {"S3_MODEL_PATH": path}})}],
        }
        (self.directory / "kustomization.yaml").write_text(json.dumps(kustomization))
        self.kubectl("apply", "-k", str(self.directory), *selection)

    def rolled_out(self, deployment: str) -> None:
        """Wait until all pods of a Deployment are new and ready."""
        self.kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={PATIENCE}s")

    def secret(self, label: str) -> dict[str, str]:
        """The content of the one Secret with a label."""
        (found,) = self.items("secrets", label)
        return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}

    def diagnose(self) -> None:
        """Print what helps to find out why it failed."""
        logs = ["logs", "--all-containers", "--prefix", "--tail=30", "--ignore-errors", "-l"]
        for args in (
            ["get", "pods,configmaps"],
            ["describe", "pods"],
            ["get", "events"],
            [*logs, IRIS],
            [*logs, MINIO],
        ):
            with suppress(Failed):
                print(self.kubectl(*args), file=sys.stderr)


@contextmanager
def namespace(directory: Path) -> Iterator[Namespace]:
    """A fresh namespace in which only restricted pods may run; removed in the end, whatever happens."""
    name = f"modelfetch-e2e-{uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "-f", "-", given=json.dumps(manifest))
    space = Namespace(name, directory)
    try:
        yield space
    except BaseException:
        space.diagnose()
        raise
    finally:
        kubectl("delete", "namespace", name, f"--timeout={PATIENCE}s")


@contextmanager
def forwarded(space: Namespace, service: str, port: int) -> Iterator[str]:
    """The address on this machine of a Service in the cluster, for as long as the block runs."""
    command = ["kubectl", "-n", space.name, "port-forward", f"service/{service}", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r"127\.0\.0\.1:\d+", line)
            if found is None:
                raise Failed(f"kubectl port-forward gave no address: {line!r}")
            yield f"http://{found[0]}"
        finally:
            process.terminate()

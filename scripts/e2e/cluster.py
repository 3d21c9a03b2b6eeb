"""Access to kubectl's current cluster, and a namespace for one run."""
# ruff: noqa: INP001, S603, S607, T201  part of a script: prints, and runs its own commands

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
PATIENCE = 180  # seconds for any single step of the cluster
T = TypeVar("T")


class StoryError(Exception):
    """A step of the story failed."""


def run_kubectl(*args: str, stdin: str | None = None) -> str:
    """Run kubectl to completion and return the output.

    Raises:
        StoryError: kubectl failed; the message quotes its error.
    """
    done = subprocess.run(["kubectl", *args], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StoryError(f"kubectl {' '.join(args[:6])}: {done.stderr.strip()}")
    return done.stdout


def wait_until(poll: Callable[[], T | None], description: str) -> T:
    """Poll until the answer is not None, and return the answer.

    Raises:
        StoryError: the answer is still None after PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (answer := poll()) is not None:
            return answer
        time.sleep(0.5)
    raise StoryError(f"not seen within {PATIENCE} s: {description}")


class Namespace:
    """A namespace, and the directory for kustomize's input."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory.resolve()

    def run_kubectl(self, *args: str) -> str:
        """Run kubectl in the namespace and return the output."""
        return run_kubectl("-n", self.name, *args)

    def list_objects(self, kind: str, label: str) -> list[dict[str, Any]]:
        """Return all objects of a kind with a label."""
        found: list[dict[str, Any]] = json.loads(self.run_kubectl("get", kind, "-l", label, "-o", "json"))["items"]
        return found

    def apply_overlay(self, path: str, *selection: str) -> None:
        """Apply the local overlay with the model at `path`, the only value that a user changes."""
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "iris-model"}}
        parts = {name: image.rpartition(":") for name, image in IMAGES.items()}
        kustomization = {
            "resources": [os.path.relpath(HERE.resolve(), self.directory)],
            "namespace": self.name,
            "images": [{"name": name, "newName": new, "newTag": tag} for name, (new, _, tag) in parts.items()],
            "patches": [{"patch": json.dumps({**config, "data": {"S3_MODEL_PATH": path}})}],
        }
        (self.directory / "kustomization.yaml").write_text(json.dumps(kustomization))
        self.run_kubectl("apply", "-k", str(self.directory), *selection)

    def wait_for_rollout(self, deployment: str) -> None:
        """Wait until all pods of a Deployment are new and ready."""
        self.run_kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={PATIENCE}s")

    def read_secret(self, label: str) -> dict[str, str]:
        """Return the content of the only Secret with a label."""
        (found,) = self.list_objects("secrets", label)
        return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}

    def print_diagnosis(self) -> None:
        """Print the state and logs that explain a failure."""
        logs = ["logs", "--all-containers", "--prefix", "--tail=30", "--ignore-errors", "-l"]
        for args in (
            ["get", "pods,configmaps"],
            ["describe", "pods"],
            ["get", "events"],
            [*logs, IRIS],
            [*logs, MINIO],
        ):
            with suppress(StoryError):
                print(self.run_kubectl(*args), file=sys.stderr)


@contextmanager
def create_namespace(directory: Path) -> Iterator[Namespace]:
    """Create a namespace for restricted pods only, for the duration of the block."""
    name = f"modelfetch-e2e-{uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    run_kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    space = Namespace(name, directory)
    try:
        yield space
    except BaseException:
        space.print_diagnosis()
        raise
    finally:
        run_kubectl("delete", "namespace", name, f"--timeout={PATIENCE}s")


@contextmanager
def forward_port(space: Namespace, service: str, port: int) -> Iterator[str]:
    """Yield the local address of a Service in the cluster for the duration of the block."""
    command = ["kubectl", "-n", space.name, "port-forward", f"service/{service}", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r"127\.0\.0\.1:\d+", line)
            if found is None:
                raise StoryError(f"kubectl port-forward gave no address: {line!r}")
            yield f"http://{found[0]}"
        finally:
            process.terminate()

"""Test the whole path from a bucket to a prediction on a real cluster; `make e2e` calls this script.

The cluster is kubectl's current one (KUBECONFIG). The run works in a namespace of its own with restricted Pod Security,
and always removes the namespace in the end. The cluster must be able to pull the images:
IMAGE_INIT, IMAGE_APP and IMAGE_MINIO name them; the defaults are built by `scripts/images init app minio`.
"""
# ruff: noqa: INP001, S603, T201  a script: prints, and runs its own commands

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import boto3
import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from scripts.e2e.cluster import (
    HERE,
    IMAGES,
    IRIS,
    MINIO,
    PATIENCE,
    Namespace,
    StoryError,
    create_namespace,
    forward_port,
    run_kubectl,
    wait_until,
)

BUCKET = "models"
SETOSA = [5.1, 3.5, 1.4, 0.2]
STARTED = time.monotonic()


def print_step(text: str) -> None:
    """Print a step with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


def require(holds: bool, expectation: str, observed: object) -> None:  # noqa: FBT001  reads as a sentence
    """Raise StoryError unless the expectation holds."""
    if not holds:
        raise StoryError(f"expected {expectation}; saw {observed}")


def train_models(directory: Path) -> dict[str, Path]:
    """Train two versions of an iris forest with different answers on purpose: numbers, then names."""
    iris = load_iris()
    paths = {}
    for version, labels in {"v1": iris.target, "v2": iris.target_names[iris.target]}.items():
        paths[version] = directory / version / "model.joblib"
        paths[version].parent.mkdir()
        joblib.dump(RandomForestClassifier(20, random_state=0).fit(iris.data, labels), paths[version])
    return paths


def push_models(space: Namespace, models: dict[str, Path]) -> None:
    """Push the models into MinIO, as a developer would from a laptop."""
    with forward_port(space, "minio", 9000) as endpoint:
        os.environ.update(space.read_secret(MINIO), AWS_ENDPOINT_URL_S3=endpoint, AWS_DEFAULT_REGION="us-east-1")
        client = boto3.client("s3")
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # the SDK asks again when MinIO is not quite up
            client.create_bucket(Bucket=BUCKET)
        for version, path in models.items():
            target = f"s3://{BUCKET}/iris/{version}/model.joblib"
            subprocess.run([sys.executable, "-m", "modelfetch", "push", path, target], check=True)


def start_watching(space: Namespace, expected: list[Any]) -> "subprocess.Popen[str]":
    """Start polling the Service from a pod."""
    script = (HERE / "watch.py").read_text()
    inside = ["python", "-c", script, "http://iris", json.dumps([expected, SETOSA, PATIENCE])]
    command = ["kubectl", "-n", space.name, "exec", "client", "--", *inside]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_settled(watching: "subprocess.Popen[str]", expected: list[Any], before: list[Any], model: Path) -> None:
    """Require that the Service reached the expected answer without a failed request, with the very bytes pushed."""
    stdout, stderr = watching.communicate(timeout=PATIENCE + 60)
    require(watching.returncode == 0, "answers through the Service", stderr.strip())
    report = json.loads(stdout)
    require(report["steady"], f"the answer {expected}", report)
    require(not report["failed"], "no request to fail", report["failed"])
    require(
        all(answer in (before, expected) for answer in report["seen"]), f"only {before} and {expected}", report["seen"]
    )
    digest = "sha256:" + hashlib.sha256(model.read_bytes()).hexdigest()
    require(digest in json.dumps(report["model"]), f"a model with digest {digest}", report["model"])
    print_step(f"the Service answers {expected}; {report['asked']} requests, none failed; {digest[:19]}…")


def find_failed_pod(space: Namespace) -> str | None:
    """Return the first pod whose init container ended with an error, or None."""
    for pod in space.list_objects("pods", IRIS):
        for status in pod["status"].get("initContainerStatuses", []):
            ends = [status[when].get("terminated", {}) for when in ("state", "lastState")]
            if any(end.get("exitCode", 0) for end in ends):
                return str(pod["metadata"]["name"])
    return None


def run_story(space: Namespace, directory: Path) -> None:
    """Run the steps of a user of the `local` overlay."""
    print_step(f"namespace {space.name}: restricted Pod Security is enforced")
    space.apply_overlay("iris/v1/model.joblib", "-l", MINIO)
    models = train_models(directory)
    space.wait_for_rollout("minio")
    print_step("MinIO runs; pushing two versions of an iris forest")
    push_models(space, models)

    space.apply_overlay("iris/v1/model.joblib")
    space.wait_for_rollout("iris")
    space.run_kubectl("wait", "pod/client", "--for=condition=Ready", f"--timeout={PATIENCE}s")
    print_step("rolled out: the init containers have pulled v1, the apps are ready")
    check_settled(start_watching(space, [0]), [0], [0], models["v1"])

    print_step("changing the ConfigMap to v2 while the Service is being asked")
    watching = start_watching(space, ["setosa"])
    space.apply_overlay("iris/v2/model.joblib")
    space.wait_for_rollout("iris")
    check_settled(watching, ["setosa"], [0], models["v2"])

    print_step("breaking the path")
    space.apply_overlay("iris/v3/nowhere.joblib")
    pod = wait_until(lambda: find_failed_pod(space), "an init container that fails")
    described = space.run_kubectl("describe", "pod", pod)
    for reason in ("not_found", "iris/v3/nowhere.joblib", "Exit Code:    66"):
        require(reason in described, f"{reason!r} in kubectl describe pod", described)
    print_step("kubectl describe pod: " + next(line.strip() for line in described.splitlines() if "not_found" in line))
    check_settled(start_watching(space, ["setosa"]), ["setosa"], ["setosa"], models["v2"])

    space.run_kubectl("rollout", "undo", "deployment/iris")
    space.wait_for_rollout("iris")
    print_step("kubectl rollout undo: back to v2, for the old ConfigMap is still there")


def raise_stopped(signum: int, _frame: object) -> NoReturn:
    """Turn a signal into an exception; unwinding removes the namespace."""
    raise StoryError(f"stopped by {signal.Signals(signum).name}")


def main() -> int:
    """Run the story; return 0 on success."""
    signal.signal(signal.SIGTERM, raise_stopped)
    signal.signal(signal.SIGINT, raise_stopped)
    try:
        server = json.loads(run_kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        context = run_kubectl("config", "current-context").strip()
        print_step(f"Kubernetes {server}, context {context}; {', '.join(IMAGES.values())}")
        with tempfile.TemporaryDirectory() as scratch, create_namespace(Path(scratch)) as space:
            run_story(space, Path(scratch))
    except FileNotFoundError as error:
        print(f"e2e: {error.filename} is not installed", file=sys.stderr)
        return 1
    except (StoryError, subprocess.SubprocessError) as error:
        print(f"e2e failed: {error}", file=sys.stderr)
        return 1
    print_step("passed; the namespace is gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""From a bucket to a prediction on a real cluster; `make e2e` calls it.

Takes the cluster that kubectl is set to (KUBECONFIG), works in a namespace of its own with restricted Pod Security, and
removes that in the end, whatever happened. The images must be where the cluster finds them:
IMAGE_INIT, IMAGE_APP and IMAGE_MINIO name them; the defaults are what `scripts/images init app minio` builds.
"""
# ruff: noqa: INP001, S603, T201  a script: it prints, and runs what it wrote itself

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
from cluster import HERE, IMAGES, IRIS, MINIO, PATIENCE, Failed, Namespace, forwarded, kubectl, namespace, until
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

BUCKET = "models"
SETOSA = [5.1, 3.5, 1.4, 0.2]
STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a step with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


def check(happened: bool, expectation: str, seen: object) -> None:  # noqa: FBT001  it reads as a sentence
    """Go on only if it happened."""
    if not happened:
        raise Failed(f"expected {expectation}; saw {seen}")


def train(directory: Path) -> dict[str, Path]:
    """Two versions of an iris forest whose answers differ on purpose: numbers, then names."""
    iris = load_iris()
    paths = {}
    for version, labels in {"v1": iris.target, "v2": iris.target_names[iris.target]}.items():
        paths[version] = directory / version / "model.joblib"
        paths[version].parent.mkdir()
        joblib.dump(RandomForestClassifier(20, random_state=0).fit(iris.data, labels), paths[version])
    return paths


def publish(space: Namespace, models: dict[str, Path]) -> None:
    """Push the models into MinIO, as a developer would from a laptop."""
    with forwarded(space, "minio", 9000) as endpoint:
        os.environ.update(space.secret(MINIO), AWS_ENDPOINT_URL_S3=endpoint, AWS_DEFAULT_REGION="us-east-1")
        client = boto3.client("s3")
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # the SDK asks again when MinIO is not quite up
            client.create_bucket(Bucket=BUCKET)
        for version, path in models.items():
            target = f"s3://{BUCKET}/iris/{version}/model.joblib"
            subprocess.run([sys.executable, "-m", "modelfetch", "push", path, target], check=True)


def watch(space: Namespace, wanted: list[Any]) -> "subprocess.Popen[str]":
    """Begin to ask the Service, from a pod."""
    script = (HERE / "watch.py").read_text()
    inside = ["python", "-c", script, "http://iris", json.dumps([wanted, SETOSA, PATIENCE])]
    command = ["kubectl", "-n", space.name, "exec", "client", "--", *inside]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def settled(watching: "subprocess.Popen[str]", wanted: list[Any], before: list[Any], model: Path) -> None:
    """The Service must have come to the wanted answer without one failure on the way, with the very bytes pushed."""
    stdout, stderr = watching.communicate(timeout=PATIENCE + 60)
    check(watching.returncode == 0, "answers through the Service", stderr.strip())
    report = json.loads(stdout)
    check(report["steady"], f"the answer {wanted}", report)
    check(not report["failed"], "no request to fail", report["failed"])
    check(all(answer in (before, wanted) for answer in report["seen"]), f"only {before} and {wanted}", report["seen"])
    digest = "sha256:" + hashlib.sha256(model.read_bytes()).hexdigest()
    check(digest in json.dumps(report["model"]), f"a model with digest {digest}", report["model"])
    say(f"the Service answers {wanted}; {report['asked']} requests, none failed; {digest[:19]}…")


def failed_pod(space: Namespace) -> str | None:
    """The pod whose init container ended with an error, once there is one."""
    for pod in space.items("pods", IRIS):
        for status in pod["status"].get("initContainerStatuses", []):
            ends = [status[when].get("terminated", {}) for when in ("state", "lastState")]
            if any(end.get("exitCode", 0) for end in ends):
                return str(pod["metadata"]["name"])
    return None


def story(space: Namespace, directory: Path) -> None:
    """What a user of the `local` overlay lives through."""
    say(f"namespace {space.name}: restricted Pod Security is enforced")
    space.apply("iris/v1/model.joblib", "-l", MINIO)
    models = train(directory)
    space.rolled_out("minio")
    say("MinIO runs; pushing two versions of an iris forest")
    publish(space, models)

    space.apply("iris/v1/model.joblib")
    space.rolled_out("iris")
    space.kubectl("wait", "pod/client", "--for=condition=Ready", f"--timeout={PATIENCE}s")
    say("rolled out: the init containers have pulled v1, the apps are ready")
    settled(watch(space, [0]), [0], [0], models["v1"])

    say("changing the ConfigMap to v2 while the Service is being asked")
    watching = watch(space, ["setosa"])
    space.apply("iris/v2/model.joblib")
    space.rolled_out("iris")
    settled(watching, ["setosa"], [0], models["v2"])

    say("breaking the path")
    space.apply("iris/v3/nowhere.joblib")
    pod = until(lambda: failed_pod(space), "an init container that fails")
    described = space.kubectl("describe", "pod", pod)
    for reason in ("not_found", "iris/v3/nowhere.joblib", "Exit Code:    66"):
        check(reason in described, f"{reason!r} in kubectl describe pod", described)
    say("kubectl describe pod: " + next(line.strip() for line in described.splitlines() if "not_found" in line))
    settled(watch(space, ["setosa"]), ["setosa"], ["setosa"], models["v2"])

    space.kubectl("rollout", "undo", "deployment/iris")
    space.rolled_out("iris")
    say("kubectl rollout undo: back to v2, for the old ConfigMap is still there")


def stop(signum: int, _frame: object) -> NoReturn:
    """Let the namespace be removed before ending."""
    raise Failed(f"stopped by {signal.Signals(signum).name}")


def main() -> int:
    """Tell the story; 0 if it went as told."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        server = json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        say(
            f"Kubernetes {server}, context {kubectl('config', 'current-context').strip()}; {', '.join(IMAGES.values())}"
        )
        with tempfile.TemporaryDirectory() as scratch, namespace(Path(scratch)) as space:
            story(space, Path(scratch))
    except FileNotFoundError as error:
        print(f"e2e: {error.filename} is not installed", file=sys.stderr)
        return 1
    except (Failed, subprocess.SubprocessError) as error:
        print(f"e2e failed: {error}", file=sys.stderr)
        return 1
    say("passed; the namespace is gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())

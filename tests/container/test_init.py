"""The init image, run as by Kubernetes, KServe and Seldon."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testkit.file_tree import read_files, write_files
from testkit.signing_keys import make_key_pair, sign_model

if TYPE_CHECKING:
    from testkit.fault_proxy import FaultProxy
    from testkit.stores import S3Bucket, Store

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800), pytest.mark.slow]
UID = 65532
MODEL = b"a model of some bytes" * 1000


def test_pull_from_environment_variables_publishes_model_and_receipt(
    store: "Store", images: Any, podman: Any, volume: Path
) -> None:
    """Bucket, path and destination from a ConfigMap are enough; model and receipt are readable for any app."""
    store.put("iris/v1/model.joblib", MODEL)
    env = {**store.env, **store.model_env("iris/v1/model.joblib"), "LOCAL_MODEL_PATH": "/mnt/models/iris/model.joblib"}

    run = podman.run(images.init, volume=volume, env=env)

    assert run.returncode == 0, run.stderr
    model = volume / "iris/model.joblib"
    assert model.read_bytes() == MODEL
    assert (model.stat().st_uid, stat.S_IMODE(model.stat().st_mode)) == (UID, 0o644)
    assert json.loads((volume / "iris/model.joblib.modelfetch-receipt").read_text())["source"] == store.uri(
        "iris/v1/model.joblib"
    )


def test_pull_accepts_kserve_arguments(store: "Store", images: Any, podman: Any, volume: Path) -> None:
    """KServe and Seldon append SOURCE DEST to the entry point; DEST is the mounted volume."""
    store.put("iris/model.joblib", MODEL)
    store.put("iris/labels.txt", b"")

    run = podman.run(images.init, store.uri("iris"), "/mnt/models", volume=volume, env=store.env)

    assert run.returncode == 0, run.stderr
    assert (volume / "model.joblib").read_bytes() == MODEL
    assert (volume / "labels.txt").read_bytes() == b""


def test_second_start_leaves_the_model_untouched(store: "Store", images: Any, podman: Any, volume: Path) -> None:
    """A pod's sandbox may restart over the same volume."""
    store.put("model.joblib", MODEL)
    pull = (images.init, store.uri("model.joblib"), "/mnt/models/")
    assert podman.run(*pull, volume=volume, env=store.env).returncode == 0
    before = (volume / "model.joblib").stat()

    second = podman.run(*pull, volume=volume, env=store.env)

    after = (volume / "model.joblib").stat()
    assert second.returncode == 0, second.stderr
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_failure_exits_with_the_code_and_a_json_line(store: "Store", images: Any, podman: Any, volume: Path) -> None:
    """A missing path exits with 66; the last log line is JSON with the reason."""
    run = podman.run(images.init, store.uri("nowhere.joblib"), "/mnt/models/", volume=volume, env=store.env)

    assert run.returncode == 66
    assert json.loads(run.stderr.splitlines()[-1])["reason"] == "not_found"
    assert list(volume.iterdir()) == []


def test_model_larger_than_the_memory_limit_is_pulled(
    s3_bucket: "S3Bucket", images: Any, podman: Any, volume: Path
) -> None:
    """400 MB arrive under a limit of 256 MB."""
    s3_bucket.put("big.bin", bytes(400_000_000))

    run = podman.run(images.init, s3_bucket.uri("big.bin"), "/mnt/models/", volume=volume, env=s3_bucket.env)

    assert run.returncode == 0, run.stderr
    assert (volume / "big.bin").stat().st_size == 400_000_000


def test_sigterm_ends_the_pull_as_process_1(
    s3_bucket: "S3Bucket",
    images: Any,
    podman: Any,
    volume: Path,
    fault_proxy: "Callable[[str], FaultProxy]",
) -> None:
    """PID 1 has no default signal handlers: a pod deleted in mid-pull exits by itself, with nothing published."""
    s3_bucket.put("model.joblib", MODEL)
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(method="GET", path="model.joblib", stall_after=1000, stall_seconds=600, times=None)
    env = s3_bucket.env_at(proxy.url)
    detached = podman.run(
        images.init, s3_bucket.uri("model.joblib"), "/mnt/models/", volume=volume, env=env, flags=("--detach",)
    )
    container = detached.stdout.strip()
    try:
        proxy.wait_for(lambda: proxy.sent_bytes("model.joblib"))

        podman("kill", "--signal=TERM", container)

        assert podman("wait", container).stdout.strip() == "143"
        assert not (volume / "model.joblib").exists()
    finally:
        podman("rm", "--force", container)


@pytest.mark.parametrize(("cloud", "fixture"), [("s3", "s3_bucket"), ("gcs", "gcs_bucket")])
def test_image_for_one_cloud_pulls_without_the_other_sdk(
    cloud: str, fixture: str, request: pytest.FixtureRequest, build: Callable[..., str], podman: Any, volume: Path
) -> None:
    """`--build-arg CLOUD=…` leaves the other SDK out, and the pull works."""
    store: Store = request.getfixturevalue(fixture)
    store.put("model.joblib", MODEL)
    image = build("init", f"--build-arg CLOUD={cloud}")

    run = podman.run(image, store.uri("model.joblib"), "/mnt/models/", volume=volume, env=store.env)

    assert run.returncode == 0, run.stderr
    assert (volume / "model.joblib").read_bytes() == MODEL
    other = {"s3": "google.cloud.storage", "gcs": "boto3"}[cloud]
    missing = podman("run", "--rm", "--entrypoint=python", image, "-c", f"import {other}")
    assert "ModuleNotFoundError" in missing.stderr


def test_signatures_are_verified_with_sign_and_refused_with_a_hint_without(
    s3_bucket: "S3Bucket", images: Any, build: Callable[..., str], podman: Any, volume: Path, tmp_path: Path
) -> None:
    """`--build-arg SIGN=1` adds the signing packages; the default image fails with a hint before fetching."""
    key = make_key_pair(tmp_path)
    model = write_files(tmp_path / "model", {"model.joblib": MODEL})
    sign_model(model, key, model / "model.sig")
    for name, data in read_files(model).items():
        s3_bucket.put(f"iris/{name}", data)
    (volume / "key.pub").write_bytes(key.public.read_bytes())
    pull = (s3_bucket.uri("iris"), "/mnt/models/iris", "--verify-signature", "--public-key", "/mnt/models/key.pub")

    refused = podman.run(images.init, *pull, volume=volume, env=s3_bucket.env)
    verified = podman.run(build("init", "--build-arg SIGN=1"), *pull, volume=volume, env=s3_bucket.env)

    assert refused.returncode == 78
    assert "SIGN=1" in json.loads(refused.stderr.splitlines()[-1])["hint"]
    assert verified.returncode == 0, verified.stderr
    assert (volume / "iris/model.joblib").read_bytes() == MODEL
    assert "signature" in json.loads((volume / "iris/.modelfetch-receipt").read_text())["checks"]

"""The overlays differ in ConfigMap values and service-account annotations only, and a changed value rolls the pods."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import modelfetch

Manifests = list[dict[str, Any]]
Render = Callable[[str], Manifests]
CLOUDS = ["gke", "eks", "local"]
STORES = {"gke": "GCS", "eks": "S3", "local": "S3"}
ANNOTATION = {"gke": "iam.gke.io/gcp-service-account", "eks": "eks.amazonaws.com/role-arn", "local": None}
HASH = re.compile(r"(iris-model|model-store)-[a-z0-9]{10}\b")


def one(manifests: Manifests, kind: str, name: str) -> dict[str, Any]:
    """The one manifest of a kind whose name, without its hash, is `name`."""
    (found,) = (m for m in manifests if m["kind"] == kind and HASH.sub(r"\1", m["metadata"]["name"]) == name)
    return found


def common(manifests: Manifests) -> list[str]:
    """What must be the same everywhere: all but the values, the annotations, the hashes and the local store."""
    kept = []
    for manifest in manifests:
        metadata = manifest["metadata"]
        if metadata["name"] == "minio" or manifest["kind"] == "Secret":
            continue
        if manifest["kind"] == "ConfigMap":
            del manifest["data"]
        if manifest["kind"] == "ServiceAccount":
            metadata.pop("annotations", None)
        kept.append(HASH.sub(r"\1", json.dumps(manifest, sort_keys=True)))
    return sorted(kept)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_overlay_differs_only_in_values_and_annotations(cloud: str, manifests: Render) -> None:
    """All else of an overlay is the base's, byte for byte; `local` brings its own store besides."""
    assert common(manifests("base")) == common(manifests(cloud))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_overlay_brings_nothing_but_its_store(cloud: str, manifests: Render) -> None:
    """Only `local` has more manifests than the base: MinIO and its keys."""
    base = {(m["kind"], HASH.sub(r"\1", m["metadata"]["name"])) for m in manifests("base")}
    overlay = {(m["kind"], HASH.sub(r"\1", m["metadata"]["name"])) for m in manifests(cloud)}

    minio = {("Deployment", "minio"), ("Service", "minio"), ("Secret", "model-store")}
    assert overlay - base == (minio if cloud == "local" else set())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_configmap_names_one_store_and_the_destination(cloud: str, manifests: Render) -> None:
    """Bucket and path of one cloud, the path on the volume, and else only settings of that cloud's SDK."""
    data = one(manifests(cloud), "ConfigMap", "iris-model")["data"]

    names = {name for name in data if not name.startswith("AWS_")}
    store = STORES[cloud]
    assert names == {f"{store}_BUCKET", f"{store}_MODEL_PATH", "LOCAL_MODEL_PATH"}
    assert all(isinstance(value, str) and value for value in data.values())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_service_account_has_its_clouds_annotation(cloud: str, manifests: Render) -> None:
    """The pods run as that account, and it names the identity that may read the bucket."""
    rendered = manifests(cloud)

    annotations = one(rendered, "ServiceAccount", "iris")["metadata"].get("annotations", {})

    assert list(annotations) == ([ANNOTATION[cloud]] if ANNOTATION[cloud] else [])
    assert one(rendered, "Deployment", "iris")["spec"]["template"]["spec"]["serviceAccountName"] == "iris"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_changed_value_is_a_new_configmap_and_new_pods(
    cloud: str, manifests: Render, edited: Callable[[str, str, str], Manifests]
) -> None:
    """One changed value renames the ConfigMap, and the pod template follows in every reference to it."""
    variable = f"{STORES[cloud]}_MODEL_PATH"
    before, after = manifests(cloud), edited(cloud, variable, "iris/v2/model.joblib")

    old, new = (one(m, "ConfigMap", "iris-model")["metadata"]["name"] for m in (before, after))
    templates = [json.dumps(one(m, "Deployment", "iris")["spec"]["template"]) for m in (before, after)]

    assert old != new
    assert [text.count(old) for text in templates] == [2, 0]
    assert [text.count(new) for text in templates] == [0, 2]


def test_an_unchanged_value_leaves_the_pods_alone(
    manifests: Render, edited: Callable[[str, str, str], Manifests]
) -> None:
    """Writing the same value again renders the same manifests."""
    value = one(manifests("eks"), "ConfigMap", "iris-model")["data"]["S3_MODEL_PATH"]

    assert manifests("eks") == edited("eks", "S3_MODEL_PATH", value)


@pytest.mark.parametrize("cloud", ["base", *CLOUDS])
def test_images_are_pinned_to_this_version(cloud: str, manifests: Render) -> None:
    """Both images carry the version of this package: a tag that moves would change pods behind a rollout's back."""
    pod = one(manifests(cloud), "Deployment", "iris")["spec"]["template"]["spec"]

    images = [container["image"] for container in pod["initContainers"] + pod["containers"]]

    assert images == [f"modelfetch-init:{modelfetch.__version__}", f"modelserve:{modelfetch.__version__}"]

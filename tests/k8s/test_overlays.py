"""Overlays differ in ConfigMap values and service account annotations only; a changed value rolls the pods."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import modelfetch

Manifests = list[dict[str, Any]]
Render = Callable[[str], Manifests]
CLOUDS = ["gke", "eks", "local"]
STORE_BY_CLOUD = {"gke": "GCS", "eks": "S3", "local": "S3"}
ANNOTATION_BY_CLOUD = {"gke": "iam.gke.io/gcp-service-account", "eks": "eks.amazonaws.com/role-arn", "local": None}
NAME_HASH = re.compile(r"(iris-model|model-store)-[a-z0-9]{10}\b")


def find_manifest(manifests: Manifests, kind: str, name: str) -> dict[str, Any]:
    """Return the only manifest of a kind with this name, ignoring the name's hash."""
    (manifest,) = (m for m in manifests if m["kind"] == kind and NAME_HASH.sub(r"\1", m["metadata"]["name"]) == name)
    return manifest


def list_common_manifests(manifests: Manifests) -> list[str]:
    """Serialise the common part of all overlays: without values, annotations, hashes and the local store."""
    kept = []
    for manifest in manifests:
        metadata = manifest["metadata"]
        if metadata["name"] == "minio" or manifest["kind"] == "Secret":
            continue
        if manifest["kind"] == "ConfigMap":
            del manifest["data"]
        if manifest["kind"] == "ServiceAccount":
            metadata.pop("annotations", None)
        kept.append(NAME_HASH.sub(r"\1", json.dumps(manifest, sort_keys=True)))
    return sorted(kept)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_overlay_differs_only_in_values_and_annotations(cloud: str, manifests: Render) -> None:
    """Every other byte of an overlay equals the base; `local` adds a store."""
    assert list_common_manifests(manifests("base")) == list_common_manifests(manifests(cloud))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_only_the_local_overlay_adds_manifests(cloud: str, manifests: Render) -> None:
    """`local` adds MinIO and the access keys; `gke` and `eks` add nothing."""
    base = {(m["kind"], NAME_HASH.sub(r"\1", m["metadata"]["name"])) for m in manifests("base")}
    overlay = {(m["kind"], NAME_HASH.sub(r"\1", m["metadata"]["name"])) for m in manifests(cloud)}

    minio = {("Deployment", "minio"), ("Service", "minio"), ("Secret", "model-store")}
    assert overlay - base == (minio if cloud == "local" else set())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_configmap_names_one_store_and_the_destination(cloud: str, manifests: Render) -> None:
    """Bucket and path of one cloud, the path on the volume, and settings of the cloud's SDK only."""
    data = find_manifest(manifests(cloud), "ConfigMap", "iris-model")["data"]

    names = {name for name in data if not name.startswith("AWS_")}
    store = STORE_BY_CLOUD[cloud]
    assert names == {f"{store}_BUCKET", f"{store}_MODEL_PATH", "LOCAL_MODEL_PATH"}
    assert all(isinstance(value, str) and value for value in data.values())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_service_account_has_the_annotation_of_the_cloud(cloud: str, manifests: Render) -> None:
    """The pods run as the account; the annotation names the identity with read access to the bucket."""
    rendered = manifests(cloud)

    annotations = find_manifest(rendered, "ServiceAccount", "iris")["metadata"].get("annotations", {})

    assert list(annotations) == ([ANNOTATION_BY_CLOUD[cloud]] if ANNOTATION_BY_CLOUD[cloud] else [])
    assert find_manifest(rendered, "Deployment", "iris")["spec"]["template"]["spec"]["serviceAccountName"] == "iris"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_changed_value_renames_the_configmap_and_rolls_the_pods(
    cloud: str, manifests: Render, edit_configmap: Callable[[str, str, str], Manifests]
) -> None:
    """The pod template follows the new name in every reference."""
    variable = f"{STORE_BY_CLOUD[cloud]}_MODEL_PATH"
    before, after = manifests(cloud), edit_configmap(cloud, variable, "iris/v2/model.joblib")

    old, new = (find_manifest(m, "ConfigMap", "iris-model")["metadata"]["name"] for m in (before, after))
    templates = [json.dumps(find_manifest(m, "Deployment", "iris")["spec"]["template"]) for m in (before, after)]

    assert old != new
    assert [text.count(old) for text in templates] == [2, 0]
    assert [text.count(new) for text in templates] == [0, 2]


def test_unchanged_value_leaves_the_manifests_equal(
    manifests: Render, edit_configmap: Callable[[str, str, str], Manifests]
) -> None:
    """Writing the same value again renders the same manifests."""
    value = find_manifest(manifests("eks"), "ConfigMap", "iris-model")["data"]["S3_MODEL_PATH"]

    assert manifests("eks") == edit_configmap("eks", "S3_MODEL_PATH", value)


@pytest.mark.parametrize("cloud", ["base", *CLOUDS])
def test_images_are_pinned_to_the_package_version(cloud: str, manifests: Render) -> None:
    """A moving tag would change pods without a rollout."""
    pod = find_manifest(manifests(cloud), "Deployment", "iris")["spec"]["template"]["spec"]

    images = [container["image"] for container in pod["initContainers"] + pod["containers"]]

    assert images == [f"modelfetch-init:{modelfetch.__version__}", f"modelserve:{modelfetch.__version__}"]

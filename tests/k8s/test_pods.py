"""Pods: allowed under the `restricted` Pod Security Standard; app and init container fit together."""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

Manifests = list[dict[str, Any]]
Render = Callable[[str], Manifests]
RENDERED_NAMES = ["base", "gke", "eks", "local"]
UNITS = {"Mi": 1024**2, "Gi": 1024**3}
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
}
HOST_NAMESPACES = ["hostNetwork", "hostPID", "hostIPC"]


def list_pod_specs(manifests: Manifests) -> Iterator[dict[str, Any]]:
    """Return the pod specs of all Deployments."""
    return (m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment")


def find_iris_pod(manifests: Manifests) -> dict[str, Any]:
    """Return the pod spec of the service."""
    (deployment,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("Deployment", "iris"))
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def list_containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """List all containers, init containers included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def find_violations(pod: dict[str, Any]) -> list[str]:
    """List violations of the `restricted` standard, and writable root file systems."""
    context = pod.get("securityContext", {})
    found = [key for key in HOST_NAMESPACES if pod.get(key)]
    found += [f"volume {v['name']}" for v in pod.get("volumes", []) if not set(v) - {"name"} <= ALLOWED_VOLUMES]
    if context.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        found.append("seccompProfile")
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        found.append("runAsNonRoot")
    for container in list_containers(pod):
        own, name = container.get("securityContext", {}), container["name"]
        rules = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "privileged": not own.get("privileged"),
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            "overrides": not set(own) & {"runAsUser", "runAsNonRoot", "seccompProfile", "procMount"},
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{name}: {rule}" for rule, kept in rules.items() if not kept]
    return found


def parse_quantity(quantity: str) -> int:
    """Return a Kubernetes quantity in bytes."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


@pytest.mark.parametrize("name", RENDERED_NAMES)
def test_every_pod_meets_the_restricted_standard(name: str, manifests: Render) -> None:
    """No pod of base or overlay, MinIO included, violates the `restricted` standard or has a writable root."""
    found = list(list_pod_specs(manifests(name)))

    assert found
    assert [violation for pod in found for violation in find_violations(pod)] == []


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("pod", "seccompProfile"),
        ("pod", "runAsNonRoot"),
        ("initContainers", "capabilities"),
        ("initContainers", "allowPrivilegeEscalation"),
        ("containers", "readOnlyRootFilesystem"),
    ],
)
def test_missing_restriction_is_reported_as_a_violation(section: str, key: str, manifests: Render) -> None:
    """The check reports each removed setting, in init containers too."""
    pod = find_iris_pod(manifests("base"))
    owner = pod if section == "pod" else pod[section][0]

    del owner["securityContext"][key]

    assert [violation.endswith(key) for violation in find_violations(pod)] == [True]


@pytest.mark.parametrize("name", RENDERED_NAMES)
def test_app_and_init_container_share_volume_and_path(name: str, manifests: Render) -> None:
    """One volume at one path, read-only for the app; both take the model's path from the same key."""
    rendered = manifests(name)
    pod = find_iris_pod(rendered)
    (init,), (app,) = pod["initContainers"], pod["containers"]

    (writer,), (reader,) = init["volumeMounts"], app["volumeMounts"]
    (config,) = (m for m in rendered if m["kind"] == "ConfigMap")
    key = {"name": config["metadata"]["name"], "key": "LOCAL_MODEL_PATH"}

    assert reader == {**writer, "readOnly": True}
    assert writer["mountPath"] == "/mnt/models"
    assert PurePosixPath(config["data"]["LOCAL_MODEL_PATH"]).is_relative_to(writer["mountPath"])
    assert {"name": "MODEL_PATH", "valueFrom": {"configMapKeyRef": key}} in app["env"]
    assert {"configMapRef": {"name": config["metadata"]["name"]}} in init["envFrom"]


@pytest.mark.parametrize("name", RENDERED_NAMES)
def test_store_credentials_reach_only_the_init_container(name: str, manifests: Render) -> None:
    """The app has no Secret, and needs none to serve."""
    pod = find_iris_pod(manifests(name))

    assert [bool(source.get("secretRef")) for source in pod["initContainers"][0]["envFrom"]] == [False, True]
    assert "secret" not in str(pod["containers"]).lower()


def test_byte_budget_is_below_the_limits_of_volume_and_pod(manifests: Render) -> None:
    """A model over budget is refused by modelfetch before Kubernetes evicts the pod."""
    pod = find_iris_pod(manifests("base"))
    (init,), (app,), (volume,) = pod["initContainers"], pod["containers"], pod["volumes"]

    budget = {
        "name": "MODELFETCH_MAX_BYTES",
        "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}},
    }
    largest = parse_quantity(init["resources"]["limits"]["ephemeral-storage"])

    assert budget in init["env"]
    assert (
        largest
        < parse_quantity(volume["emptyDir"]["sizeLimit"])
        <= parse_quantity(app["resources"]["limits"]["ephemeral-storage"])
    )


def test_pod_has_no_api_token_and_no_service_variables(manifests: Render) -> None:
    """No token of the Kubernetes API, no variables of neighbouring Services."""
    pod = find_iris_pod(manifests("base"))

    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)


def test_failed_pull_shows_in_the_pod_status_and_keeps_old_pods(manifests: Render) -> None:
    """The termination message falls back to the log; old pods stay until a new pod is ready."""
    (deployment,) = (m for m in manifests("base") if m["kind"] == "Deployment")
    (init,) = find_iris_pod(manifests("base"))["initContainers"]

    assert init["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_liveness_and_readiness_probes_use_different_paths(manifests: Render) -> None:
    """A model that fails to load must not get the app killed; only readiness checks the model."""
    (app,) = find_iris_pod(manifests("base"))["containers"]

    paths = {probe: app[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}

"""The pods: allowed under the `restricted` Pod Security Standard, and the two containers fit together."""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

Manifests = list[dict[str, Any]]
Render = Callable[[str], Manifests]
ALL = ["base", "gke", "eks", "local"]
UNITS = {"Mi": 1024**2, "Gi": 1024**3}
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected"}
HOST = ["hostNetwork", "hostPID", "hostIPC"]


def pods(manifests: Manifests) -> Iterator[dict[str, Any]]:
    """The pod specs of all Deployments."""
    return (m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment")


def iris(manifests: Manifests) -> dict[str, Any]:
    """The pod spec of the service."""
    (deployment,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("Deployment", "iris"))
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers, init containers too."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def violations(pod: dict[str, Any]) -> list[str]:
    """What the `restricted` standard forbids, and a writable root besides."""
    context = pod.get("securityContext", {})
    found = [key for key in HOST if pod.get(key)]
    found += [f"volume {v['name']}" for v in pod.get("volumes", []) if not set(v) - {"name"} <= VOLUMES]
    if context.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        found.append("seccompProfile")
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        found.append("runAsNonRoot")
    for each in containers(pod):
        own, name = each.get("securityContext", {}), each["name"]
        rules = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "privileged": not own.get("privileged"),
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            "overrides": not set(own) & {"runAsUser", "runAsNonRoot", "seccompProfile", "procMount"},
            "hostPort": not any("hostPort" in port for port in each.get("ports", [])),
        }
        found += [f"{name}: {rule}" for rule, kept in rules.items() if not kept]
    return found


def amount(quantity: str) -> int:
    """A quantity in bytes."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


@pytest.mark.parametrize("name", ALL)
def test_every_container_is_restricted(name: str, manifests: Render) -> None:
    """No pod of base or overlay, MinIO's included, breaks the `restricted` standard or has a writable root."""
    found = list(pods(manifests(name)))

    assert found
    assert [violation for pod in found for violation in violations(pod)] == []


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
def test_a_missing_restriction_is_noticed(section: str, key: str, manifests: Render) -> None:
    """The check above sees each setting that is taken away, in init containers too."""
    pod = iris(manifests("base"))
    owner = pod if section == "pod" else pod[section][0]

    del owner["securityContext"][key]

    assert [violation.endswith(key) for violation in violations(pod)] == [True]


@pytest.mark.parametrize("name", ALL)
def test_the_app_reads_what_the_init_container_wrote(name: str, manifests: Render) -> None:
    """One volume at one path, read-only for the app; both learn the model's path from the same key."""
    rendered = manifests(name)
    pod = iris(rendered)
    (init,), (app,) = pod["initContainers"], pod["containers"]

    (writer,), (reader,) = init["volumeMounts"], app["volumeMounts"]
    (config,) = (m for m in rendered if m["kind"] == "ConfigMap")
    key = {"name": config["metadata"]["name"], "key": "LOCAL_MODEL_PATH"}

    assert reader == {**writer, "readOnly": True}
    assert writer["mountPath"] == "/mnt/models"
    assert PurePosixPath(config["data"]["LOCAL_MODEL_PATH"]).is_relative_to(writer["mountPath"])
    assert {"name": "MODEL_PATH", "valueFrom": {"configMapKeyRef": key}} in app["env"]
    assert {"configMapRef": {"name": config["metadata"]["name"]}} in init["envFrom"]


@pytest.mark.parametrize("name", ALL)
def test_only_the_init_container_gets_the_stores_keys(name: str, manifests: Render) -> None:
    """The app has no Secret: it needs none to serve."""
    pod = iris(manifests(name))

    assert [bool(source.get("secretRef")) for source in pod["initContainers"][0]["envFrom"]] == [False, True]
    assert "secret" not in str(pod["containers"]).lower()


def test_a_model_over_its_budget_is_refused_before_the_pod_is_evicted(manifests: Render) -> None:
    """The budget given to modelfetch is below the volume's limit, and that is not above the pod's."""
    pod = iris(manifests("base"))
    (init,), (app,), (volume,) = pod["initContainers"], pod["containers"], pod["volumes"]

    budget = {
        "name": "MODELFETCH_MAX_BYTES",
        "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}},
    }
    largest = amount(init["resources"]["limits"]["ephemeral-storage"])

    assert budget in init["env"]
    assert largest < amount(volume["emptyDir"]["sizeLimit"]) <= amount(app["resources"]["limits"]["ephemeral-storage"])


def test_the_pod_depends_on_nothing_that_kubernetes_injects(manifests: Render) -> None:
    """No token of the Kubernetes API, no variables of neighbouring Services."""
    pod = iris(manifests("base"))

    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)


def test_a_failed_pull_is_visible_and_takes_nothing_away(manifests: Render) -> None:
    """The reason reaches the pod's status; old pods stay until a new one is ready."""
    (deployment,) = (m for m in manifests("base") if m["kind"] == "Deployment")
    (init,) = iris(manifests("base"))["initContainers"]

    assert init["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_probes_ask_for_life_and_readiness_apart(manifests: Render) -> None:
    """A model that does not load must not get the app killed: only readiness looks at it."""
    (app,) = iris(manifests("base"))["containers"]

    asked = {probe: app[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert asked == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}

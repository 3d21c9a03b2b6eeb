"""Manifests are valid for the Kubernetes API: right types, no unknown key."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

Manifests = list[dict[str, Any]]
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
VERSIONS = ["1.30", "1.36"]
RENDERED_NAMES = ["base", "gke", "eks", "local"]


def find_unknown_keys(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of all keys missing in the schema; a validator would stop at the first fault of any kind."""
    while "$ref" in schema:
        schema = defs[schema["$ref"].rsplit("/", 1)[1]]
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_unknown_keys(item, schema.get("items", {}), defs, f"{path}[{index}]")
    elif isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key not in properties and not isinstance(others, dict):
                yield f"{path}.{key}"
            else:
                yield from find_unknown_keys(item, properties.get(key) or others or {}, defs, f"{path}.{key}")


def check_manifest(manifest: dict[str, Any], version: str) -> list[str]:
    """List all unknown keys of a manifest."""
    directory = SCHEMAS / f"v{version}.0-local-strict"
    group = manifest["apiVersion"].replace(".k8s.io", "").replace("/", "-")
    schema = json.loads((directory / f"{manifest['kind'].lower()}-{group}.json").read_text())
    defs = json.loads((directory / "_definitions.json").read_text())["$defs"]
    return list(find_unknown_keys(manifest, schema, defs))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED_NAMES)
def test_manifests_pass_strict_validation(name: str, version: str, manifests: Callable[[str], Manifests]) -> None:
    """Base and overlays pass `kubernetes-validate --strict`."""
    rendered = manifests(name)

    used = {kubernetes_validate.validate(manifest, version, strict=True) for manifest in rendered}

    assert used == {version}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED_NAMES)
def test_manifests_have_no_unknown_key(name: str, version: str, manifests: Callable[[str], Manifests]) -> None:
    """No key of base or overlay is misspelt, at any depth."""
    assert [fault for manifest in manifests(name) for fault in check_manifest(manifest, version)] == []


def test_unknown_keys_are_found_beside_other_faults(manifests: Callable[[str], Manifests]) -> None:
    """Two misspelt keys are both reported although a value has the wrong type as well."""
    (deployment,) = (each for each in manifests("base") if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    pod["hostNetwrk"] = True
    pod["initContainers"][0]["terminationMessagePolicies"] = "File"
    pod["containers"][0]["image"] = 3

    found = check_manifest(deployment, "1.36")

    prefix = ".spec.template.spec"
    assert sorted(found) == [f"{prefix}.hostNetwrk", f"{prefix}.initContainers[0].terminationMessagePolicies"]

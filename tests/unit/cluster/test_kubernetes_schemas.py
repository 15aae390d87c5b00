"""The manifests against Kubernetes' own schemas: what a pod, a StatefulSet, a Service and a NetworkPolicy may hold. Of
KubeRay's kinds that is their pods; test_kuberay_schemas.py asks about the fields around these."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kuberay_crds import cluster_spec
from referencing import Registry, Resource

installed = find_spec("kubernetes_validate")
if installed is None:
    pytest.skip("pip install --no-deps kubernetes-validate brings the schemas", allow_module_level=True)
pytestmark = pytest.mark.thorough
MANIFESTS = sorted((Path(__file__).parents[3] / "clusters/kuberay").glob("*.yaml"))
FILES = {
    "Pod": "podtemplatespec-v1",
    "StatefulSet": "statefulset-apps-v1",
    "Service": "service-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
}


def version_of(folder: Path) -> list[int]:
    return [int(one) for one in folder.name.removeprefix("v").partition("-")[0].split(".")]


@pytest.fixture(scope="module")
def validators() -> dict[str, jsonschema.Draft202012Validator]:
    """By kind; strict, so that a misspelled field is found."""
    (package,) = installed.submodule_search_locations
    folder = max(Path(package).glob("kubernetes-json-schema/v*-local-strict"), key=version_of)
    definitions = json.loads((folder / "_definitions.json").read_text())
    registry = Registry().with_resource(
        "https://kubernetes.io/api/_definitions.json", Resource.from_contents(definitions)
    )
    return {
        kind: jsonschema.Draft202012Validator(
            json.loads((folder / f"{file}.json").read_text()), registry=registry
        )
        for kind, file in FILES.items()
    }


def parts(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What Kubernetes itself has a schema of, by the schema's kind."""
    if not document["apiVersion"].startswith("ray.io/"):
        return [(document["kind"], document)]
    cluster = cluster_spec(document)
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    if "submitterPodTemplate" in document["spec"]:
        templates.append(document["spec"]["submitterPodTemplate"])
    return [("Pod", one) for one in templates]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one.stem)
def test_they_hold_what_kubernetes_allows(
    validators: dict[str, jsonschema.Draft202012Validator], manifest: Path
) -> None:
    found = [one for document in yaml.safe_load_all(manifest.read_text()) for one in parts(document)]
    assert found
    for kind, part in found:
        validators[kind].validate(part)


def test_a_misspelled_field_of_a_container_is_found(
    validators: dict[str, jsonschema.Draft202012Validator],
) -> None:
    (manifest,) = [one for one in MANIFESTS if one.stem == "raycluster"]
    kind, pod = parts(next(yaml.safe_load_all(manifest.read_text())))[0]
    pod["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="volumeMount"):
        validators[kind].validate(pod)

"""The RayCluster, RayJob and RayService of clusters/kuberay against KubeRay's CRDs, and against what its operator
checks besides."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kuberay_crds import AFTER_1_6, CRDS, RULES, cluster_spec, fields, pods
from kubernetes_forms import Form

FOLDER = Path(__file__).parents[3] / "clusters/kuberay"
KINDS = {"raycluster": "RayCluster", "rayjob": "RayJob", "rayservice": "RayService"}
MODES = {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}


def manifest(name: str) -> dict[str, Any]:
    """Nothing in it is shared, as what YAML's aliases stand for would be: a change is one change."""
    found = next(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))
    apart: dict[str, Any] = json.loads(json.dumps(found))
    return apart


def faults(name: str, document: dict[str, Any]) -> list[str]:
    found = jsonschema.Draft202012Validator(CRDS[KINDS[name]]).iter_errors(document)
    return [f"{'.'.join(map(str, one.absolute_path))}: {one.message}" for one in found]


def nodes(schema: Form, value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Form]]:
    """Every place in it that its schema speaks of by name."""
    yield place, schema
    if isinstance(value, dict):
        for key in value.keys() & schema.get("properties", {}).keys():
            yield from nodes(schema["properties"][key], value[key], (*place, key))
    elif isinstance(value, list) and "items" in schema:
        for index, one in enumerate(value):
            yield from nodes(schema["items"], one, (*place, index))


def at(document: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        document = document[step]
    return document


def changed(name: str, place: str, value: Any) -> dict[str, Any]:
    """The manifest with another value at a place below its spec."""
    document = manifest(name)
    *way, last = ["spec", *(int(one) if one.isdigit() else one for one in place.split("."))]
    at(document, tuple(way))[last] = value
    return document


@pytest.mark.parametrize("name", KINDS)
def test_they_are_what_the_crds_take(name: str) -> None:
    assert faults(name, manifest(name)) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_misspelled_field_is_refused_at_every_level(name: str) -> None:
    document = manifest(name)
    levels = [
        place
        for place, schema in nodes(CRDS[KINDS[name]], document)
        if schema.get("additionalProperties") is False
    ]
    spec = {"raycluster": (), "rayjob": ("rayClusterSpec",), "rayservice": ("rayClusterConfig",)}[name]
    inside = [(), ("authOptions",), ("autoscalerOptions",), ("headGroupSpec",), ("workerGroupSpecs", 0)]
    container = ("headGroupSpec", "template", "spec", "containers", 0)
    assert {(), ("spec",), *(("spec", *spec, *one) for one in (*inside, container))} <= set(levels)
    for place in levels:
        wrong = copy.deepcopy(document)
        level = at(wrong, place)
        key = next(iter(level), "field")
        level[f"{key}s"] = level.pop(key, {})
        assert any(f"'{key}s' was unexpected" in one for one in faults(name, wrong)), place


@pytest.mark.parametrize("name", KINDS)
def test_a_wrong_type_is_refused_at_every_place(name: str) -> None:
    document = manifest(name)
    for place, _ in nodes(CRDS[KINDS[name]], document):
        if place:
            wrong = copy.deepcopy(document)
            *way, last = place
            at(wrong, tuple(way))[last] = "word" if isinstance(at(document, place), list) else []
            assert faults(name, wrong), place


@pytest.mark.parametrize("name", KINDS)
def test_a_required_field_is_missed_at_every_level(name: str) -> None:
    document = manifest(name)
    missed = []
    for place, schema in nodes(CRDS[KINDS[name]], document):
        for key in schema.get("required", []):
            wrong = copy.deepcopy(document)
            del at(wrong, place)[key]
            assert any(f"'{key}' is a required property" in one for one in faults(name, wrong)), (place, key)
            missed.append(key)
    assert {"spec", "headGroupSpec", "template", "groupName", "minReplicas", "maxReplicas"} <= set(missed)
    assert name != "rayservice" or "rayClusterConfig" in missed


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("raycluster", "authOptions.mode", "Token"),
        ("raycluster", "autoscalerOptions.upscalingMode", "Slow"),
        ("raycluster", "autoscalerOptions.version", "v3"),
        ("raycluster", "autoscalerOptions.securityContext.privileged", True),
        ("raycluster", "gcsFaultToleranceOptions.backend", "etcd"),
        ("raycluster", "gcsFaultToleranceOptions.storage", {"size": "1 GiB"}),
        ("raycluster", "gcsFaultToleranceOptions.activePassiveHeadOptions", {"retryPeriodSeconds": 0}),
        ("raycluster", "headGroupSpec.ingressOptions", {"pathType": "exact"}),
        ("raycluster", "headGroupSpec.rayStartParams.num-cpus", 0),
        ("raycluster", "idleTerminationOptions", {"policy": "Delete"}),
        ("raycluster", "networkPolicy", {"workerGroups": [{"egressRules": []}]}),
        ("raycluster", "upgradeStrategy", {"type": "NewCluster"}),
        ("raycluster", "workerGroupSpecs.0.replicas", 2**31),
        ("raycluster", "workerGroupSpecs.0.topology", {"labelMappings": [{"mapTo": "zone"}]}),
        ("rayjob", "rayClusterSpec.authOptions.mode", "none"),
        ("rayjob", "rayClusterSpec.autoscalerOptions.upscalingMode", "Slow"),
        ("rayjob", "deletionStrategy", {"onSuccess": {"policy": "Delete"}}),
        ("rayjob", "deletionStrategy", {"deletionRules": []}),
        ("rayjob", "deletionStrategy", {"deletionRules": [{"policy": "DeleteSelf"}]}),
        ("rayjob", "entrypointNumGpus", "1"),
        ("rayjob", "preRunningDeadlineSeconds", 0),
        ("rayjob", "submitterConfig", {"backoffLimit": 1.5}),
        ("rayjob", "submitterPodTemplate.spec.restartPolicy", "Sometimes"),
        ("rayservice", "rayClusterConfig.authOptions.mode", True),
        ("rayservice", "rayClusterConfig.upgradeStrategy", {"type": "NewCluster"}),
        ("rayservice", "rayClusterDeletionDelaySeconds", -1),
        ("rayservice", "serveConfigV2", {"applications": []}),
        ("rayservice", "upgradeStrategy", {"clusterUpgradeOptions": {"maxSurgePercent": 10}}),
    ],
)
def test_what_the_crds_do_not_take_is_refused(name: str, place: str, value: Any) -> None:
    told = faults(name, changed(name, place, value))
    above = f"spec.{place}".rpartition(".")[0]
    assert told and all(one.startswith(above) and place.rpartition(".")[2] in one for one in told)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("raycluster", "authOptions.secretName", "mine"),
        ("raycluster", "gcsFaultToleranceOptions.storage", {"size": "1Gi", "deletionPolicy": "Retain"}),
        ("raycluster", "workerGroupSpecs.0.numOfHosts", 2),
        ("rayjob", "deletionStrategy", {"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {}}),
        ("rayjob", "submitterPodTemplate.spec.restartPolicy", "OnFailure"),
        ("rayservice", "upgradeStrategy", {"type": "None"}),
    ],
)
def test_what_the_crds_take_is_taken(name: str, place: str, value: Any) -> None:
    assert faults(name, changed(name, place, value)) == []


def known(path: str) -> bool:
    kind, *way = path.split(".")
    schema = CRDS[kind]["properties"]["spec"]
    for step in way:
        schema = schema.get("items", schema)
        if step not in schema["properties"]:
            return False
        schema = schema["properties"][step]
    return True


@pytest.mark.parametrize("name", KINDS)
def test_no_field_has_a_rule_beyond_the_schema_or_waits_for_a_release(name: str) -> None:
    """Who sets one of RULES writes its rule down here as an assertion."""
    assert all(known(path) for path in (*RULES, *AFTER_1_6))
    assert fields(manifest(name)) & (RULES.keys() | AFTER_1_6) == set()
    assert "RayCluster.autoscalerOptions.securityContext" in fields(manifest(name))


def refused(document: dict[str, Any]) -> list[str]:
    """What the operator itself would not take of what our manifests set: by its validation.go at the commit of the
    CRDs, the modes that its types name, and what Kubernetes wants of the Job that it makes."""
    spec, cluster = document["spec"], cluster_spec(document)
    params = [
        one.get("rayStartParams", {}) for one in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    head, *_ = pods(cluster)
    redis = cluster.get("gcsFaultToleranceOptions", {"redisAddress": "none"})
    names = {one["name"] for one in head["containers"][0].get("env", [])}
    name = document["metadata"].get("name") or document["metadata"]["generateName"] + "1"
    version = tuple(int(one) for one in cluster.get("rayVersion", "0").split("."))
    checks = {
        "name": re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None,
        "rayVersion": cluster["authOptions"]["mode"] == "disabled" or version >= (2, 52),
        "enableK8sTokenAuth": cluster is spec or not cluster["authOptions"].get("enableK8sTokenAuth"),
        "idleTimeoutSeconds": cluster["autoscalerOptions"].get("idleTimeoutSeconds", 0) >= 0,
        "labels": all("labels" not in one for one in params),
        "redisAddress": bool(redis.get("redisAddress")),
        "redis-password": "redis-password" not in params[0] and "REDIS_PASSWORD" not in names,
        # With the autoscaler that Ray has since 2.47.
        "restartPolicy": all(one.get("restartPolicy", "Never") == "Never" for one in pods(cluster)),
        "replicas": all(0 <= one["minReplicas"] <= one["maxReplicas"] for one in cluster["workerGroupSpecs"]),
    }
    if document["kind"] == "RayJob":
        submitter = spec["submitterPodTemplate"]["spec"]
        mode, ttl = spec.get("submissionMode", "K8sJobMode"), spec.get("ttlSecondsAfterFinished", 0)
        checks |= {
            "activeDeadlineSeconds": spec.get("activeDeadlineSeconds", 1) > 0,
            "backoffLimit": 0 <= spec.get("backoffLimit", 0) <= (0 if mode == "InteractiveMode" else 2**31),
            "submissionMode": mode in MODES,
            "submitter": submitter.get("restartPolicy") in ("Never", "OnFailure"),
            "submitterPodTemplate": mode != "SidecarMode",
            "ttlSecondsAfterFinished": ttl == 0 or (ttl > 0 and spec.get("shutdownAfterJobFinishes", False)),
        }
    return [name for name, good in checks.items() if not good]


@pytest.mark.parametrize("name", KINDS)
def test_the_operator_takes_them(name: str) -> None:
    assert refused(manifest(name)) == []


@pytest.mark.parametrize(
    ("name", "place", "value", "told"),
    [
        ("raycluster", "headGroupSpec.rayStartParams.redis-password", "open", "redis-password"),
        ("raycluster", "gcsFaultToleranceOptions.redisAddress", "", "redisAddress"),
        ("raycluster", "headGroupSpec.rayStartParams.labels", "a=b", "labels"),
        ("raycluster", "workerGroupSpecs.0.minReplicas", 9, "replicas"),
        ("raycluster", "workerGroupSpecs.0.template.spec.restartPolicy", "OnFailure", "restartPolicy"),
        ("rayservice", "rayClusterConfig.authOptions.enableK8sTokenAuth", True, "enableK8sTokenAuth"),
        ("rayjob", "activeDeadlineSeconds", 0, "activeDeadlineSeconds"),
        ("rayjob", "backoffLimit", -1, "backoffLimit"),
        ("rayjob", "shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished"),
        ("rayjob", "submissionMode", "Sidecar", "submissionMode"),
        ("rayjob", "submissionMode", "InteractiveMode", "backoffLimit"),
        ("rayjob", "submissionMode", "SidecarMode", "submitterPodTemplate"),
        ("rayjob", "submitterPodTemplate.spec.restartPolicy", "Always", "submitter"),
        ("rayjob", "rayClusterSpec.headGroupSpec.template.spec.restartPolicy", "Always", "restartPolicy"),
        ("rayjob", "rayClusterSpec.rayVersion", "2.51.0", "rayVersion"),
        ("rayjob", "rayClusterSpec.autoscalerOptions.idleTimeoutSeconds", -1, "idleTimeoutSeconds"),
    ],
)
def test_what_the_operator_does_not_take_is_told(name: str, place: str, value: Any, told: str) -> None:
    document = changed(name, place, value)
    assert faults(name, document) == [] and refused(document) == [told], "no schema says it"


@pytest.mark.parametrize("name", KINDS)
def test_they_say_more_than_the_crds_ask(name: str) -> None:
    document = manifest(name)
    groups = cluster_spec(document)["workerGroupSpecs"]
    assert groups and all("rayStartParams" in one for one in groups), "older operators ask for them"
    assert list(document["metadata"]) == ["generateName" if name == "rayjob" else "name"]
    assert (
        name != "rayjob"
        or {"entrypoint", "rayClusterSpec", "submitterPodTemplate"} <= document["spec"].keys()
    )
    assert name != "rayservice" or "serveConfigV2" in document["spec"]

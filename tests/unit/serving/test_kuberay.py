"""The KubeRay manifest that serves: of the operator's CRD, and of our config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from answering_backends import ToldBackend, listening
from kuberay_crds import CRDS, pods

from raytrain.serving.launch import serve_config
from raytrain.serving.section import load_serving

ROOT = Path(__file__).parents[3]


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "clusters/kuberay/rayservice.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def cluster(documents: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = documents[0]["spec"]["rayClusterConfig"]
    return found


def test_it_is_of_the_operator_s_crd(documents: list[dict[str, Any]]) -> None:
    jsonschema.validate(documents[0], CRDS["RayService"])
    documents[0]["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParam"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayStartParam"):
        jsonschema.validate(documents[0], CRDS["RayService"])


def test_it_serves_what_the_config_says(documents: list[dict[str, Any]], cluster: dict[str, Any]) -> None:
    section = load_serving(ROOT / "serve/kuberay.yaml")
    written = yaml.safe_load(documents[0]["spec"]["serveConfigV2"])
    assert written == serve_config(section), "put in what `raytrain serve config serve/kuberay.yaml` prints"
    (workers,) = cluster["workerGroupSpecs"]
    replicas = section.replicas
    assert (workers["minReplicas"], workers["maxReplicas"]) == (replicas.num_replicas, replicas.max_replicas)
    (container,) = workers["template"]["spec"]["containers"]
    requested = container["resources"]["requests"]
    assert float(requested["cpu"]) == replicas.cpus_per_replica, "a pod holds one replica"
    assert float(requested["nvidia.com/gpu"]) == replicas.gpus_per_replica
    assert {"containerPort": section.http.port, "name": "serve"} in container["ports"]


def test_every_file_of_the_config_is_mounted(cluster: dict[str, Any]) -> None:
    section = load_serving(ROOT / "serve/kuberay.yaml")
    for pod in pods(cluster):
        volumes = {one["name"] for one in pod["volumes"]}
        for container in (*pod["containers"], *pod["initContainers"]):
            assert {one["name"] for one in container["volumeMounts"]} <= volumes
        mounted = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
        assert section.releases.keys in mounted and str(section.http.key_file.parent) in mounted
        assert pod["initContainers"][0]["command"][-1] == str(section.http.key_file)
        assert "600" in pod["initContainers"][0]["command"], "raytrain refuses a file that others may read"


def test_nothing_is_open(documents: list[dict[str, Any]], cluster: dict[str, Any]) -> None:
    section = load_serving(ROOT / "serve/kuberay.yaml")
    assert not section.http.insecure and not section.http.open_metrics
    assert cluster["authOptions"] == {"mode": "token"}
    head = cluster["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and head["enableIngress"] is False
    policy = documents[1]
    labels = head["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {**labels, "ray.io/node-type": "head"}
    for rule in policy["spec"]["ingress"]:
        ports = [one["port"] for one in rule.get("ports", [])]
        assert "from" in rule or ports == [section.http.port], "from anywhere, HTTP with keys alone"


def test_its_probes_ask_what_is_answered_without_a_key(cluster: dict[str, Any], tmp_path: Path) -> None:
    import requests

    from raytrain.serving.backend import Readiness
    from raytrain.serving.http.app import build_app
    from raytrain.serving.http.keys import KeyFile
    from raytrain.serving.http.section import HttpSection

    head, workers = pods(cluster)
    assert not {"readinessProbe", "livenessProbe"} & head["containers"][0].keys(), (
        "the head comes before what is served"
    )
    (container,) = workers["containers"]
    assert "livenessProbe" not in container, "a pod is not killed for what Serve puts right"
    probe = container["readinessProbe"]["httpGet"]
    assert probe["port"] in {one["name"] for one in container["ports"]}
    file = KeyFile(tmp_path / "keys.json")
    file.add("somebody")
    backend = ToldBackend()
    with listening(build_app(backend, HttpSection(host="0.0.0.0", api_keys=str(file.path)))) as url:
        as_kubelet = {"host": "10.1.2.3:8000", "user-agent": "kube-probe/1.34"}
        for path in (probe["path"], "/health"):
            assert requests.get(url + path, headers=as_kubelet, timeout=30).status_code == 200, path
        backend.readiness_told = Readiness(False, "tiny", {})
        assert requests.get(url + probe["path"], headers=as_kubelet, timeout=30).status_code == 503
        assert requests.get(f"{url}/health", headers=as_kubelet, timeout=30).status_code == 200

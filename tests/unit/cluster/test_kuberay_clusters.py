"""The KubeRay manifests of clusters and jobs, and the image that they name."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from kuberay_crds import CRDS, cluster_spec, pods
from kubernetes_forms import FORMS

from raytrain.training.spec import load_spec

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "clusters/kuberay"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
OF_RAY = ["raycluster", "rayjob", "rayservice"]
USER = 1000


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def of_kind(name: str, kind: str) -> dict[str, Any]:
    (found,) = [one for one in documents(name) if one["kind"] == kind]
    return found


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one.stem)
def test_they_are_of_their_forms(manifest: Path) -> None:
    for document in documents(manifest.stem):
        jsonschema.validate(document, {**FORMS, **CRDS}[document["kind"]])


@pytest.mark.parametrize("name", OF_RAY)
def test_a_cluster_is_closed_and_grows(name: str) -> None:
    spec = cluster_spec(documents(name)[0])
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"} and spec["enableInTreeAutoscaling"] is True
    head = spec["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and head["enableIngress"] is False
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] < group["maxReplicas"]
    for pod in pods(spec):
        for container in pod["containers"]:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert requests["memory"] == limits["memory"], "Ray counts the limit as its own"
    policy = of_kind(name, "NetworkPolicy")
    labels = head["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {**labels, "ray.io/node-type": "head"}
    for group in spec["workerGroupSpecs"]:
        assert group["template"]["metadata"]["labels"] == labels, "the policy lets its workers to the head"
    own, operator = (rule["from"][0] for rule in policy["spec"]["ingress"][:2])
    assert own == {"podSelector": {"matchLabels": labels}}
    assert operator["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "kuberay-operator"}, (
        "the label of Helm's operator and of kustomize's"
    )


def test_manifests_and_guide_want_one_operator() -> None:
    """1.5.1, the first that knows authOptions."""
    (guide,) = re.findall(r"want KubeRay ([\d.]+) or newer", (ROOT / "docs/clusters.md").read_text())
    told = [
        re.findall(r"\(([\d.]+) or newer, for authOptions\)", (FOLDER / f"{one}.yaml").read_text())
        for one in OF_RAY
    ]
    assert told == [[guide]] * len(OF_RAY) and guide == "1.5.1"


def test_all_of_them_stand_in_one_namespace() -> None:
    """KubeRay names a head's Service after its RayCluster or RayService, and policies that select one pod add up."""
    found = {(one["kind"], one["metadata"].get("name")) for file in MANIFESTS for one in documents(file.stem)}
    assert len(found) == sum(len(documents(file.stem)) for file in MANIFESTS), "two of a kind, of one name"
    names = [documents(one)[0]["metadata"]["name"] for one in ("raycluster", "rayservice")]
    assert len(set(names)) == len(names)
    assert f"service/{names[0]}-head-svc " in (FOLDER / "raycluster.yaml").read_text()
    labels = [
        cluster_spec(documents(one)[0])["headGroupSpec"]["template"]["metadata"]["labels"]["app"]
        for one in OF_RAY
    ]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one.stem)
def test_their_pods_are_let_in_where_pod_security_is_restricted(manifest: Path) -> None:
    """KubeRay adds containers: the one that waits for the GCS is as the worker's, the autoscaler's is told here."""
    document = documents(manifest.stem)[0]
    if manifest.stem in OF_RAY:
        spec = cluster_spec(document)
        found, contexts = list(pods(spec)), [spec["autoscalerOptions"]["securityContext"]]
    else:
        found, contexts = [document["spec"]["template"]["spec"]], []
    if "submitterPodTemplate" in document["spec"]:
        found.append(document["spec"]["submitterPodTemplate"]["spec"])
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts += [one["securityContext"] for one in (*pod["containers"], *pod.get("initContainers", []))]
    for context in contexts:
        assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods_of_training_may_do_nothing_but_train(name: str) -> None:
    spec = cluster_spec(documents(name)[0])
    containers = [container for pod in pods(spec) for container in pod["containers"]]
    if name == "rayjob":
        containers += documents(name)[0]["spec"]["submitterPodTemplate"]["spec"]["containers"]
    for pod in pods(spec):
        assert pod["securityContext"]["runAsUser"] == USER
        volumes = {one["name"] for one in pod["volumes"]}
        assert {one["name"] for one in pod["containers"][0]["volumeMounts"]} <= volumes
    for container in containers:
        assert "livenessProbe" not in container, "KubeRay's own ask at the paths that want no token"
    policy = of_kind(name, "NetworkPolicy")
    assert all("from" in rule for rule in policy["spec"]["ingress"]), "nobody from anywhere"


@pytest.mark.parametrize("name", ["raycluster", "rayservice"])
def test_heads_that_are_started_again_find_their_redis(name: str) -> None:
    options = cluster_spec(documents(name)[0])["gcsFaultToleranceOptions"]
    redis, service = of_kind("redis", "StatefulSet"), of_kind("redis", "Service")
    port = service["spec"]["ports"][0]["port"]
    assert options["redisAddress"] == f"redis://{service['metadata']['name']}:{port}"
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    assert options["redisPassword"]["valueFrom"] == container["env"][0]["valueFrom"], (
        "one password, from one Secret"
    )
    labels = redis["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == redis["spec"]["selector"]["matchLabels"] == labels


def test_redis_lets_the_clusters_that_name_it_in_and_nobody_else() -> None:
    (rule,) = of_kind("redis", "NetworkPolicy")["spec"]["ingress"]
    clusters = {one: cluster_spec(documents(one)[0]) for one in OF_RAY}
    labels = [
        one["headGroupSpec"]["template"]["metadata"]["labels"]
        for one in clusters.values()
        if "gcsFaultToleranceOptions" in one
    ]
    assert len(labels) == 2
    for peer in rule["from"]:
        assert peer.keys() == {"podSelector"}, "pods of this namespace"
    admitted = [peer["podSelector"]["matchLabels"]["app"] for peer in rule["from"]]
    assert sorted(admitted) == sorted(one["app"] for one in labels)


def test_health_is_told_without_a_token() -> None:
    """KubeRay's probes carry none: the paths that they ask are among those that Ray leaves open."""
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
    from ray.dashboard.http_server_head import HttpServerDashboardHead

    assert {"/api/healthz", "/api/local_raylet_healthz"} <= set(PUBLIC_EXACT_PATHS)
    written = inspect.getsource(HttpServerDashboardHead)
    (opened,) = re.findall(r"public_exact_paths = \{(.*?)\}", written, re.DOTALL)
    assert '"/api/gcs_healthz"' in opened


def test_two_clusters_do_not_share_what_redis_holds() -> None:
    cluster = cluster_spec(documents("raycluster")[0])["gcsFaultToleranceOptions"]
    service = cluster_spec(documents("rayservice")[0])["gcsFaultToleranceOptions"]
    # Without a name KubeRay takes the cluster's own id.
    assert cluster.get("externalStorageNamespace") != service.get("externalStorageNamespace")


def test_the_job_s_command_is_one_of_ours() -> None:
    words = of_kind("rayjob", "RayJob")["spec"]["entrypoint"].split()
    place = "/opt/raytrain/"
    assert f"\nWORKDIR {place.rstrip('/')}\n" in (ROOT / "clusters/Dockerfile").read_text()
    assert words[0] == "python" and (ROOT / words[1].removeprefix(place)).is_file()
    spec = load_spec(ROOT / words[2].removeprefix(place), words[3:])
    workers = cluster_spec(documents("rayjob")[0])["workerGroupSpecs"][0]
    assert spec.scaling.use_gpu and spec.scaling.min_workers <= workers["maxReplicas"]
    assert str(spec.storage.path).startswith("s3://")


def test_hadolint_has_nothing_against_the_image() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    told = subprocess.run(
        [hadolint, ROOT / "clusters/Dockerfile"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout


def lines_of_the_dockerfile() -> list[str]:
    text = (ROOT / "clusters/Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_image_holds_what_it_copies_at_the_lock() -> None:
    lines = lines_of_the_dockerfile()
    ignored = (ROOT / "clusters/Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    assert copied == let_through, "the context holds what is copied, and nothing else"
    assert all((ROOT / source).exists() for source in copied)
    lock = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [pin for line in lines for pin in re.findall(r"\s([\w-]+==[\w.]+)", line)]
    assert pins and set(pins) <= set(lock), "pinned as in constraints.txt"
    installs = [line for line in lines if "pip install" in line]
    assert all("-c constraints.txt" in line or "torch==" in line for line in installs)
    extras = next(line.partition("=")[2] for line in lines if line.startswith("ARG EXTRAS"))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()


def test_the_image_is_of_this_python_and_not_root_s() -> None:
    import platform

    lines = lines_of_the_dockerfile()
    version = next(line.partition("=")[2] for line in lines if line.startswith("ARG PYTHON"))
    assert platform.python_version().startswith(version)
    stages = {line.split()[-1]: line.split()[1] for line in lines if line.startswith("FROM ")}
    assert stages.keys() == {"base", "torch-cpu", "torch-cuda", "raytrain"}
    assert stages["raytrain"] == "torch-${DEVICE}" and stages["base"] == "python:${PYTHON}-slim"
    users = [line for line in lines if line.startswith("USER ")]
    assert users == [f"USER {USER}"] and lines.index(users[0]) > max(
        i for i, line in enumerate(lines) if line.startswith("RUN ")
    )
    assert any(" wget" in line for line in lines), "KubeRay's probes ask with it"

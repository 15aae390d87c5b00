"""What KubeRay's CRDs take in the spec of a RayCluster, a RayJob and a RayService (ray.io/v1), as a table of our own:
each field that is KubeRay's with its type, enum, bounds and default, what is required, and which rules go further.

Taken from github.com/ray-project/kuberay, read in November 2026:

- helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml and ray.io_rayservices.yaml at commit
  02a80a6f2abf691f2f4e89e4b7c47672bc259b5c, a state of development after release 1.6.2, of September 2026 or later;
- the fields of a RayJob from ray.io_raycronjobs.yaml beside them, whose jobTemplate is a RayJob's spec, at commit
  034971da0525dcf2ef39b108a6e54b85b9dc2b4e; docs/reference/api.md at 02a80a6f names the same ones.

A RayCluster's spec, a RayJob's rayClusterSpec and a RayService's rayClusterConfig are of one Go type. Kubernetes drops
what a CRD does not name, and `kubectl` refuses it: the forms are closed. What is Kubernetes' own in them (pods,
resources, variables, mounts) is of the forms in kubernetes_forms.py, or left open where no manifest of ours has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubernetes_forms import (
    CONFINED,
    FROM_SECRET,
    MOUNT,
    RESOURCES,
    TEXT,
    VARIABLE,
    WORDS,
    YES,
    Form,
    form,
    template,
)

STRING: Form = {"type": "string"}
INT32: Form = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
POSITIVE = INT32 | {"minimum": 1}
FLOAT: Form = {"type": "number"}
QUANTITY: Form = {
    "type": ["integer", "string"],
    "pattern": r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+))?$",
}
LEFT_OPEN: Form = {"type": "object"}


def one_of(*values: str) -> Form:
    return {"type": "string", "enum": list(values)}


def array(of: Form) -> Form:
    return {"type": "array", "items": of}


POD = template("Always", "OnFailure", "Never")
CREDENTIAL = form([], value=STRING, valueFrom=FROM_SECRET)
AUTOSCALER = form(
    [],
    args=array(STRING), command=array(STRING), env=array(VARIABLE), envFrom=array(LEFT_OPEN), idleTimeoutSeconds=INT32,
    image=STRING, imagePullPolicy=STRING, resources=RESOURCES, securityContext=CONFINED,
    upscalingMode=one_of("Default", "Aggressive", "Conservative"), version=one_of("v1", "v2"),
    volumeMounts=array(MOUNT),
)  # fmt: skip
FAULT_TOLERANCE = form(
    [],
    activePassiveHeadOptions=form(
        [],
        enabled=YES, leaseDurationSeconds=POSITIVE | {"default": 15},
        renewDeadlineSeconds=POSITIVE | {"default": 10}, retryPeriodSeconds=POSITIVE | {"default": 2},
    ),
    backend=one_of("redis", "rocksdb"), externalStorageNamespace=STRING, redisAddress=STRING,
    redisPassword=CREDENTIAL, redisUsername=CREDENTIAL,
    storage=form(
        [],
        accessModes=array(STRING), claimName=STRING, deletionPolicy=one_of("DeleteWithCluster", "Retain"),
        size=QUANTITY, storageClassName=STRING, subPath=STRING,
    ),
)  # fmt: skip
HEAD = form(
    ["template"],
    enableIngress=YES, headService=LEFT_OPEN,
    ingressOptions=form(
        [],
        host=STRING, path=STRING, pathType=one_of("Exact", "Prefix", "ImplementationSpecific"), tls=array(LEFT_OPEN),
    ),
    labels=WORDS, rayStartParams=WORDS, resources=WORDS, serviceType=STRING, template=POD,
)  # fmt: skip
TRAFFIC: dict[str, Form] = {"egressRules": array(LEFT_OPEN), "ingressRules": array(LEFT_OPEN)}
# Of what is required, Kubernetes itself fills in what has a default.
WORKERS = form(
    ["groupName", "maxReplicas", "minReplicas", "template"],
    groupName=STRING, idleTimeoutSeconds=INT32, labels=WORDS, maxReplicas=INT32 | {"default": 2**31 - 1},
    minReplicas=INT32 | {"default": 0}, numOfHosts=INT32 | {"default": 1}, priority=INT32 | {"default": 0},
    rayStartParams=WORDS, replicas=INT32 | {"default": 0}, resources=WORDS,
    scaleStrategy=form([], scaleGate=array(form(["type"], type=STRING)), workersToDelete=array(STRING)),
    suspend=YES, template=POD,
    topology=form(
        [], labelMappings=array(form(["nodeLabel"], mapTo=STRING | {"maxLength": 317}, nodeLabel=STRING))
    ),
)  # fmt: skip
CLUSTER_SPEC = form(
    ["headGroupSpec"],
    authOptions=form([], enableK8sTokenAuth=YES, mode=one_of("disabled", "token"), secretName=STRING),
    autoscalerOptions=AUTOSCALER, enableInTreeAutoscaling=YES, gcsFaultToleranceOptions=FAULT_TOLERANCE,
    headGroupSpec=HEAD, headServiceAnnotations=WORDS,
    historyServerOptions=form(
        [],
        collectorOptions=form(
            [], env=array(VARIABLE), image=STRING, imagePullPolicy=STRING, resources=RESOURCES
        ),
    ),
    idleSuspend=YES,
    idleTerminationOptions=form(
        ["timeoutSeconds"], policy=one_of("Delete", "Suspend") | {"default": "Suspend"}, timeoutSeconds=INT32
    ),
    managedBy=STRING,
    networkPolicy=form(
        [],
        head=form([], **TRAFFIC), mode=one_of("DenyAll", "DenyAllIngress", "DenyAllEgress") | {"default": "DenyAll"},
        worker=form([], **TRAFFIC), workerGroups=array(form(["groupName"], groupName=STRING, **TRAFFIC)),
    ),
    rayVersion=STRING, suspend=YES, tlsOptions=form([], enabled=YES),
    upgradeStrategy=form([], type=one_of("Recreate", "None")), workerGroupSpecs=array(WORKERS),
)  # fmt: skip
DELETION = one_of("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone")
JOB_SPEC = form(
    [],
    activeDeadlineSeconds=INT32, backoffLimit=INT32 | {"default": 0}, clusterSelector=WORDS,
    deletionStrategy=form(
        [],
        deletionRules=array(
            form(
                ["condition", "policy"],
                condition=form(
                    [],
                    jobDeploymentStatus=one_of("Failed"), jobStatus=one_of("SUCCEEDED", "FAILED"),
                    ttlSeconds=INT32 | {"minimum": 0, "default": 0},
                ),
                policy=DELETION,
            )
        )
        | {"minItems": 1},
        onFailure=form([], policy=DELETION), onSuccess=form([], policy=DELETION),
    ),
    entrypoint=STRING, entrypointNumCpus=FLOAT, entrypointNumGpus=FLOAT, entrypointResources=STRING, jobId=STRING,
    managedBy=STRING, metadata=WORDS, preRunningDeadlineSeconds=POSITIVE, rayClusterSpec=CLUSTER_SPEC,
    runtimeEnvYAML=STRING, shutdownAfterJobFinishes=YES, submissionMode=STRING | {"default": "K8sJobMode"},
    submitterConfig=form([], backoffLimit=INT32), submitterPodTemplate=POD, suspend=YES,
    ttlSecondsAfterFinished=INT32 | {"default": 0},
)  # fmt: skip
SERVICE_SPEC = form(
    ["rayClusterConfig"],
    deploymentUnhealthySecondThreshold=INT32, excludeHeadPodFromServeSvc=YES, managedBy=STRING,
    rayClusterConfig=CLUSTER_SPEC, rayClusterDeletionDelaySeconds=INT32 | {"minimum": 0}, serveConfigV2=STRING,
    serveService=LEFT_OPEN, serviceUnhealthySecondThreshold=INT32, suspend=YES,
    upgradeStrategy=form(
        [],
        clusterUpgradeOptions=form(
            ["gatewayClassName", "intervalSeconds", "stepSizePercent"],
            gatewayClassName=STRING, intervalSeconds=INT32, maxSurgePercent=INT32 | {"default": 100},
            stepSizePercent=INT32,
        ),
        type=STRING,
    ),
)  # fmt: skip


def _of_kuberay(kind: str, spec: Form) -> Form:
    """The CRDs leave a spec out of what is required, and metadata to Kubernetes."""
    return form(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"}, kind={"const": kind}, metadata=form([], name=TEXT, generateName=TEXT),
        spec=spec,
    )  # fmt: skip


CRDS = {
    kind: _of_kuberay(kind, spec)
    for kind, spec in (("RayCluster", CLUSTER_SPEC), ("RayJob", JOB_SPEC), ("RayService", SERVICE_SPEC))
}

MANAGED_BY = "is never changed, and is ray.io/kuberay-operator or kueue.x-k8s.io/multikueue"
RULES = {
    "RayCluster.managedBy": MANAGED_BY,
    "RayJob.managedBy": MANAGED_BY,
    "RayService.managedBy": MANAGED_BY,
    "RayCluster.gcsFaultToleranceOptions.backend": "is never changed",
    "RayCluster.gcsFaultToleranceOptions.activePassiveHeadOptions": (
        "leaseDurationSeconds > renewDeadlineSeconds > retryPeriodSeconds"
    ),
    "RayJob.deletionStrategy": "holds either deletionRules or both onSuccess and onFailure",
    "RayJob.deletionStrategy.deletionRules.condition": "holds either jobStatus or jobDeploymentStatus",
}
"""The CRDs' x-kubernetes-validations, by the field that has them. "RayCluster" is a cluster's spec, also of a job."""

AFTER_1_6 = {
    "RayCluster.autoscalerOptions.args",
    "RayCluster.autoscalerOptions.command",
    "RayCluster.gcsFaultToleranceOptions.activePassiveHeadOptions",
    "RayCluster.gcsFaultToleranceOptions.backend",
    "RayCluster.gcsFaultToleranceOptions.storage",
    "RayCluster.headGroupSpec.ingressOptions",
    "RayCluster.historyServerOptions",
    "RayCluster.idleSuspend",
    "RayCluster.idleTerminationOptions",
    "RayCluster.networkPolicy",
    "RayCluster.tlsOptions",
    "RayCluster.workerGroupSpecs.priority",
    "RayCluster.workerGroupSpecs.scaleStrategy.scaleGate",
    "RayCluster.workerGroupSpecs.topology",
    "RayService.suspend",
}
"""What release 1.6.2 does not know yet (its docs/reference/api.md): no release was seen that takes it."""


def cluster_spec(document: dict[str, Any]) -> dict[str, Any]:
    """The cluster that a RayCluster, RayJob or RayService asks for."""
    spec: dict[str, Any] = document["spec"]
    for key in ("rayClusterConfig", "rayClusterSpec"):
        if key in spec:
            inner: dict[str, Any] = spec[key]
            return inner
    return spec


def pods(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The head's pod, then each worker group's."""
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def fields(document: dict[str, Any]) -> set[str]:
    """Those of KubeRay's that it sets, named as in RULES and AFTER_1_6."""
    cluster = cluster_spec(document)
    own = {key: value for key, value in document["spec"].items() if value is not cluster}
    kind = document["kind"]
    return {*_below("RayCluster", cluster), *(_below(kind, own) if kind != "RayCluster" else ())}


def _below(place: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _below(place, one)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"{place}.{key}"
            if key not in ("template", "submitterPodTemplate"):
                yield from _below(f"{place}.{key}", inner)

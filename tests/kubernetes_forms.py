"""The forms of Kubernetes and KubeRay (ray.io/v1, 1.5.1 or newer) that our manifests may use, written from their
documented fields; KubeRay's were held by hand against its Go types and its validation.

The operator's own schemas are 100,000 lines each; these are closed, so that a misspelled field is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Form = dict[str, Any]
TEXT: Form = {"type": "string", "minLength": 1}
NUMBER: Form = {"type": "integer", "minimum": 0}
POSITIVE: Form = {"type": "integer", "minimum": 1}
YES: Form = {"type": "boolean"}
WORDS: Form = {"type": "object", "additionalProperties": {"type": "string"}}
PORT: Form = {"type": ["string", "integer"]}


def form(required: list[str], **fields: Form) -> Form:
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def several(of: Form) -> Form:
    return {"type": "array", "items": of, "minItems": 1}


RESOURCES = form(["requests", "limits"], requests=WORDS, limits=WORDS)
PROBE = form(
    [],
    httpGet=form(["path", "port"], path={"type": "string", "pattern": "^/"}, port=PORT),
    exec=form(["command"], command=several(TEXT)), tcpSocket=form(["port"], port=PORT),
    initialDelaySeconds=NUMBER, periodSeconds=NUMBER, timeoutSeconds=NUMBER, failureThreshold=NUMBER,
)  # fmt: skip
FROM_SECRET = form(["secretKeyRef"], secretKeyRef=form(["name", "key"], name=TEXT, key=TEXT))
VARIABLE: Form = {
    "oneOf": [
        form(["name", "value"], name=TEXT, value=TEXT),
        form(["name", "valueFrom"], name=TEXT, valueFrom=FROM_SECRET),
    ]
}
SECCOMP = form(["type"], type={"enum": ["RuntimeDefault"]})
CONFINED = form(
    [], allowPrivilegeEscalation={"const": False}, capabilities=form(["drop"], drop={"const": ["ALL"]})
)
CONTAINER = form(
    ["name", "image"],
    name=TEXT, image=TEXT, command=several(TEXT), env=several(VARIABLE),
    ports=several(form(["containerPort"], containerPort=NUMBER, name={"type": "string", "maxLength": 15})),
    resources=RESOURCES, securityContext=CONFINED,
    volumeMounts=several(form(["name", "mountPath"], name=TEXT, mountPath=TEXT, readOnly=YES)),
    readinessProbe=PROBE, livenessProbe=PROBE,
)  # fmt: skip
VOLUME = form(
    ["name"],
    name=TEXT, emptyDir=form([], medium={"enum": ["Memory"]}), configMap=form(["name"], name=TEXT),
    secret=form(["secretName"], secretName=TEXT),
)  # fmt: skip
TOLERATION = form(
    ["key", "operator"], key=TEXT, operator={"enum": ["Exists", "Equal"]}, value=TEXT, effect=TEXT
)


def template(*restart_policies: str) -> Form:
    """A pod's, which may leave its restart policy out."""
    return form(
        ["spec"],
        metadata=form([], labels=WORDS),
        spec=form(
            ["containers"],
            containers=several(CONTAINER), initContainers=several(CONTAINER), volumes=several(VOLUME),
            securityContext=form(
                ["runAsNonRoot"],
                runAsNonRoot={"const": True}, runAsUser=NUMBER, fsGroup=NUMBER, seccompProfile=SECCOMP,
            ),
            tolerations=several(TOLERATION), terminationGracePeriodSeconds=NUMBER,
            restartPolicy={"enum": list(restart_policies)},
        ),
    )  # fmt: skip


# KubeRay refuses another with autoscaler v2, and in the head beside a submitter (SidecarMode).
RAY_POD = template("Never")
CLUSTER_SPEC = form(
    ["headGroupSpec", "rayVersion"],
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}, enableInTreeAutoscaling=YES,
    autoscalerOptions=form(
        [], upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}, idleTimeoutSeconds=NUMBER,
        resources=RESOURCES, securityContext=CONFINED,
    ),
    gcsFaultToleranceOptions=form(
        ["redisAddress"],
        redisAddress=TEXT, redisPassword=form(["valueFrom"], valueFrom=FROM_SECRET), externalStorageNamespace=TEXT,
    ),
    # secretName came after 1.5.
    authOptions=form([], mode={"enum": ["token", "disabled"]}),
    headGroupSpec=form(
        ["template", "rayStartParams"],
        serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, enableIngress=YES,
        rayStartParams=WORDS, template=RAY_POD,
    ),
    workerGroupSpecs=several(
        form(
            ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            groupName=TEXT, replicas=NUMBER, minReplicas=NUMBER, maxReplicas=NUMBER, rayStartParams=WORDS,
            template=RAY_POD,
        )
    ),
)  # fmt: skip


def _of_kuberay(kind: str, metadata: Form, spec: Form) -> Form:
    return form(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"}, kind={"const": kind}, metadata=metadata, spec=spec,
    )  # fmt: skip


NAMED = form(["name"], name=TEXT)
RAY_CLUSTER = _of_kuberay("RayCluster", NAMED, CLUSTER_SPEC)
RAY_SERVICE = _of_kuberay(
    "RayService",
    NAMED,
    form(["serveConfigV2", "rayClusterConfig"], serveConfigV2=TEXT, rayClusterConfig=CLUSTER_SPEC),
)
RAY_JOB = _of_kuberay(
    "RayJob",
    form(["generateName"], generateName=TEXT),
    form(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=TEXT, submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        shutdownAfterJobFinishes=YES, ttlSecondsAfterFinished=NUMBER, activeDeadlineSeconds=POSITIVE,
        backoffLimit=NUMBER, submitterPodTemplate=template("Never", "OnFailure"), rayClusterSpec=CLUSTER_SPEC,
    ),
)  # fmt: skip
SELECTOR = form(["matchLabels"], matchLabels=WORDS)
STATEFUL_SET = form(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "apps/v1"}, kind={"const": "StatefulSet"}, metadata=NAMED,
    spec=form(
        ["serviceName", "replicas", "selector", "template"],
        serviceName=TEXT, replicas=NUMBER, selector=SELECTOR, template=template("Always"),
        volumeClaimTemplates=several(
            form(
                ["metadata", "spec"],
                metadata=NAMED,
                spec=form(
                    ["accessModes", "resources"],
                    accessModes=several(TEXT), resources=form(["requests"], requests=WORDS),
                ),
            )
        ),
    ),
)  # fmt: skip
SERVICE = form(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "v1"}, kind={"const": "Service"}, metadata=NAMED,
    spec=form(
        ["selector", "ports"],
        clusterIP={"const": "None"}, selector=WORDS,
        ports=several(form(["port"], name=TEXT, port=NUMBER, targetPort=PORT)),
    ),
)  # fmt: skip
PEER = form([], podSelector=SELECTOR, namespaceSelector={"type": "object"})
NETWORK_POLICY = form(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "networking.k8s.io/v1"}, kind={"const": "NetworkPolicy"}, metadata=NAMED,
    spec=form(
        ["podSelector", "policyTypes", "ingress"],
        podSelector=SELECTOR, policyTypes=several({"enum": ["Ingress", "Egress"]}),
        ingress=several(form([], **{"from": several(PEER)}, ports=several(form(["port"], port=PORT)))),
    ),
)  # fmt: skip
FORMS = {
    "RayCluster": RAY_CLUSTER,
    "RayService": RAY_SERVICE,
    "RayJob": RAY_JOB,
    "StatefulSet": STATEFUL_SET,
    "Service": SERVICE,
    "NetworkPolicy": NETWORK_POLICY,
}


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

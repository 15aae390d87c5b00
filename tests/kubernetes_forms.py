"""The forms of Kubernetes' own kinds that our manifests may use, written from their documented fields. They are closed,
so that a misspelled field is found, and narrower than Kubernetes' own schemas, which test_kubernetes_schemas.py asks.
"""

from __future__ import annotations

from typing import Any

Form = dict[str, Any]
TEXT: Form = {"type": "string", "minLength": 1}
NUMBER: Form = {"type": "integer", "minimum": 0}
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
MOUNT = form(["name", "mountPath"], name=TEXT, mountPath=TEXT, readOnly=YES)
CONTAINER = form(
    ["name", "image"],
    name=TEXT, image=TEXT, command=several(TEXT), env=several(VARIABLE),
    ports=several(form(["containerPort"], containerPort=NUMBER, name={"type": "string", "maxLength": 15})),
    resources=RESOURCES, securityContext=CONFINED,
    volumeMounts=several(MOUNT),
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


NAMED = form(["name"], name=TEXT)
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
    "StatefulSet": STATEFUL_SET,
    "Service": SERVICE,
    "NetworkPolicy": NETWORK_POLICY,
}

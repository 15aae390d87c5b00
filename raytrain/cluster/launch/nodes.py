"""The kinds of nodes that a cluster file asks for, in one form for all clouds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raytrain.cluster.launch.cluster_file import ClusterFile, value_at
from raytrain.config.document import KeyPath


@dataclass(frozen=True)
class NodeType:
    """One of `available_node_types`; key paths begin at the file's top."""

    name: str
    is_head: bool
    min_nodes: int
    max_nodes: int
    instance: str | None
    is_spot: bool
    spot_key: KeyPath
    disk_gib: int | None
    """Of the boot disk; None where the file does not say."""
    disk_key: KeyPath
    resources: dict[str, int]
    """As the file says them; a cloud that Ray asks fills in the others."""


def node_types(cluster: ClusterFile) -> list[NodeType]:
    """The head first; none for machines of one's own, whose kinds nobody wrote down."""
    if not cluster.is_on_demand:
        return []
    head = cluster.get("head_node_type")
    read = [
        _node_type(cluster, name, written)
        for name, written in (cluster.get("available_node_types") or {}).items()
    ]
    return sorted(read, key=lambda node: node.name != head)


def _node_type(cluster: ClusterFile, name: str, written: dict[str, Any]) -> NodeType:
    is_head = name == cluster.get("head_node_type")
    config = written.get("node_config") or {}
    instance, spot, disk = _KEYS[cluster.provider_type]
    top: KeyPath = ("available_node_types", name, "node_config")
    most = cluster.get("max_workers") or 0
    least = written.get("min_workers", 0)
    return NodeType(
        name=name,
        is_head=is_head,
        min_nodes=1 if is_head else least,
        # The head's type counts the head, and the workers that may be of its kind.
        max_nodes=1 + written.get("max_workers", 0)
        if is_head
        else min(written.get("max_workers", most), most),
        instance=value_at(config, instance),
        is_spot=_is_spot(cluster.provider_type, config),
        spot_key=(*top, *spot),
        disk_gib=value_at(config, disk),
        disk_key=(*top, *disk),
        resources=written.get("resources") or {},
    )


# Where a cloud's node_config says its instance type, that it is a spot node, and the size of its boot disk.
_KEYS: dict[str, tuple[KeyPath, KeyPath, KeyPath]] = {
    "aws": (
        ("InstanceType",),
        ("InstanceMarketOptions", "MarketType"),
        ("BlockDeviceMappings", 0, "Ebs", "VolumeSize"),
    ),
    "gcp": (
        ("machineType",),
        ("scheduling",),
        ("disks", 0, "initializeParams", "diskSizeGb"),
    ),
    "azure": (
        ("azure_arm_parameters", "vmSize"),
        ("azure_arm_parameters", "priority"),
        ("azure_arm_parameters", "osDiskSize"),
    ),
}


def _is_spot(provider: str, config: dict[str, Any]) -> bool:
    value = value_at(config, _KEYS[provider][1])
    if provider == "gcp":
        # Ray's examples write a list of one.
        scheduling = value[0] if isinstance(value, list) and value else value
        told = scheduling if isinstance(scheduling, dict) else {}
        return told.get("provisioningModel") == "SPOT" or told.get("preemptible") is True
    return str(value).lower() in ("spot", "low")

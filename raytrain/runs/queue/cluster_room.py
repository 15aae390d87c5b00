"""What a cluster has for jobs, as its dashboard tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raytrain.runs.queue.job import Limits

_NODES = "/api/v0/nodes?limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
_KIND_OF_NODE = "ray.io/node-group"
"""Label that nodes have which an autoscaler has made, or may make more of."""


def room_of(client: Any) -> Limits | None:
    """Asks for the nodes that are alive. None where the cluster may grow, or does not say: then nothing limits it here.

    Raises what the client raises where the cluster is out of reach.
    """
    found = client._do_request("GET", _NODES).json()
    try:
        return room_in(found["data"]["result"]["result"])
    except (KeyError, TypeError, AttributeError):
        return None


def room_in(nodes: Iterable[Mapping[str, Any]]) -> Limits | None:
    """Of nodes as Ray's state API lists them. Pure."""
    alive = [one for one in nodes if one["state"] == "ALIVE"]
    if not alive or any((one.get("labels") or {}).get(_KIND_OF_NODE) for one in alive):
        return None

    def total(name: str) -> float:
        return sum(float(one["resources_total"].get(name, 0.0)) for one in alive)

    return Limits(cpus=total("CPU"), gpus=total("GPU"))

"""Rules about what a recipe asks of a cluster: its GPU type, and room for its workers."""

from __future__ import annotations

from pathlib import Path

from raytrain.cluster.connection import count_placeable
from raytrain.cluster.launch.cluster_file import ClusterFile, Finding
from raytrain.cluster.launch.machines import MachineTable
from raytrain.cluster.launch.nodes import NodeType, node_types
from raytrain.cluster.section import ACCELERATOR_TYPE, WorkersSection
from raytrain.config.document import Document
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section


class _Scaling(Section):
    scaling: WorkersSection = WorkersSection()


def load_demand(recipe: Path, overrides: list[str] | None = None) -> WorkersSection:
    """The workers of any recipe's `scaling:`; its other keys are for whoever runs it to check."""
    document = load_recipe(recipe, overrides)
    written = document.values.get("scaling")
    if isinstance(written, dict):
        written = {key: value for key, value in written.items() if key in WorkersSection.model_fields}
    values = {"scaling": written} if "scaling" in document.values else {}
    return build(_Scaling, Document(values, document.origins, document.form)).scaling


def unmet_demand(cluster: ClusterFile, scaling: WorkersSection, table: MachineTable) -> list[Finding]:
    """Why a recipe's workers would find no place, even on a cluster that has grown as far as it may."""
    nodes = node_types(cluster)
    have = {node.name: resources_of(node, cluster.provider_type, table) for node in nodes}
    unknown = [node for node in nodes if not have[node.name] and not node.is_head]
    key = ("available_node_types",)
    if not nodes or unknown:
        names = ", ".join(str(node.instance) for node in unknown) or "machines of your own"
        what = f"what {names} have is not known here, so that the recipe's needs cannot be compared"
        fix = (
            "write their resources (CPU, GPU, accelerator_type:…), or name them in a file given with --prices"
        )
        return [cluster.finding("unmet-demand", "warning", key, what, fix)]
    wanted = scaling.accelerator_type
    types = sorted(
        {
            name.removeprefix(ACCELERATOR_TYPE)
            for one in have.values()
            for name in one
            if name.startswith(ACCELERATOR_TYPE)
        }
    )
    if wanted is not None and wanted not in types:
        what = f"the recipe's workers need {wanted}; the cluster's GPUs are {', '.join(types) or 'none'}"
        fix = f"take a machine with {wanted}, or set scaling.accelerator_type of the recipe"
        return [cluster.finding("gpu-type", "error", key, what, fix)]
    worker = scaling.worker_resources
    placed = _most_placeable(cluster, nodes, have, worker, scaling.min_workers)
    if placed >= scaling.min_workers:
        return []
    each = ", ".join(f"{amount:g} {name}" for name, amount in worker.items())
    what = (
        f"the recipe needs {scaling.min_workers} workers of {each}; the grown cluster has room for {placed}"
    )
    fix = "raise max_workers, take larger machines, or set scaling.num_workers of the recipe"
    return [cluster.finding("unmet-demand", "error", key, what, fix)]


def resources_of(node: NodeType, provider: str, table: MachineTable) -> dict[str, float]:
    """What Ray would count on such a node: as the table and the file say; {} where neither does."""
    machine = table.machine(provider, node.instance)
    known: dict[str, float] = {}
    if machine is not None:
        known = {"CPU": float(machine.cpus)}
        if machine.gpus:
            known["GPU"] = float(machine.gpus)
        if machine.gpu:
            known[f"{ACCELERATOR_TYPE}{machine.gpu}"] = 1.0
    return {**known, **{name: float(amount) for name, amount in node.resources.items()}}


def _most_placeable(
    cluster: ClusterFile,
    nodes: list[NodeType],
    have: dict[str, dict[str, float]],
    worker: dict[str, float],
    num_workers: int,
) -> int:
    """Workers on the head, and on as many nodes as may come, those with the most room first."""
    fits = {node.name: count_placeable([have[node.name]], worker, num_workers) for node in nodes}
    grown = [have[nodes[0].name]]
    left = int(cluster.get("max_workers") or 0)
    for node in sorted(nodes[1:], key=lambda node: -fits[node.name]):
        count = min(left, node.max_nodes)
        grown += [have[node.name]] * count
        left -= count
    return count_placeable(grown, worker, num_workers)

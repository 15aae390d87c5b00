"""What machines of the clouds have and cost, from the table beside, and a reader's own before it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from raytrain.cluster.launch.cluster_file import CLOUDS
from raytrain.cluster.launch.nodes import NodeType
from raytrain.config.document import Form, read_document
from raytrain.config.recipe import build
from raytrain.config.section import Section

_TABLE = Path(__file__).with_name("machines.yaml")
_FORM = Form(
    "price table", "written_on, source, and machines under aws, gcp or azure", str(_TABLE), "docs/clusters.md"
)


class Machine(Section):
    """One instance type of a cloud."""

    price: Annotated[float, Field(ge=0)]
    """US dollars an hour, on demand."""
    spot: Annotated[float, Field(ge=0)] | None = None
    """The same as a spot node; null = at most the price on demand."""
    cpus: Annotated[int, Field(ge=1)]
    """Virtual CPUs, as Ray counts them."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs."""
    gpu: str | None = None
    """Ray's name of their type."""


class MachineTable(Section):
    """Prices with their date and source."""

    written_on: datetime.date
    """When the prices were written down."""
    source: str
    """Where they are from."""
    aws: dict[str, Machine] = Field(default_factory=dict)
    gcp: dict[str, Machine] = Field(default_factory=dict)
    azure: dict[str, Machine] = Field(default_factory=dict)

    def machine(self, provider: str, instance: str | None) -> Machine | None:
        """None for an instance type that the table does not know."""
        machines: dict[str, Machine] = getattr(self, provider, {})
        return machines.get(instance or "")


def load_machines(own: Path | None = None) -> MachineTable:
    """The table beside this file, with a reader's own machines put over it. Raises ConfigError with file and line."""
    table = _read(_TABLE)
    if own is None:
        return table
    over = _read(own)
    source = f"{over.source}; for the others: {table.source} (written down {table.written_on})"
    machines = {name: {**getattr(table, name), **getattr(over, name)} for name in CLOUDS}
    return table.model_copy(update={"written_on": over.written_on, "source": source, **machines})


def _read(path: Path) -> MachineTable:
    return build(MachineTable, read_document(path, _FORM))


@dataclass(frozen=True)
class HourlyPrice:
    """US dollars an hour for the machines alone: disks and traffic come on top."""

    least: float
    """The head, and the workers that are always there."""
    most: float
    """With as many workers as the file lets come."""
    has_spot: bool
    """Whether spot nodes count at their price on demand, which they do not exceed."""
    unknown: list[str]
    """Instance types without a price in the table, which are counted as nothing."""


def hourly_price(
    provider: str, nodes: list[NodeType], max_workers: int, table: MachineTable
) -> HourlyPrice | None:
    """What a cluster costs at least and at most; None where nothing is rented."""
    if not nodes:
        return None
    prices = {node.name: _price(table.machine(provider, node.instance), node) for node in nodes}
    head, workers = nodes[0], sorted(nodes[1:], key=lambda node: -prices[node.name])
    least = most = prices[head.name]
    left = max_workers
    least += sum(node.min_nodes * prices[node.name] for node in workers)
    for node in workers:
        count = min(left, node.max_nodes)
        most += count * prices[node.name]
        left -= count
    unknown = [
        node.instance or f"{node.name}'s" for node in nodes if not table.machine(provider, node.instance)
    ]
    known = [(node, table.machine(provider, node.instance)) for node in nodes if node.is_spot]
    return HourlyPrice(
        round(least, 4),
        round(most, 4),
        any(machine is not None and machine.spot is None for _, machine in known),
        sorted(set(unknown)),
    )


def _price(machine: Machine | None, node: NodeType) -> float:
    if machine is None:
        return 0.0
    return machine.spot if node.is_spot and machine.spot is not None else machine.price

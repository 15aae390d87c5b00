"""When a run has waited long enough for room that it has lost, and what it then says."""

from __future__ import annotations

from dataclasses import dataclass, field

from raytrain.cluster.connection import num_workers_for
from raytrain.errors import ClusterError
from raytrain.training.section import ScalingSection


@dataclass
class Lack:
    """Room that was there and is not. Pure: the caller tells the time, in seconds."""

    run_id: str
    scaling: ScalingSection
    known: dict[str, str] = field(default_factory=dict)
    """Addresses by node, of those that were there while the run had room."""
    since: float | None = None

    def look(self, now: float, placeable: int, alive: dict[str, str]) -> str | None:
        """What to tell the user, where the room has just gone. Raises ClusterError where it was gone for too long."""
        if placeable >= self.scaling.min_workers:
            self.since, self.known = None, alive
            return None
        patience = self.scaling.max_wait_for_nodes_s
        lack = f"the cluster can place {placeable} of {self.scaling.min_workers} workers"
        if self.since is None:
            self.since = now
            return f"{lack}{self._lost(alive)}: waiting up to {patience:g} s for room"
        if now - self.since < patience:
            return None
        raise ClusterError(
            f"run {self.run_id}: {lack}{self._lost(alive)}",
            why=f"no room came within {patience:g} s (scaling.max_wait_for_nodes_s)",
            fix="start Ray there again (`ray start --address=…`), or set scaling.num_workers="
            f"{num_workers_for(self.scaling, placeable)}; the same command goes on from the last checkpoint",
        )

    def _lost(self, alive: dict[str, str]) -> str:
        lost = sorted(address for node, address in self.known.items() if node not in alive)
        return f" since node {', '.join(lost)} was lost" if lost else ""

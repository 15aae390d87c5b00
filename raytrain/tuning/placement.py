"""How many trials fit on the cluster at once, decided before any starts, so that none ever waits for another's workers.

A trial's own driver takes no CPU: all of them go to workers, and the only thing that trials could wait for each other
for is counted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from raytrain.cluster.connection import count_placeable
from raytrain.cluster.section import WorkersSection


@dataclass(frozen=True)
class Placement:
    """`at_once` trials; `limited_by` says what keeps it from being more."""

    at_once: int
    limited_by: str

    @property
    def told(self) -> str:
        return (
            f"{'one trial' if self.at_once == 1 else f'{self.at_once} trials'} at a time: {self.limited_by}"
        )


def choose_placement(
    nodes: list[dict[str, float]],
    scaling: WorkersSection,
    *,
    max_concurrent: int | None,
    num_trials: int,
    scaling_is_searched: bool = False,
) -> Placement:
    """Trials that fit at once on nodes with nothing else on them; 0 where not even one has room."""
    wanted = scaling.max_workers
    room = _trials_with_room(nodes, scaling, wanted)
    if room == 0 and scaling.is_elastic:
        room = min(1, _trials_with_room(nodes, scaling, scaling.min_workers))
    workers = f"{wanted} worker{'s' if wanted > 1 else ''} of {_told(scaling.worker_resources)}"
    limits = [(room, f"each needs {workers}, and the cluster has room for {room}")]
    if scaling_is_searched and room:
        limits.append((1, "scaling is searched, and trials of different sizes could wait for each other"))
    if max_concurrent is not None and room:
        limits.append((max_concurrent, f"search.max_concurrent is {max_concurrent}"))
    if room:
        limits.append((num_trials, "there are no more to make"))
    at_once, why = min(limits, key=lambda one: one[0])
    return Placement(at_once, why)


def _trials_with_room(nodes: list[dict[str, float]], scaling: WorkersSection, num_workers: int) -> int:
    most = 1_000_000
    on_each = [count_placeable([node], scaling.worker_resources, most) for node in nodes]
    if scaling.placement_strategy == "STRICT_PACK":
        return sum(count // num_workers for count in on_each)
    if scaling.placement_strategy == "STRICT_SPREAD":
        trials = 0
        while sum(min(count, trials + 1) for count in on_each) >= (trials + 1) * num_workers:
            trials += 1
        return trials
    return sum(on_each) // num_workers


def _told(resources: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())

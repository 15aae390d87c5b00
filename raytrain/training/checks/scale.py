"""A recipe made small enough to be checked here: which of its values change, and what a person is told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raytrain.training.spec import RunSpec


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Smaller:
    """A recipe on its way to a smaller one. `changed` keeps, in words, what differs from the one that was given."""

    spec: RunSpec
    changed: list[str] = field(default_factory=list)

    def put(self, section: str, *, silent: bool = False, **values: Any) -> None:
        """Set values of one section; each that really changes is noted unless it is `silent` (a matter of places)."""
        self.put_all({section: values}, silent=silent)

    def put_all(self, sections: Mapping[str, Mapping[str, Any]], *, silent: bool = False) -> None:
        """Set values of several sections at once, where some of them go together only."""
        given = self.spec.model_dump(mode="json")
        for section, values in sections.items():
            before = given[section]
            if not silent:
                self.changed += [
                    f"{section}.{key}={_told(value)} (the recipe: {_told(before.get(key))})"
                    for key, value in values.items()
                    if before.get(key) != value
                ]
            given[section] = {**before, **values}
        self.spec = RunSpec.model_validate(given)

    def note(self) -> tuple[str, ...]:
        return (f"for this check: {', '.join(self.changed)}",) if self.changed else ()


def _told(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def workers_here(num_workers: int, num_cores: int) -> int:
    """As many workers as the recipe has, where each of them has a core."""
    return max(1, min(num_workers, num_cores))


def fit_workers(smaller: Smaller, *, num_cores: int, num_gpus: int) -> None:
    """Put the recipe's workers onto this machine; what cannot be had here is said."""
    scaling, train = smaller.spec.scaling, smaller.spec.train
    use_gpu = scaling.use_gpu and num_gpus > 0
    workers = workers_here(scaling.max_workers, num_gpus if use_gpu else num_cores)
    # One process alone is no strategy's but `single`; float16 needs a GPU.
    strategy = "auto" if workers == 1 else scaling.strategy
    precision = "float32" if train.precision == "float16" and not use_gpu else train.precision
    smaller.put_all(
        {
            "scaling": {"use_gpu": use_gpu, "num_workers": workers, "strategy": strategy},
            "train": {"precision": precision},
        }
    )
    smaller.put(
        "scaling",
        silent=True,
        cpus_per_worker=1.0,
        resources_per_worker={},
        placement_strategy="PACK",
        accelerator_type=None,
        threads_per_worker=1,
    )


def without_trackers(smaller: Smaller) -> None:
    """A check is nobody's run: it writes into no tracker and no mirror."""
    smaller.put("tracking", silent=True, mlflow=None, wandb=None)
    smaller.put("storage", silent=True, mirror=None)

"""What is asked of the cluster, as every recipe with workers writes it under `scaling:`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from raytrain.config.section import Section

_MOST_WORKERS = 100_000
NumWorkers = Annotated[int, Field(ge=1, le=_MOST_WORKERS)]


ACCELERATOR_TYPE = "accelerator_type:"
"""Before the name of a type, Ray's name of the resource that each node with such a GPU has one of."""


class WorkersSection(Section):
    """Processes that Ray starts. Fields that Ray's ScalingConfig has carry its names."""

    num_workers: NumWorkers | tuple[NumWorkers, NumWorkers] = 1
    """Processes; [least, most] = as many of them as there is room for, at any time."""
    use_gpu: bool = False
    """One GPU for each worker."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray reserves for each worker."""
    resources_per_worker: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Further Ray resources of each worker, for example {"accelerator_type:A100": 0.001}."""
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """How Ray places the workers on nodes."""
    accelerator_type: str | None = None
    """Ray's name of the GPU type that workers need."""
    threads_per_worker: Annotated[int, Field(ge=1)] | None = None
    """Threads of each worker's arithmetic; null = its CPUs, rounded down, at least 1."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Times that Ray replaces a dead worker before the run fails."""

    @field_validator("num_workers", mode="wrap")
    @classmethod
    def _number_or_range(cls, value: Any, build: ValidatorFunctionWrapHandler) -> Any:
        """One sentence for both forms; a range of one number is that number."""
        allowed = f"takes a number of workers from 1 to {_MOST_WORKERS}, or [least, most]"
        if isinstance(value, (list, tuple)) and any(isinstance(one, bool) for one in value):
            raise ValueError(allowed)
        try:
            given = build(value)
        except ValidationError as error:
            raise ValueError(allowed) from error
        if isinstance(given, int):
            return given
        least, most = given
        if least > most:
            raise ValueError(f"[least, most]: {least} is more than {most}")
        return given if least < most else least

    @property
    def min_workers(self) -> int:
        """Workers that the run cannot do without."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """Workers that the run takes where there is room."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change while the run goes on."""
        return self.min_workers < self.max_workers

    @property
    def threads(self) -> int:
        return self.threads_per_worker or max(1, int(self.cpus_per_worker))

    @property
    def worker_resources(self) -> dict[str, float]:
        """What Ray reserves for one worker; of the GPU type a thousandth, as Ray itself does: many share a machine."""
        gpu = {"GPU": 1.0} if self.use_gpu else {}
        of_type = {f"{ACCELERATOR_TYPE}{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return {"CPU": self.cpus_per_worker, **gpu, **of_type, **self.resources_per_worker}

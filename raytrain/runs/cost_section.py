"""The `cost:` section of a recipe: what an hour costs, and from which sum on somebody is asked."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from raytrain.config.recipe import nearest
from raytrain.config.section import Section

Price = Annotated[float, Field(ge=0)]


class CostSection(Section):
    """What an hour costs. Without any price, costs are told in hours alone. Nothing here changes what is computed."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """Of all prices, as in ISO 4217."""
    cpu_hour: Price | None = None
    """Price of one CPU for an hour."""
    gpu_hour: Price | None = None
    """Price of one GPU for an hour, of any type that `gpu_hours` does not name."""
    gpu_hours: dict[str, Price] = Field(default_factory=dict)
    """Price of one GPU for an hour by its type, as `scaling.accelerator_type` names it, for example `A100: 3.2`."""
    instances: dict[str, Price] = Field(default_factory=dict)
    """Price of a machine for an hour by its type, for example `g5.xlarge: 1.006`."""
    instance: str | None = None
    """Type of the machines that run this; then whole machines count, and `cpu_hour` and `gpu_hour` do not."""
    workers_per_instance: Annotated[int, Field(ge=1)] = 1
    """How many workers share one of these machines."""
    confirm_above: Price | None = None
    """An estimate above this sum, or none, is put to you before anything starts; `--yes` says yes beforehand."""

    @model_validator(mode="after")
    def _known_instance(self) -> Self:
        if self.instance is not None and self.instance not in self.instances:
            near = nearest(self.instance, self.instances)
            hint = f"did you mean `{near}`?" if near else "add its price there"
            raise ValueError(f"cost.instance `{self.instance}` has no price in cost.instances; {hint}")
        return self

"""The `search:` section of a recipe: which keys are searched, by what, for what, and how much that may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from raytrain.config.section import Section

SamplerName = Literal["tpe", "cmaes", "gp", "nsga2", "random", "grid"]
SchedulerName = Literal["auto", "asha", "hyperband", "median", "pbt", "none"]
Condition = dict[str, Any]


class RangeSection(Section):
    """What every range may have beside its bounds."""

    when: Condition = Field(default_factory=dict)
    """Searched only where other searched keys have these values (one, or a list of them); else the recipe's value."""


class FloatRange(RangeSection):
    """Numbers between two bounds."""

    type: Literal["float"]
    """A number."""
    low: Annotated[float, Field(allow_inf_nan=False)]
    """The smallest value."""
    high: Annotated[float, Field(allow_inf_nan=False)]
    """The largest value."""
    log: bool = False
    """Search the logarithm, as for learning rates; `low` is then above 0."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Only `low`, `low` + step and so on; null = any number."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_bounds(self.low, self.high, self.log, self.step)
        return self


class IntRange(RangeSection):
    """Whole numbers between two bounds."""

    type: Literal["int"]
    """A whole number."""
    low: int
    """The smallest value."""
    high: int
    """The largest value."""
    log: bool = False
    """Search the logarithm, as for sizes; `low` is then above 0."""
    step: Annotated[int, Field(gt=0)] = 1
    """Only `low`, `low` + step and so on."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_bounds(self.low, self.high, self.log, None if self.step == 1 else self.step)
        return self


class ChoiceRange(RangeSection):
    """One of some values."""

    type: Literal["choice"]
    """One of a list."""
    choices: Annotated[list[Any], Field(min_length=1)]
    """The values, of any kind that the key takes."""


def check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    """ValueError for a range in which no value, or only one, can be found."""
    if low > high:
        raise ValueError(f"the range is upside down: low {low:g} lies above high {high:g}")
    if low == high:
        raise ValueError(f"low and high are both {low:g}: write the value into the recipe, without a range")
    if log and low <= 0:
        raise ValueError(f"log: true needs a low above 0, and it is {low:g}")
    if log and step is not None:
        raise ValueError("log: true and step do not go together: leave one of them out")


def _type_of(value: Any) -> Any:
    return value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)


Range = Annotated[
    Annotated[FloatRange, Tag("float")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[ChoiceRange, Tag("choice")],
    Discriminator(
        _type_of,
        custom_error_type="range_type",
        custom_error_message="a range has a type: float, int or choice",
    ),
]


class ObjectiveSection(Section):
    """What is made small or large."""

    metric: str
    """Any metric of a run (eval/loss, train/tokens_per_second, …), or result/bytes, result/num_trainable,
    run/duration_s."""
    mode: Literal["min", "max"] = "min"
    """Whether smaller or larger is better."""


class BudgetSection(Section):
    """What the whole search may cost, over all its commands; null = no limit. It then ends with the best so far."""

    hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of the search, counted while it goes on."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of trials, times the GPUs of each."""
    cost: Annotated[float, Field(gt=0)] | None = None
    """Money, by the prices of `cost:`."""
    disk_gb: Annotated[float, Field(gt=0)] | None = None
    """Gigabytes (10⁹ bytes) of checkpoints and results of all trials together."""


class PopulationSection(Section):
    """Of `scheduler: pbt`: members that learn side by side, of which the worst go on from the best ones' weights."""

    size: Annotated[int, Field(ge=2)] = 4
    """Members."""
    interval_steps: Annotated[int, Field(gt=0)] = 100
    """Steps between two comparisons; each is a trial that goes on from the checkpoint of the one before."""
    replaced_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the members that are replaced at each comparison, at least one."""


class SearchSection(Section):
    """`raytrain tune` searches for the best values of some keys; `raytrain train` trains with the recipe's own."""

    LOOKED_FOR: ClassVar[Mapping[str, str]] = {
        "num_samples": "set num_trials",
        "metric": "list it under objectives: [{metric: eval/loss, mode: min}]",
        "pruner": "set scheduler",
    }

    space: Annotated[dict[str, Range], Field(min_length=1)]
    """A range for each searched key, which is written with dots: `train.learning_rate`."""
    objectives: list[ObjectiveSection] = Field(default_factory=list)
    """What is looked for; several give a Pareto front; none = `train.monitor` with its `mode`."""
    sampler: SamplerName = "tpe"
    """What chooses the values: tpe, cmaes (one objective) or gp (whole trials alone) learn from the trials before;
    nsga2 is for several objectives; random; grid = every combination once, whatever num_trials says."""
    scheduler: SchedulerName = "auto"
    """What ends trials early: asha, hyperband or median; pbt = a population; auto = asha, or none: with several
    objectives, with one that is known at the end alone, and with a sampler that learns from whole trials alone."""
    min_steps: Annotated[int, Field(gt=0)] | None = None
    """Steps that every trial may make before it is compared; null = `train.eval_every`, and a ninth of
    `train.max_steps` at least."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One of so many trials goes on at each comparison of asha and hyperband."""
    population: PopulationSection = PopulationSection()
    """Of `scheduler: pbt`."""
    num_trials: Annotated[int, Field(gt=0, le=100_000)] = 20
    """Trials; raise it and give the same command again to go on."""
    max_concurrent: Annotated[int, Field(gt=0)] | None = None
    """Trials at once, at most; null = as many as there is room for."""
    max_failed_trials: Annotated[int, Field(gt=0)] = 3
    """Trials that fail, are refused or diverge, one after the other before the search ends with their reason. One that
    diverges counts as long as no trial has come to its end; a grid's refused points do not count."""
    warm_start: Annotated[int, Field(ge=0)] = 3
    """Earlier runs whose values are tried first, after the recipe's own: the best of the same recipe, then the best of
    the newest over other rows."""
    probe_steps: Annotated[int, Field(ge=0)] = 3
    """Steps of the short run that the forecast is made from; 0 = no forecast."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds the sampler."""
    budget: BudgetSection = BudgetSection()
    """What the whole search may cost, beside `num_trials`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        several = len(self.objectives) > 1
        if several and self.scheduler not in ("auto", "none"):
            raise ValueError(
                f"scheduler {self.scheduler} compares trials by one objective, and there are "
                f"{len(self.objectives)}: leave it out"
            )
        if several and self.sampler == "cmaes":
            raise ValueError("sampler cmaes knows one objective: use tpe, gp or nsga2")
        names = [one.metric for one in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError("objectives: a metric stands twice")
        for key, one in self.space.items():
            if self.sampler == "grid" and isinstance(one, FloatRange) and one.step is None:
                raise ValueError(f"sampler grid needs a step for {key}, or a choice of its values")
            for other in one.when:
                if other not in self.space:
                    raise ValueError(f"{key}: when names {other}, which is not searched")
        self._check_order()
        return self

    def _check_order(self) -> None:
        """A key whose condition depends on itself, through others, could never be chosen."""
        known: set[str] = set()
        rest = dict(self.space)
        while rest:
            free = [key for key, one in rest.items() if set(one.when) <= known]
            if not free:
                raise ValueError(f"when: {', '.join(rest)} wait for each other")
            known.update(free)
            for key in free:
                del rest[key]

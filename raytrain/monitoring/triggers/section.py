"""A file of triggers: when production is to be trained again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import time
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import Field, model_validator

from raytrain.config.document import Document, Form, KeyPath
from raytrain.config.recipe import build, load_recipe, nearest
from raytrain.config.section import Section
from raytrain.data.section import load_data_recipe
from raytrain.errors import ConfigError
from raytrain.storage.manifest import digest_of

TRIGGERS = Form(
    "triggers file", "`triggers` (a name) and when", "jobs/triggers/", "docs/triggers-reference.md"
)

Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
DAYS: tuple[Day, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
Kind = Literal["drift", "drop", "new_rows", "age", "schedule", "new_source", "manual", "canary_loss"]


class DriftCondition(Section):
    """A metric of the watch is above a limit."""

    metric: str = "drift/score"
    """As the watch records it: `drift/score` (1 = the threshold), `drift/alarm` (1 = an alarm), `drift/FEATURE`."""
    above: float
    """In an event it is more than this."""
    clear_below: float | None = None
    """An event is over at this or less; null = at `above` or less. What lies between starts none and ends none."""

    @model_validator(mode="after")
    def _in_order(self) -> DriftCondition:
        if self.clear_below is not None and self.clear_below > self.above:
            raise ValueError(f"`clear_below` ({self.clear_below:g}) is more than `above` ({self.above:g})")
        return self


class DropCondition(Section):
    """A metric of the watch is below a limit."""

    metric: str
    """As the watch records it: `mean/FEATURE`, `drift/p_value`."""
    below: float
    """In an event it is less than this."""
    clear_above: float | None = None
    """An event is over at this or more; null = at `below` or more."""

    @model_validator(mode="after")
    def _in_order(self) -> DropCondition:
        if self.clear_above is not None and self.clear_above < self.below:
            raise ValueError(f"`clear_above` ({self.clear_above:g}) is less than `below` ({self.below:g})")
        return self


class RowsCondition(Section):
    """There are rows that no run has used."""

    at_least: Annotated[int, Field(ge=1)] = 100
    """So many."""


class AgeCondition(Section):
    """What is in production was trained long ago."""

    days: Annotated[float, Field(gt=0)] = 30.0
    """Longer than this."""


class ScheduleCondition(Section):
    """A time of the week. A time at which nobody looked is made up for at the next look, once."""

    at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    """`HH:MM`, between quotes."""
    days: Annotated[list[Day], Field(min_length=1)] = Field(default_factory=lambda: list(DAYS))
    """On these."""
    timezone: str = "UTC"
    """As `Europe/Berlin`."""

    @model_validator(mode="after")
    def _known_zone(self) -> ScheduleCondition:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            near = nearest(self.timezone, available_timezones())
            hint = f"did you mean {near}?" if near else "take one as Europe/Berlin"
            raise ValueError(f"`timezone` {self.timezone} is not known; {hint}") from None
        return self

    @property
    def hour(self) -> time:
        return time.fromisoformat(self.at)


class RuleSection(Section):
    """Exactly one of these, and how long it has to hold."""

    any: Annotated[list[RuleSection], Field(min_length=1)] | None = None
    """One of these holds."""
    all: Annotated[list[RuleSection], Field(min_length=1)] | None = None
    """All of these hold."""
    drift: DriftCondition | None = None
    """A metric is above a limit."""
    drop: DropCondition | None = None
    """A metric is below a limit."""
    new_rows: RowsCondition | None = None
    """There are unused rows."""
    age: AgeCondition | None = None
    """Production is old."""
    schedule: ScheduleCondition | None = None
    """It is time."""
    new_source: bool | None = None
    """Rows come from a source that was not there before."""
    manual: bool | None = None
    """Somebody asked for it: `raytrain triggers request`."""
    canary_loss: bool | None = None
    """A candidate that no order of these triggers had made lost to production in a trial: a loop sees that in the
    trials' log, else somebody says so."""
    for_windows: Annotated[int, Field(ge=1, le=1000)] = 1
    """So many windows in a row; of `drift`, `drop`, `any` and `all`."""

    @model_validator(mode="after")
    def _is_one(self) -> RuleSection:
        named = [name for name in RULE_NAMES if getattr(self, name) is not None]
        for name in named:
            if getattr(self, name) is False:
                raise ValueError(f"`{name}: false` asks for nothing: leave it out")
        if len(named) != 1:
            raise ValueError(
                f"a rule is one of {', '.join(RULE_NAMES)}; here "
                + (f"are {' and '.join(named)}: put them under `any` or `all`" if named else "is none")
            )
        if self.for_windows > 1 and named[0] not in ("any", "all", "drift", "drop"):
            raise ValueError(f"`for_windows` counts windows, and `{named[0]}` does not come in windows")
        return self

    @property
    def name(self) -> str:
        return next(name for name in RULE_NAMES if getattr(self, name) is not None)

    @property
    def children(self) -> list[RuleSection]:
        return self.any or self.all or []

    @cached_property
    def key(self) -> str:
        """By which its state is known: rules may be put in another order."""
        return f"{self.name}-{digest_of(self.model_dump(mode='json', exclude_none=True))[7:19]}"

    def leaves(self) -> Iterator[RuleSection]:
        if not self.children:
            yield self
        for one in self.children:
            yield from one.leaves()


RULE_NAMES = (
    "any",
    "all",
    "drift",
    "drop",
    "new_rows",
    "age",
    "schedule",
    "new_source",
    "manual",
    "canary_loss",
)


class MostSection(Section):
    """How many orders at most."""

    orders: Annotated[int, Field(ge=1)] = 4
    """So many."""
    days: Annotated[float, Field(gt=0)] = 30.0
    """In so many days before now."""


class SpendingSection(Section):
    """What all runs together may take in a calendar month (UTC)."""

    money: Annotated[float, Field(gt=0)] | None = None
    """By the prices in the recipes' `cost:`."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """Of `money`."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of one GPU."""
    next_money: Annotated[float, Field(ge=0)] = 0.0
    """What one retraining is expected to cost: so much must be left."""
    next_gpu_hours: Annotated[float, Field(ge=0)] = 0.0
    """The same in GPU hours."""

    @model_validator(mode="after")
    def _can_be_met(self) -> SpendingSection:
        if self.money is None and self.gpu_hours is None:
            raise ValueError("it has neither `money` nor `gpu_hours`")
        for name in ("money", "gpu_hours"):
            limit, needed = getattr(self, name), getattr(self, f"next_{name}")
            if needed and limit is None:
                raise ValueError(f"`next_{name}` is given, and no `{name}`")
            if limit is not None and needed > limit:
                raise ValueError(
                    f"`next_{name}` ({needed:g}) is more than `{name}` ({limit:g}): nothing could start"
                )
        return self


class TriggersSection(Section):
    """When production is to be trained again."""

    triggers: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,59}$")]
    """Name; state and orders are kept under it."""
    watch: str | None = None
    """The watch whose windows are read, by its name."""
    release: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")] | None = None
    """Name in the registry, for `age`: how long ago was its production trained?"""
    registry: str | None = None
    """Folder or URI of the registry; null = RAYTRAIN_HOME/registry."""
    recipe: Annotated[str, Field(min_length=1)] | None = None
    """Recipe, for `new_source`: its `data.sources` are what rows come from now. Relative to this file."""
    when: RuleSection
    """The rule."""
    cooldown_hours: Annotated[float, Field(ge=0)] = 24.0
    """So long after an order nothing is ordered, unless somebody asks by hand. Doubled by each order that came to no
    gain or failed, until one succeeds."""
    longest_cooldown_hours: Annotated[float, Field(ge=0)] = 24.0 * 14
    """The doubled time is at most this."""
    most: MostSection = MostSection()
    """Rate."""
    budget: SpendingSection | None = None
    """A month's money and GPU hours."""
    dry_run: bool = False
    """Orders are kept as such that nobody carries out."""

    @model_validator(mode="after")
    def _fits(self) -> TriggersSection:
        if self.longest_cooldown_hours < self.cooldown_hours:
            raise ValueError("`longest_cooldown_hours` is less than `cooldown_hours`")
        if self.watch is None and any(one.name in ("drift", "drop") for one in self.when.leaves()):
            raise ValueError("`drift` and `drop` are metrics of a watch: name it under `watch`")
        if self.registry is not None and self.release is None:
            raise ValueError("`registry` is given, and no `release` in it")
        return self


def load_triggers(path: Path, metrics: Collection[str] | None = None) -> TriggersSection:
    """metrics: what the watch records, where that is known.

    Raises ConfigError with file, line and key of each fault; for a metric that is not known also the nearest.
    """
    document = load_recipe(path, None, form=TRIGGERS)
    section = build(TriggersSection, document)
    if section.recipe is not None:
        beside = str(path.parent / Path(section.recipe).expanduser())
        section = section.model_copy(update={"recipe": beside})
    if metrics is not None:
        check_metrics(section, metrics, document)
    return section


def check_metrics(section: TriggersSection, metrics: Collection[str], document: Document) -> None:
    """Raises ConfigError where a rule names a metric that the watch does not record."""
    for place, rule in _placed(section.when, ("when",)):
        condition = rule.drift or rule.drop
        if condition is None or condition.metric in metrics:
            continue
        path = (*place, rule.name, "metric")
        near = nearest(condition.metric, metrics)
        raise ConfigError(
            f"{document.origin(path)}: {'.'.join(map(str, path))}: the watch {section.watch} records no metric "
            f"`{condition.metric}`",
            why=f"it records {', '.join(sorted(metrics)) or 'none yet'}",
            fix=f"did you mean `{near}`?" if near else "name one of these",
        )


def check_recipe(section: TriggersSection) -> None:
    """Raises ConfigError for a fault in what the recipe says of its rows."""
    if section.recipe is not None:
        load_data_recipe(Path(section.recipe))


def _placed(rule: RuleSection, place: KeyPath) -> Iterator[tuple[KeyPath, RuleSection]]:
    yield place, rule
    for number, one in enumerate(rule.children):
        yield from _placed(one, (*place, rule.name, number))

"""What is watched, by which tests, and what is an alarm: the file that `raytrain watch` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raytrain.config.document import Form
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.monitoring.drift.distances.distance import Kind
from raytrain.monitoring.drift.distances.known import DISTANCES, DistanceName
from raytrain.storage.manifest import digest_of
from raytrain.storage.section import StorageSection

WATCH = Form("watch", "`watch`, a name", "jobs/watches/", "docs/monitoring-reference.md")

ColumnKind = Literal["numeric", "categorical", "text", "answer", "logprobs", "ignore"]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class WindowSection(Section):
    """`window:`, how many rows are judged together. Windows follow each other; each row is judged once."""

    rows: int | None = Field(default=1000, ge=1)
    """So many, by time; null = by `hours`."""
    hours: float | None = Field(default=None, gt=0.0)
    """All rows of so long a time."""
    settle_s: float = Field(default=60.0, ge=0.0)
    """Rows younger than this wait: a server's other processes may not have written theirs."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.rows is None) == (self.hours is None):
            raise ConfigError(
                "window: give `rows` or `hours`",
                why="both are given" if self.rows else "neither is given",
                fix="set the other to null",
            )
        return self


class DistancesSection(Section):
    """`distances:`, by which a kind of feature is measured."""

    numeric: DistanceName = "ks"
    """Of numbers: any."""
    categorical: DistanceName = "js"
    """Of names: js, psi or chi_square."""
    vocabulary: DistanceName = "js"
    """Of the words of texts: the same."""
    embedding: DistanceName = "mmd"
    """Of points: mmd alone."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for key, kind in _KINDS.items():
            name = getattr(self, key)
            if kind not in DISTANCES[name].takes:
                fitting = [one.name for one in DISTANCES.values() if kind in one.takes]
                raise ConfigError(
                    f"distances.{key}: {name} does not measure what is {kind}",
                    why="it needs an order of values" if kind != "vector" else "it needs bins",
                    fix=f"take one of {', '.join(fitting)}",
                )
        return self

    @property
    def by_kind(self) -> dict[Kind, str]:
        return {kind: getattr(self, key) for key, kind in _KINDS.items()}


_KINDS: dict[str, Kind] = {
    "numeric": "numeric",
    "categorical": "categorical",
    "vocabulary": "counts",
    "embedding": "vector",
}


class FixedRule(Section):
    """A limit that is a number, whatever chance would do."""

    distance: DistanceName
    """What is measured, over ten bins that hold equal shares of the reference."""
    above: float = Field(ge=0.0)
    """More than this is an alarm."""
    warn_above: float | None = Field(default=None, ge=0.0)
    """More than this is told."""
    feature: str = "*"
    """Of one feature; "*" = of each that the distance can measure."""


class FallRule(Section):
    """A metric that must not fall."""

    feature: str
    """A numeric feature, such as `approval`, or a column of scores."""
    by: float = Field(gt=0.0)
    """Its mean in the window may be lower than the reference's by so much, in its own unit: 0.05 of a share is five
    points."""


class StreamRule(Section):
    """A detector that reads a feature row by row, in the order of time."""

    feature: str
    """A numeric feature."""
    detector: Literal["adwin", "kswin", "page_hinkley"] = "adwin"
    delta: float | None = Field(default=None, gt=0.0, lt=1.0)
    """How unlikely a change must look that is none: ADWIN's delta, KSWIN's alpha; null = the detector's own.
    Page-Hinkley has none."""


class WatchSection(Section):
    """A watch."""

    watch: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$")
    """Its name."""
    log: str | None = None
    """Folder of a server's request log (http.request_log); null = serving/requests under RAYTRAIN_HOME, or `rows`."""
    rows: str | None = None
    """Instead of a log any table: a file, a folder or a glob that data.sources takes."""
    model: str | None = None
    """Of a log: answers of this name alone; null = of all."""
    time: str | None = None
    """Column of `rows` that says when; null = `at` where there is one, else all rows are one window."""
    columns: dict[str, ColumnKind] = Field(default_factory=dict)
    """What a column holds, where what is guessed from its values is wrong."""
    embedding_model: str | None = None
    """A base model, as in a recipe's model.base_model; texts are also compared as its mean hidden states."""
    window: WindowSection = Field(default_factory=WindowSection)
    level: Share | None = 0.05
    """Share of windows without drift that are an alarm all the same; null = `fixed`, `falls` and `streams` alone."""
    permutations: int = Field(default=999, ge=99, le=100_000)
    """From which it is known what distances come to by chance."""
    distances: DistancesSection = Field(default_factory=DistancesSection)
    fixed: list[FixedRule] = Field(default_factory=list)
    """Limits that are numbers, beside the calibrated ones or instead of them."""
    falls: list[FallRule] = Field(default_factory=list)
    """Metrics that must not fall."""
    streams: list[StreamRule] = Field(default_factory=list)
    """Detectors that read row by row (the extra `drift`)."""
    most_reference_rows: int = Field(default=20_000, ge=1)
    """Of more rows so many are drawn when the reference is frozen."""
    storage: StorageSection = Field(default_factory=StorageSection)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.log is not None and self.rows is not None:
            raise ConfigError(
                "`log` and `rows` are both given",
                why="a watch reads a request log, or a table",
                fix="take one of them out",
            )
        if self.rows is not None and self.model is not None:
            raise ConfigError(
                "`model` is given beside `rows`",
                why="it chooses answers of a request log",
                fix="take it out, and name a table that holds these rows alone",
            )
        if self.level is None and not (self.fixed or self.falls or self.streams):
            raise ConfigError(
                "nothing would ever be an alarm",
                why="`level` is null, and no rule is given",
                fix="give `level`, or a rule under `fixed`, `falls` or `streams`",
            )
        return self

    @property
    def digest(self) -> str:
        """Of what a judgement depends on."""
        return digest_of(self.model_dump(mode="json", exclude={"storage", "log", "rows"}))


def load_watch(path: Path, overrides: list[str] | None = None) -> WatchSection:
    """Raises ConfigError with file, line and key of each fault."""
    return build(WatchSection, load_recipe(path, overrides, form=WATCH))

"""A loop's file: what is kept good, when it is trained again, on what, and what the result must show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from raytrain.config.document import Form
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.evaluation.suite import SuiteSection, load_suite
from raytrain.monitoring.drift.section import WatchSection, load_watch
from raytrain.monitoring.drift.watching import metrics_of
from raytrain.monitoring.learning.section import LearningSection
from raytrain.monitoring.triggers.falls import FallSection
from raytrain.monitoring.triggers.observing import metric_names
from raytrain.monitoring.triggers.section import TriggersSection, load_triggers
from raytrain.release.bundle.parity.section import ExportCheckSection
from raytrain.release.gate.policy import Policy, load_policy
from raytrain.runs.queue.job import DEFAULT_QUEUE, Priority
from raytrain.runs.records import Records
from raytrain.serving.http.section import RequestLogSection
from raytrain.storage.section import StorageSection
from raytrain.tuning.section import SearchSection

LOOP = Form("loop", "loop (a name), release, triggers and gate", "jobs/loops/", "docs/loop-reference.md")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class RowsSection(Section):
    """What is learned from: rows that came since, with old ones beside them."""

    replay: Annotated[float, Field(ge=0)] | None = None
    """Old rows for each fresh one, drawn from all that production has learned from; null = all of them."""
    least: Annotated[int, Field(ge=1)] = 20
    """With fewer fresh rows, and no source that is new, nothing is trained: the order fails, and says so."""
    most: Annotated[int, Field(ge=1)] = 5_000
    """Fresh rows at most, the oldest first; the rest waits for the next time."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the fresh rows that is not learned from and makes the suite `fresh`; 0 = no such suite."""


class CanarySection(Section):
    """How a candidate is held against production online; the trial itself stands in the serving config (`trials:`, its
    candidate `staging`)."""

    hours: Annotated[float, Field(gt=0)] = 24.0
    """So long its pairs are waited for; then the order fails."""
    every_s: Annotated[float, Field(gt=0)] = 30.0
    """How often the trial's log is read meanwhile."""


class QueueSection(Section):
    """How retrainings wait for their turn."""

    name: str = DEFAULT_QUEUE
    """The queue."""
    priority: Priority = "P1"
    """P0 urgent, P1 normal, P2 background."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """Further tries where one fails by the cluster, the network or a disk; each goes on where the last ended."""


class LoopSection(Section):
    """One loop, around one released name. Files are relative to this one."""

    loop: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,59}$")]
    """Its name."""
    release: Name
    """The name in the registry whose production is kept good."""
    registry: str | None = None
    """Folder or URI of the registry; null = $RAYTRAIN_HOME/registry."""
    keys: str | None = None
    """Folder of the key ring; null = $RAYTRAIN_HOME/keys."""
    key: str = "default"
    """Name of the key that bundles, promotions and rollbacks are signed with."""
    watch: str | None = None
    """File of the watch whose windows are judged first; null = somebody else watches."""
    triggers: str
    """File of when production is trained again."""
    log: str | None = None
    """Folder of the server's request log (http.request_log); null = serving/requests under RAYTRAIN_HOME."""
    learning: LearningSection | None = LearningSection()
    """Which interactions become rows before triggers are looked at; null = somebody else collects them."""
    rows: RowsSection = RowsSection()
    """What is learned from."""
    overrides: list[str] = Field(default_factory=list)
    """KEY=VALUE over production's own recipe, such as train.num_epochs=1."""
    search: SearchSection | None = None
    """As in a recipe: better values are searched for, production's own tried first, one trial at a time unless
    `max_concurrent` says otherwise; null = production's own."""
    check: bool = False
    """Prove first that the recipe computes, resumes and repeats as it should."""
    suites: Annotated[list[str], Field(min_length=1)]
    """Files of suites that production and what was trained answer."""
    fresh_suite: str | None = None
    """File of a suite that says how held-out fresh rows are asked and scored; its own items are not read. null = they
    are not asked."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Items that are answered at a time."""
    prompts: str | None = None
    """File of prompts that a bundle is held against what was trained on; null = as `raytrain export` does it."""
    export_check: ExportCheckSection = ExportCheckSection()
    """How far a bundle may lie from what was trained, by dtype; as `raytrain export` takes it."""
    gate: str
    """File of the gate's policy; its contract decides between production and what was trained."""
    canary: CanarySection | None = None
    """null = no trial: what passes the gate goes to production."""
    new_reference_rows: Annotated[int, Field(ge=2)] | None = None
    """After each change of production the watch's reference is frozen anew, of the first so many answers that came
    since; null = only people freeze it."""
    fall: FallSection | None = FallSection()
    """When a promotion is taken back; null = only people do so."""
    queue: QueueSection = QueueSection()
    """Where retrainings wait."""
    storage: StorageSection = StorageSection()
    """Where all that a retraining makes goes."""

    @model_validator(mode="after")
    def _fits(self) -> LoopSection:
        if not self.storage.location.is_local:
            raise ValueError(
                "`storage` is not on this machine: bundles are made and signed here, and travel afterwards"
            )
        budget = None if self.search is None else self.search.budget
        if budget is not None and budget.hours is budget.gpu_hours is budget.cost is None:
            raise ValueError(
                "`search` has no limit, and nobody is there to end it: give `search.budget` hours, gpu_hours or cost"
            )
        if self.fresh_suite is not None and not self.rows.held_out:
            raise ValueError("`fresh_suite` needs rows that are held out: `rows.held_out` is 0")
        return self


@dataclass(frozen=True)
class Loop:
    """A loop with all that it names, read and checked."""

    path: Path
    section: LoopSection
    watch: WatchSection | None
    triggers: TriggersSection
    suites: tuple[SuiteSection, ...]
    fresh_suite: SuiteSection | None
    policy: Policy

    @property
    def log(self) -> Path:
        """Of the server's requests."""
        return RequestLogSection(folder=self.section.log).place

    @property
    def prompts(self) -> str | None:
        """The file's path."""
        given = self.section.prompts
        return None if given is None else str(self.path.parent / given)

    @property
    def needs_staging(self) -> bool:
        """Whether a candidate goes through staging first."""
        return self.section.canary is not None or any(
            one.to == "staging" for one in self.policy.section.targets
        )


def _about(triggers: TriggersSection, section: LoopSection) -> TriggersSection:
    """Whose age counts is the loop's own name, unless the triggers say otherwise."""
    named = {
        "release": triggers.release or section.release,
        "registry": triggers.registry or section.registry,
    }
    return triggers.model_copy(update=named)


def load_loop(path: Path) -> Loop:
    """Raises ConfigError or DataError with file, line and key of what is wrong, in whichever file it is."""
    document = load_recipe(path, None, form=LOOP)
    section = build(LoopSection, document)

    def beside(file: str) -> Path:
        return path.parent / Path(file).expanduser()

    found = Loop(
        path,
        section,
        None if section.watch is None else load_watch(beside(section.watch)),
        _about(load_triggers(beside(section.triggers)), section),
        tuple(load_suite(beside(one)) for one in section.suites),
        None if section.fresh_suite is None else load_suite(beside(section.fresh_suite)),
        load_policy(beside(section.gate)),
    )
    found.policy.target("production")
    if found.triggers.release != section.release:
        raise ConfigError(
            f"{path}: the triggers are about another name",
            why=f"their `release` is {found.triggers.release}, and the loop's is {section.release}",
            fix="take `release` out of the triggers: a loop's own name counts",
        )
    if found.watch is not None and found.triggers.watch not in (None, found.watch.watch):
        raise ConfigError(
            f"{path}: the triggers look at another watch",
            why=f"they read {found.triggers.watch}, and the watch here is {found.watch.watch}",
            fix="name the same watch in both files",
        )
    if found.watch is not None and found.watch.rows is not None and section.new_reference_rows is not None:
        raise ConfigError(
            f"{path}: new_reference_rows is for a watch of a server's log",
            why=f"{found.watch.watch} watches the table {found.watch.rows}, which tells nothing of what is served",
            fix="take it out, or watch the log",
        )
    if section.canary is not None:
        found.policy.target("staging")
    return found


def check_metrics(loop: Loop, records: Records) -> None:
    """Raises ConfigError with its line where a rule names a metric that the watch does not record. Before it has judged
    a window its frozen reference tells what it will; before that nobody can say."""
    metrics = metric_names(loop.triggers.watch, records)
    if metrics is None and loop.watch is not None:
        metrics = metrics_of(loop.watch)
    if metrics is not None:
        load_triggers(loop.path.parent / Path(loop.section.triggers).expanduser(), metrics)

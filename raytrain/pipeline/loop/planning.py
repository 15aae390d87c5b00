"""From an order to its rows and its recipe: production's own, over what came since."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from raytrain.config.document import Document, apply_overrides
from raytrain.data.remote import is_remote
from raytrain.data.section import SourceSection, load_data_recipe
from raytrain.errors import DataError
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.suite import SuiteSection
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.state import Order
from raytrain.monitoring.triggers.store import Ordered, TriggerStore
from raytrain.pipeline.loop import fresh_rows
from raytrain.pipeline.loop.fresh_rows import Learned, Row, RowsPlan
from raytrain.pipeline.loop.opening import retrainings_of
from raytrain.pipeline.loop.production import find_production
from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.section import PipelineRecipe, PipelineSection
from raytrain.pipeline.steps import Release
from raytrain.release.gate.policy import TargetSection
from raytrain.runs.records import Records
from raytrain.storage.location import Location
from raytrain.training.spec import spec_from_document
from raytrain.tuning.spec import tune_recipe

FRESH_SUITE = "fresh"


def plan_rows(folder: Location, loop: Loop, order: Order, release: Release, records: Records) -> RowsPlan:
    """Rows are kept for the order's run, and written down. Raises DataError where there are too few, or production's
    own are not at hand; RefusedError where the run had them and is done."""
    production = find_production(release.desk.registry, release.name, release.ring, records)
    if production.spec.model.task != "causal_lm":
        raise DataError(
            f"{release.name}@{production.version} cannot learn from what is asked",
            why=f"answers of requests are chats, and its task is {production.spec.model.task}",
            fix="retrain it from rows of your own: raytrain run",
        )
    pool = InteractionPool(records.engine)
    earlier = _unused_plans(loop, order, folder.parent, records)
    rows = _rows(pool, loop, order, earlier)
    parents = {"production": production.digest}
    parents |= {f"rows_{number}": plan.artifact.digest for number, plan in enumerate(earlier, start=1)}
    report = window_report(records, order)
    parents |= {} if report is None else {"window": report}
    about = {
        "order": order.id,
        "name": release.name,
        "production": {
            "version": str(production.version), "model": production.model, "digest": production.digest,
        },
    }  # fmt: skip
    learned = Learned(production.spec.to_dict(), production.sources, pool.ready)
    added = _added_sources(loop, production.sources)
    return fresh_rows.write_plan(folder / "rows", loop.section.rows, rows, learned, parents, about, added)


def _added_sources(loop: Loop, known: Sequence[SourceSection]) -> list[SourceSection]:
    """Those that the triggers' recipe names, and production has learned nothing from."""
    if loop.triggers.recipe is None:
        return []
    origins = {_origin(one) for one in known}
    return [
        one
        for one in load_data_recipe(Path(loop.triggers.recipe)).data.sources
        if _origin(one) not in origins
    ]


def _origin(source: SourceSection) -> tuple[object, ...]:
    path = source.path if source.path is None or is_remote(source.path) else str(Path(source.path).absolute())
    return path, source.dataset, source.subset, source.split, source.generator


def _rows(pool: InteractionPool, loop: Loop, order: Order, earlier: Sequence[RowsPlan]) -> list[Row]:
    """Those of orders that came to nothing, unless they are forgotten, then those that are kept for this one."""
    before = {row["id"]: row for plan in earlier for row in plan.rows()}
    usable = pool.ready(before)
    most = max(0, loop.section.rows.most - len(usable))
    taken = pool.take(order.id, most, loop.section.release)
    own = [row.as_chat() for row in taken if row.id not in before]
    return [*(row for name, row in before.items() if name in usable), *own]


def _unused_plans(loop: Loop, order: Order, folder: Location, records: Records) -> list[RowsPlan]:
    """Of orders since the last that succeeded, the oldest first: production never learned what they were for."""
    found = [
        plan
        for one in _came_to_nothing(loop, records)
        if one.order.id != order.id and (plan := fresh_rows.open_plan(folder / one.order.id / "rows")) is not None
    ]  # fmt: skip
    return found[::-1]


def num_waiting(loop: Loop, release: Release, records: Records) -> int:
    """Rows of orders that failed after they had written them down: the next one learns from them."""
    folder = retrainings_of(release)
    failed = [one.order.id for one in _came_to_nothing(loop, records) if one.outcome == "failed"]
    plans = [plan for one in failed if (plan := fresh_rows.open_plan(folder / one / "rows")) is not None]
    return len(
        InteractionPool(records.engine).kept({str(row["id"]) for plan in plans for row in plan.rows()})
    )


def _came_to_nothing(loop: Loop, records: Records) -> list[Ordered]:
    """Orders since the last that succeeded, the newest first."""
    orders = TriggerStore(records.engine).orders(loop.triggers.triggers, limit=1_000)
    since = itertools.takewhile(lambda one: one.outcome != "succeeded", orders)
    return [one for one in since if one.outcome is not None]


def window_report(records: Records, order: Order) -> str | None:
    """Digest of the report on the order's window; None where no watch was looked at."""
    if not order.series or not order.window:
        return None
    ending = f"/{order.window:06d}"
    reports = [one for one in records.artifacts(order.series) if one.role == "report"]
    return next((one.digest for one in reports if (one.uri or "").endswith(ending)), None)


def recipe_of(loop: Loop, plan: RowsPlan) -> PipelineRecipe:
    """What `raytrain run` is given. Raises ConfigError where overrides or search do not fit production's recipe."""
    section, content = loop.section, plan.content
    recipe = {**plan.recipe, "storage": section.storage.model_dump(mode="json")}
    document = apply_overrides(Document(recipe), section.overrides)
    if section.search is not None:
        search = section.search.model_dump(mode="json")
        values = {
            **document.values,
            "search": {**search, "max_concurrent": section.search.max_concurrent or 1},
        }
        document = Document(values, document.origins, document.form)
    name = str(document.values["name"])
    asked = [one.reports for one in _targets(loop)]
    steps = PipelineSection(
        check=section.check or any("pipeline_check" in one for one in asked),
        baseline=str(content["production"]["model"]),
        batch_size=section.batch_size,
    )
    return PipelineRecipe(
        spec_from_document(document, default_name=name),
        None if section.search is None else tune_recipe(document, default_name=name),
        steps,
        [load_items(one) for one in loop.suites] + _fresh_suite(loop.fresh_suite, plan),
        loop.policy.contract,
    )


def _targets(loop: Loop) -> list[TargetSection]:
    return [one for one in loop.policy.section.targets if one.to in ("staging", "production")]


def _fresh_suite(like: SuiteSection | None, plan: RowsPlan) -> list[Suite]:
    """Held-out rows, asked and scored as that suite's items are; none where none were held out."""
    if like is None or not plan.num_held_out:
        return []
    source = like.items.source.model_copy(
        update={"path": str(plan.held_out), "dataset": None, "generator": None}
    )
    items = like.items.model_copy(update={"source": source, "id": "id", "max_items": None})
    return [load_items(like.model_copy(update={"suite": FRESH_SUITE, "items": items}))]

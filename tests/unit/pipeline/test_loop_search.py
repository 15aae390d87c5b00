"""What a retraining's search tries first: what the one before it found."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import Site, make_site, pooled

from raytrain.config.document import Document
from raytrain.data.section import SourceSection
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.state import Seen
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline.loop import planning
from raytrain.pipeline.loop.opening import retrainings_of
from raytrain.pipeline.loop.planning import plan_rows, recipe_of
from raytrain.pipeline.loop.production import Production
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records
from raytrain.training.spec import RunSpec, spec_from_document
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import StudyMemory
from raytrain.tuning.task import TrialTask
from raytrain.tuning.warm_start import warm_start

pytestmark = pytest.mark.whole
RATE = "train.learning_rate"
SEARCH = {
    "space": {RATE: {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}},
    "num_trials": 3, "scheduler": "none", "probe_steps": 0, "budget": {"hours": 1.0},
}  # fmt: skip


def searched(site: Site, number: int, production: RunSpec, monkeypatch: pytest.MonkeyPatch) -> TuneRecipe:
    """By the order of that number, over rows that came since."""
    InteractionPool(site.records.engine).add(pooled(10 * number, 10 * number + 4))
    sources = (SourceSection(path="rows.jsonl"),)
    found = Production(Version(1, number, 0), f"sha256:{number}", f"model-{number}", production, sources)
    monkeypatch.setattr(planning, "find_production", lambda *_: found)
    store = TriggerStore(site.records.engine)
    order = store.decide(site.loop.triggers, Seen(new_rows=99), 1_000.0 * number).order
    assert order is not None
    site.records.create_run(order.id, kind="retrain", name="small", config={})
    plan = plan_rows(retrainings_of(site.release) / order.id, site.loop, order, site.release, site.records)
    search = recipe_of(site.loop, plan).search
    store.settle(site.loop.triggers, order.id, "succeeded", "it ended")
    assert search is not None
    return search


def first_trial(search: TuneRecipe, records: Records) -> float:
    memory = StudyMemory(search, search.run_id)
    warm_start(memory, records)
    task = Chooser(memory, print).next()
    assert isinstance(task, TrialTask)
    return float(task.values[RATE])


def test_the_second_search_begins_with_the_best_of_the_first(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records, rows={"least": 3, "held_out": 0.0}, search=SEARCH)
    content = {
        "name": "n", "model": {"base_model": "models/tiny"}, "data": {"sources": ["rows.jsonl"]},
        "train": {"learning_rate": 0.002},
    }  # fmt: skip
    production = spec_from_document(Document(content), default_name="n")
    first = searched(site, 1, production, monkeypatch)
    assert first_trial(first, records) == pytest.approx(0.002), "production's own"
    best = first.trial_spec({RATE: 0.037})  # is promoted, as 1.2.0
    second = searched(site, 2, best, monkeypatch)
    assert second.run_id != first.run_id, "over other rows it is another study"
    assert first_trial(second, records) == pytest.approx(0.037)

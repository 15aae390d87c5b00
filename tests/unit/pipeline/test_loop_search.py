"""What a retraining's search tries first: what the one before it found."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import Site, make_site, pooled

from raytrain.config.document import Document
from raytrain.data.section import SourceSection
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.state import Outcome, Seen
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


def searched(
    site: Site,
    number: int,
    production: RunSpec,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome = "succeeded",
) -> TuneRecipe:
    """By the order of that number, over rows that came since; what came of it."""
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
    store.settle(site.loop.triggers, order.id, outcome, "it ended")
    assert search is not None
    return search


def first_trials(search: TuneRecipe, records: Records, num: int = 1) -> list[float]:
    memory = StudyMemory(search, search.run_id)
    warm_start(memory, records)
    chooser = Chooser(memory, print)
    tasks = [chooser.next() for _ in range(num)]
    return [float(one.values[RATE]) for one in tasks if isinstance(one, TrialTask)]


def trained(search: TuneRecipe, number: int, rate: float, loss: float, records: Records) -> None:
    """A trial of it has come to its end."""
    spec = search.trial_spec({RATE: rate})
    run_id = f"{search.run_id}-{number:04d}"
    records.create_run(run_id, kind="train", name=spec.name, config=spec.to_dict())
    records.add_metrics(run_id, [(10, 0.0, {"eval/loss": loss})])
    records.set_state(run_id, "succeeded")


@pytest.fixture
def production() -> RunSpec:
    content = {
        "name": "n", "model": {"base_model": "models/tiny"}, "data": {"sources": ["rows.jsonl"]},
        "train": {"learning_rate": 0.002},
    }  # fmt: skip
    return spec_from_document(Document(content), default_name="n")


@pytest.fixture
def site(tmp_path: Path, records: Records) -> Site:
    return make_site(tmp_path, records, rows={"least": 3, "held_out": 0.0}, search=SEARCH)


def test_the_second_search_begins_with_the_best_of_the_first(
    site: Site, production: RunSpec, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searched(site, 1, production, monkeypatch)
    assert first_trials(first, records) == pytest.approx([0.002]), "production's own"
    best = first.trial_spec({RATE: 0.037})  # is promoted, as 1.2.0
    second = searched(site, 2, best, monkeypatch)
    assert second.run_id != first.run_id, "over other rows it is another study"
    assert first_trials(second, records) == pytest.approx([0.037])


def test_after_no_gain_the_best_of_the_first_comes_after_productions_own(
    site: Site, production: RunSpec, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searched(site, 1, production, monkeypatch, outcome="no_gain")
    for number, (rate, loss) in enumerate([(0.002, 0.5), (0.011, 0.3), (0.09, 0.7)]):
        trained(first, number, rate, loss, records)
    second = searched(site, 2, production, monkeypatch)
    assert second.run_id != first.run_id
    assert first_trials(second, records, num=2) == pytest.approx([0.002, 0.011])

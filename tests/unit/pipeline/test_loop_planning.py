"""Which rows an order learns from after others came to nothing, and that none is learned from twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from loops import NAME, Site, make_site, pooled

from raytrain.config.document import Document
from raytrain.data.section import SourceSection
from raytrain.errors import DataError, RefusedError
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.observing import Seen
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Outcome, Window
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline.loop import planning
from raytrain.pipeline.loop.fresh_rows import RowsPlan
from raytrain.pipeline.loop.opening import retrainings_of
from raytrain.pipeline.loop.planning import num_waiting, plan_rows
from raytrain.pipeline.loop.production import Production
from raytrain.pipeline.loop.retraining import given_up
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records
from raytrain.storage.manifest import digest_of
from raytrain.training.spec import spec_from_document

pytestmark = pytest.mark.whole


@pytest.fixture
def site(tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch) -> Site:
    """1.0.0 is in production, trained by a recipe of three keys."""
    site = make_site(tmp_path, records, rows={"least": 3, "most": 6, "held_out": 0.0})
    content = {"name": "n", "model": {"base_model": "models/tiny"}, "data": {"sources": ["rows.jsonl"]}}
    spec = spec_from_document(Document(content), default_name="n")
    found = Production(Version(1, 0, 0), site.digest("1.0.0"), "m", spec, (SourceSection(path="rows.jsonl"),))
    monkeypatch.setattr(planning, "find_production", lambda *_: found)
    return site


def come(site: Site, first: int, last: int) -> None:
    InteractionPool(site.records.engine).add(pooled(first, last))


def order(site: Site, number: int) -> str:
    """The next order, with its run."""
    store = TriggerStore(site.records.engine)
    decided = store.decide(site.loop.triggers, Seen(new_rows=99), 1_000.0 * number)
    assert decided.order is not None and decided.order.number == number, decided.blocked
    site.records.create_run(decided.order.id, kind="retrain", name="small", config={})
    return decided.order.id


def planned(site: Site, order_id: str) -> RowsPlan:
    found = TriggerStore(site.records.engine).order(order_id)
    plan = plan_rows(
        retrainings_of(site.release) / order_id, site.loop, found.order, site.release, site.records
    )
    artifact = plan.artifact
    site.records.add_artifact(
        order_id, "rows", "written", artifact.kind, artifact.digest, str(artifact.location), artifact.manifest.parents
    )  # fmt: skip
    return plan


def ended(site: Site, order_id: str, outcome: Outcome) -> None:
    site.records.set_state(order_id, "failed" if outcome == "failed" else "succeeded", "it ended")
    TriggerStore(site.records.engine).settle(site.loop.triggers, order_id, outcome, "it ended")


def numbers(plan: RowsPlan) -> list[int]:
    return sorted(int(row["id"], 16) for row in plan.rows())


def test_rows_come_from_the_report_on_the_window_that_tripped(site: Site) -> None:
    """Of the order's series, and of none other that was looked at."""
    come(site, 0, 4)
    seen = Seen(series="watch-small-1", windows=(Window(1, 900.0, {"drift/score": 1.5}),), new_rows=99)
    decided = TriggerStore(site.records.engine).decide(site.loop.triggers, seen, 1_000.0)
    assert decided.order is not None
    site.records.create_run(decided.order.id, kind="retrain", name="small", config={})
    for series in ("watch-small-1", "watch-small-2"):
        site.records.create_run(series, kind="watch", name="small", config={})
        digest = digest_of([series])
        site.records.add_artifact(series, "report", "written", "drift_report", digest, f"/{series}/000001")
    assert planned(site, decided.order.id).artifact.manifest.parents["window"] == digest_of(["watch-small-1"])


@pytest.mark.parametrize("outcome", ["failed", "no_gain"])
def test_rows_of_an_order_that_came_to_nothing_are_learned_from_once_more_and_no_further(
    site: Site, outcome: Outcome
) -> None:
    come(site, 0, 4)
    first = order(site, 1)
    assert numbers(planned(site, first)) == [0, 1, 2, 3]
    ended(site, first, outcome)
    pool = InteractionPool(site.records.engine)
    with pytest.raises(RefusedError, match="cannot be given back"):
        pool.release(first)
    waiting = num_waiting(site.loop, site.release, site.records)
    assert waiting == (4 if outcome == "failed" else 0), "what was no gain is nothing new"

    come(site, 4, 9)
    second = order(site, 2)
    plan = planned(site, second)
    assert numbers(plan) == [0, 1, 2, 3, 4, 5], "six at most, the oldest first"
    assert plan.artifact.manifest.parents["rows_1"].startswith("sha256:"), "who is forgotten is found"
    ended(site, second, "succeeded")
    with pytest.raises(RefusedError, match="cannot be given back"):
        pool.release(first)
    assert num_waiting(site.loop, site.release, site.records) == 0

    third = order(site, 3)
    assert numbers(planned(site, third)) == [6, 7, 8], "none is learned from twice"


def test_an_order_that_fails_before_its_rows_are_written_down_gives_them_back(site: Site) -> None:
    come(site, 0, 2)
    first = order(site, 1)
    with pytest.raises(DataError, match="2 rows to learn from, and 3 are asked"):
        planned(site, first)
    pool = InteractionPool(site.records.engine)
    assert pool.num_free(NAME) == 0
    given_up(site.loop, first, "too few", site.release, site.records)
    assert pool.num_free(NAME) == 2, "the trigger counts them again"
    assert TriggerStore(site.records.engine).order(first).outcome == "failed"


@pytest.mark.parametrize("outcome", ["failed", "no_gain"])
def test_rows_that_a_person_refuses_afterwards_are_not_learned_from_again(
    site: Site, outcome: Outcome
) -> None:
    come(site, 0, 6)
    first = order(site, 1)
    planned(site, first)
    ended(site, first, outcome)
    pool = InteractionPool(site.records.engine)
    assert pool.judge([f"{number:032x}" for number in (1, 3)], "refused", "poison") == 2
    assert num_waiting(site.loop, site.release, site.records) == (4 if outcome == "failed" else 0)
    assert numbers(planned(site, order(site, 2))) == [0, 2, 4, 5]


def test_rows_that_are_written_down_and_free_are_counted_and_learned_from_once(site: Site) -> None:
    """As after a kill between the two, when somebody gave them back."""
    come(site, 0, 4)
    first = order(site, 1)
    found = TriggerStore(site.records.engine).order(first)
    plan_rows(retrainings_of(site.release) / first, site.loop, found.order, site.release, site.records)
    pool = InteractionPool(site.records.engine)
    site.records.set_state(first, "failed", "killed")
    assert pool.release(first) == 4
    ended(site, first, "failed")
    assert pool.num_free(NAME) + num_waiting(site.loop, site.release, site.records) == 4
    assert numbers(planned(site, order(site, 2))) == [0, 1, 2, 3]


def test_what_was_forgotten_meanwhile_is_taken_along_by_nobody(site: Site) -> None:
    come(site, 0, 5)
    first = order(site, 1)
    planned(site, first)
    ended(site, first, "failed")
    InteractionPool(site.records.engine).forget("u")
    come(site, 5, 9)
    assert num_waiting(site.loop, site.release, site.records) == 0
    assert numbers(planned(site, order(site, 2))) == [5, 6, 7, 8]


def test_what_the_triggers_recipe_names_and_production_never_saw_is_learned_from(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where production was trained, of rows.jsonl
    rows = {"rows": {"question": "q", "answer": "a"}, "more": {"question": "new", "answer": "b"}}
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    recipe = tmp_path / "recipe.yaml"
    names = [str(tmp_path / f"{name}.jsonl") for name in rows]
    recipe.write_text(yaml.safe_dump({"model": {"base_model": "m"}, "data": {"sources": names}}))
    when = {"any": [{"new_source": True}, {"new_rows": {"at_least": 3}}]}
    values = {"triggers": "grow", "recipe": str(recipe), "when": when, "cooldown_hours": 0}
    loop = replace(site.loop, triggers=TriggersSection.model_validate(values))
    come(site, 0, 4)
    plan = planned(replace(site, loop=loop), order(site, 1))
    own, added = (one["path"] for one in plan.recipe["data"]["sources"][:2])
    assert own.endswith("fresh.jsonl") and added == names[1]
    assert plan.content["num_added"] == 1

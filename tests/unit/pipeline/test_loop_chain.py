"""The chain of a retraining from rows to production, where what is trained, asked and exported is there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluations import evaluation_of, records_with
from loops import NAME, POLICY, STAGED, Site, make_site, pooled, written_plan
from queued import a_job
from trial_rows import pairs, written

from raytrain.errors import RefusedError, StorageError
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.store import Ordered, TriggerStore
from raytrain.pipeline.loop import chain, retraining
from raytrain.pipeline.loop.chain import AwaitsApprovalError, Carrying, NoGain
from raytrain.pipeline.loop.opening import retrainings_of
from raytrain.pipeline.loop.retraining import Retrained, given_up, retrain
from raytrain.pipeline.loop.round import Looker
from raytrain.pipeline.recipe import StepResult
from raytrain.release.gate.about import about_bundle
from raytrain.release.gate.approvals import statement_of, write_approval
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version
from raytrain.runs.queue.job import Limits
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import Records

pytestmark = pytest.mark.whole
ORDER = "grow-000001"


class Killed(BaseException):
    """In the place of a kill -9: nobody handles it."""


class View:
    """Who looks on, and sees the steps' names."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, bool]] = []

    def begin(self, step: str) -> None:
        """It is told when it is done."""

    def tell(self, text: str) -> None:
        """Nobody reads it."""

    def done(self, step: StepResult) -> None:
        self.steps.append((step.name, step.was_known))


def ordered(site: Site) -> Ordered:
    """Four rows have led to an order, which keeps them; 1.0.0 is in production."""
    site.promote("1.0.0")
    pool = InteractionPool(site.records.engine)
    pool.add([*pooled(0, 2), *pooled(2, 3, "u2"), *pooled(3, 4)])
    Looker(site.loop, site.release, site.records, lambda one: a_job(one.order.id, run_id=one.order.id)).look(
        1.0
    )
    site.records.create_run(ORDER, kind="retrain", name="small", config={})
    rows = [row.as_chat() for row in pool.take(ORDER)]
    written_plan(site, rows)
    return TriggerStore(site.records.engine).order(ORDER)


def made_by(
    monkeypatch: pytest.MonkeyPatch, site: Site, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """1.1.0 is what comes of training, and `meanwhile` happens then."""
    evaluation = evaluation_of(site.loop.path.parent / "asked", {"s": records_with([1.0] * 8)})

    def made(one: Carrying, plan: Any, recipe: Any) -> dict[str, StepResult]:
        meanwhile()
        step = StepResult("prepare", "rows", False, str(plan.artifact.location), plan.artifact.digest)
        return dict.fromkeys(("prepare", "train", "baseline", "evaluate"), step)

    def released(one: Carrying, recipe: Any, steps: Any) -> tuple[Version, Any]:
        one.chain.version = "1.1.0"
        return Version(1, 1, 0), evaluation.artifact

    monkeypatch.setattr(Carrying, "_made", made)
    monkeypatch.setattr(Carrying, "_released", released)
    monkeypatch.setattr(Carrying, "_reports", lambda one, recipe, steps: [])


def carried(site: Site, one: Ordered, view: View | None = None) -> Retrained:
    return retrain(site.loop, one, site.release, site.records, view or View(), None)


def moves(site: Site) -> list[tuple[str, str]]:
    entries = site.release.desk.registry.entries(NAME)
    return [(one.details["alias"], one.details["version"]) for one in entries if one.action == "move"]


def test_killed_after_production_it_is_not_put_there_again(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records, policy=STAGED)
    one = ordered(site)
    made_by(monkeypatch, site)

    def killed(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(retraining, "write_record", killed)
        carried(site, one)
    assert site.production() == "1.1.0"
    assert InteractionPool(records.engine).counts()["used"] == 0, "its run has not succeeded"

    view = View()
    done = carried(site, one, view)
    assert (done.outcome, done.why) == ("succeeded", f"{NAME}@1.1.0 is in production")
    assert moves(site) == [("production", "1.0.0"), ("staging", "1.1.0"), ("production", "1.1.0")]
    assert ("production", True) in view.steps
    assert InteractionPool(records.engine).counts()["used"] == 4
    assert done.record is not None
    told = json.loads((done.record.path / "record.json").read_text())
    assert [step["name"] for step in told["steps"]] == ["rows", "staging", "production"], "of both calls"
    assert TriggerStore(records.engine).order(ORDER).outcome == "succeeded"
    again = carried(site, one)
    assert (again.outcome, again.record and again.record.digest) == ("succeeded", done.record.digest)


def test_killed_before_its_order_was_settled_the_next_look_settles_it(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records, policy=STAGED)
    one = ordered(site)
    made_by(monkeypatch, site)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TriggerStore, "settle", lambda *_: (_ for _ in ()).throw(Killed))
        carried(site, one)
    assert records.get_run(ORDER).state == "succeeded"
    assert TriggerStore(records.engine).order(ORDER).is_open
    again = carried(site, one)
    assert again.outcome == "succeeded" and [step.was_known for step in again.steps] == [True] * 3
    assert TriggerStore(records.engine).order(ORDER).outcome == "succeeded"


def test_what_is_no_gain_leaves_production_and_its_rows_to_the_next_order(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records, policy=STAGED)
    one = ordered(site)

    def lost() -> None:
        raise NoGain("the candidate is not better")

    made_by(monkeypatch, site, lost)
    done = carried(site, one)
    assert (done.outcome, done.why, done.version) == ("no_gain", "the candidate is not better", None)
    assert site.production() == "1.0.0" and moves(site) == [("production", "1.0.0")]
    assert TriggerStore(records.engine).order(ORDER).outcome == "no_gain"
    looked = Looker(site.loop, site.release, site.records, lambda one: a_job(one.order.id)).look(2.0)
    assert looked.decision is not None and looked.decision["order"] is None, "nothing new has come"


def test_a_lost_trial_is_no_gain_and_orders_nothing(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything ordered for the loss itself, though the triggers name lost trials."""
    site = make_site(tmp_path, records, policy=STAGED, canary={"hours": 1e-5, "every_s": 0.01})
    when = {"any": [{"new_rows": {"at_least": 3}}, {"canary_loss": True}]}
    values = {"triggers": "grow", "when": when, "cooldown_hours": 1}
    site = replace(site, loop=replace(site.loop, triggers=TriggersSection.model_validate(values)))
    one = ordered(site)
    made_by(monkeypatch, site)
    digests = {"production": site.digest("1.0.0"), "candidate": site.digest("1.1.0")}
    rows = pairs(range(20), lambda _: {"is_refusal": True}, pairs=20, name=NAME)
    written(site.loop.log, [{**row, "digest": digests[row["arm"]]} for row in rows])
    queue = QueueStore(records.engine)
    queue.start_what_fits("me", "here", Limits())
    assert queue.get(ORDER).state == "running"

    done = carried(site, one)
    assert queue.get(ORDER).gave_back_at is not None, "others had its CPUs while it waited"
    lost = "20 pairs: no refusal is worse"
    assert (done.outcome, done.why) == ("no_gain", f"the candidate lost its trial: {lost}")
    assert [event.message for event in records.events(ORDER) if event.kind == "canary_loss"] == [lost]
    assert moves(site) == [("production", "1.0.0"), ("staging", "1.1.0")] and site.production() == "1.0.0"
    assert TriggerStore(records.engine).order(ORDER).outcome == "no_gain"

    looker = Looker(site.loop, site.release, records, lambda one: a_job(one.order.id))

    def told(hours: float) -> tuple[Any, Any]:
        looked = looker.look(1.0 + hours * 3600)
        assert looked.decision is not None
        return looked.decision["order"], looked.decision["blocked"]

    assert told(2.5) == (None, []), "nothing holds: it is not even blocked"
    InteractionPool(records.engine).add(pooled(4, 8))
    cooling = "cooling down for 0.5 more hours: the last order was 1.5 ago after 1 that came to nothing"
    assert told(1.5) == (None, [cooling])
    assert told(2.5) == ("grow-000002", [])


def test_production_that_moved_meanwhile_is_not_replaced(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records, policy=STAGED)
    one = ordered(site)
    made_by(monkeypatch, site, lambda: site.promote("1.1.0"))
    monkeypatch.setattr(chain, "when_promoted", lambda *_: None)
    with pytest.raises(RefusedError, match=r"1\.0\.0 is not in production any more"):
        carried(site, one)


def record_of(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (retrainings_of(site.release) / ORDER / "record" / "record.json").read_bytes()
    )
    return found


def test_what_fails_after_production_has_succeeded_and_is_trained_by_nobody_again(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full where the record is written, at every try; then the job is given up."""
    site = make_site(tmp_path, records, policy=STAGED)
    one = ordered(site)
    made_by(monkeypatch, site)

    def full(*_: Any) -> Any:
        raise StorageError("the disk is full", why="no space is left", fix="free some")

    with monkeypatch.context() as patch:
        patch.setattr(retraining, "write_record", full)
        with pytest.raises(StorageError):
            carried(site, one)
        with pytest.raises(StorageError):
            given_up(site.loop, ORDER, "it died", site.release, records)
        assert TriggerStore(records.engine).order(ORDER).is_open, "the next look tries again"
    QueueStore(records.engine).cancel(ORDER)
    looked = Looker(site.loop, site.release, records, lambda one: a_job(one.order.id)).look(2.0)
    assert looked.settled == [ORDER] and looked.blind == []
    settled = TriggerStore(records.engine).order(ORDER)
    assert settled.outcome == "succeeded" and f"{NAME}@1.1.0 was put into production" in str(settled.why)
    assert InteractionPool(records.engine).counts()["used"] == 4
    assert looked.decision is not None and looked.decision["order"] is None, "its rows are nothing new"
    told = record_of(site)
    assert (told["outcome"], told["version"]) == ("succeeded", "1.1.0")
    assert [step["name"] for step in told["steps"]] == ["rows", "staging", "production"]


def test_who_is_forgotten_after_production_does_not_undo_the_order(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records, policy=STAGED)
    one = ordered(site)
    made_by(monkeypatch, site)

    def killed(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(retraining, "write_record", killed)
        carried(site, one)
    InteractionPool(records.engine).forget("u2")
    assert carried(site, one).outcome == "succeeded" and site.production() == "1.1.0"


def test_an_order_whose_record_cannot_be_written_is_settled_all_the_same(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records)
    ordered(site)

    def full(*_: Any) -> Any:
        raise StorageError("the disk is full", why="no space is left", fix="free some")

    monkeypatch.setattr(retraining, "write_record", full)
    given_up(site.loop, ORDER, "it died", site.release, records)
    settled = TriggerStore(records.engine).order(ORDER)
    assert settled.outcome == "failed" and settled.why is not None
    assert settled.why.startswith("it died; it has no record: the disk is full")


def test_a_user_who_is_forgotten_during_the_training_keeps_it_out_of_production(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, records, policy=STAGED)
    one = ordered(site)
    made_by(monkeypatch, site, lambda: InteractionPool(records.engine).forget("u2") and None)
    with pytest.raises(RefusedError, match="1 of the rows of grow-000001 may not be learned from") as caught:
        carried(site, one)
    assert "forgotten" in caught.value.why and site.production() == "1.0.0"
    assert given_up(site.loop, ORDER, caught.value.line, site.release, records) == "failed"
    told = record_of(site)
    assert (told["outcome"], told["why"], told["version"]) == ("failed", caught.value.line, "1.1.0")
    assert [(step["name"], step["was_known"]) for step in told["steps"]] == [("rows", True)]
    assert told["production"]["version"] == "1.0.0" and told["rows"]["num_fresh"] == 4
    written = {one.role: one.digest for one in records.artifacts(ORDER) if one.direction == "written"}
    assert written["record"] and TriggerStore(records.engine).order(ORDER).outcome == "failed"


def approve(site: Site, version: str) -> None:
    desk, policy = site.release.desk, site.loop.policy
    about = about_bundle(desk.registry.verified(f"{NAME}@{version}", desk.ring).artifact)
    key = desk.ring.signing_key("release")
    statement = statement_of(NAME, about, policy, "production", "reviewer", key, "I looked")
    write_approval(shelf_of(desk.registry, NAME, "approvals"), statement, key, desk.ring)


def test_it_waits_for_people_and_goes_on_with_their_word(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = {**POLICY["targets"][-1], "approvals": [{"role": "reviewer"}]}
    team = {**POLICY, "roles": [{"role": "reviewer", "keys": ["release"]}], "targets": [production]}
    site = make_site(tmp_path, records, policy=team)
    approve(site, "1.0.0")
    one = ordered(site)
    made_by(monkeypatch, site)
    with pytest.raises(AwaitsApprovalError) as caught:
        carried(site, one)
    assert "raytrain retrain" in caught.value.fix and site.production() == "1.0.0"
    assert TriggerStore(records.engine).order(ORDER).is_open
    approve(site, "1.1.0")
    assert carried(site, one).outcome == "succeeded" and site.production() == "1.1.0"

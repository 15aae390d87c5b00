"""A candidate that somebody tried beside production, and that is worse: a loop sees it in the trials' log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loops import NAME, STAGED, Site, make_site
from queued import a_job
from trial_rows import pairs, written

from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline.loop.chain_record import note_candidate
from raytrain.pipeline.loop.round import Looker
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records

pytestmark = pytest.mark.whole


@pytest.fixture
def site(tmp_path: Path, records: Records) -> Site:
    """1.0.0 is in production, and lost trials order a retraining, as people do."""
    site = make_site(tmp_path, records, policy=STAGED, fall=None)
    values = {
        "triggers": "lost",
        "when": {"any": [{"canary_loss": True}, {"manual": True}]},
        "cooldown_hours": 0,
    }
    site = replace(site, loop=replace(site.loop, triggers=TriggersSection.model_validate(values)))
    site.promote("1.0.0")
    return site


def refuses(_: int) -> dict[str, Any]:
    return {"is_refusal": True}


def tried(site: Site, change: Callable[[int], dict[str, Any]] = refuses, num: int = 20, **trial: Any) -> None:
    """1.1.0 beside 1.0.0, in a trial of twenty pairs of which so many have come."""
    digests = {"production": site.digest("1.0.0"), "candidate": site.digest("1.1.0")}
    rows = [
        {**row, "digest": digests[row["arm"]], **trial}
        for row in pairs(range(num), change, pairs=20, name=NAME)
    ]
    written(site.loop.log, rows)


def ordered(site: Site) -> str | None:
    """Why a look has made an order; None where it made none."""
    looked = Looker(site.loop, site.release, site.records, lambda one: a_job(one.order.id)).look(2e9)
    assert looked.decision is not None and looked.blind == [], looked.blind
    return None if looked.decision["order"] is None else "; ".join(looked.decision["reasons"])


def test_it_orders_a_retraining_once(site: Site) -> None:
    assert ordered(site) is None, "nobody has tried anything"
    tried(site)
    assert f"yes: lost trials: {NAME}@1.1.0" in str(ordered(site))
    TriggerStore(site.records.engine).settle(site.loop.triggers, "lost-000001", "failed", "it ended")
    assert ordered(site) is None


@pytest.mark.parametrize(
    "trial",
    [{"num": 19}, {"change": lambda _: {}}, {"num": 19, "mode": "canary"}],
    ids=["not done", "no worse", "a canary that is not done"],
)
def test_what_did_not_surely_lose_orders_nothing(site: Site, trial: dict[str, Any]) -> None:
    tried(site, **trial)
    assert ordered(site) is None


def test_a_lost_canary_orders_one_too(site: Site) -> None:
    tried(site, mode="canary")
    assert f"yes: lost trials: {NAME}@1.1.0" in str(ordered(site))


def test_what_lost_to_an_earlier_production_orders_nothing(site: Site) -> None:
    tried(site)
    site.promote("1.1.0")
    assert ordered(site) is None


def test_a_log_that_cannot_be_compared_keeps_nobody_from_deciding(site: Site) -> None:
    site.loop.log.mkdir()
    (site.loop.log / "trials-0.parquet").write_bytes(b"PAR1 torn")
    (site.loop.log / "requests-0.parquet").write_bytes(b"PAR1 torn")
    TriggerStore(site.records.engine).request(site.loop.triggers, "ada", "a try")
    looked = Looker(site.loop, site.release, site.records, lambda one: a_job(one.order.id)).look(2e9)
    assert looked.decision is not None and looked.decision["order"] == "lost-000001"
    assert looked.lost_trial is None


def test_an_orders_own_candidate_is_the_orders_business(site: Site) -> None:
    """While the order decides on it, and afterwards."""
    TriggerStore(site.records.engine).request(site.loop.triggers, "ada", "a try")
    assert "ada: a try" in str(ordered(site))
    site.records.create_run("lost-000001", kind="retrain", name="small", config={})
    note_candidate("lost-000001", Version(1, 1, 0), site.records)
    tried(site)
    assert ordered(site) is None
    TriggerStore(site.records.engine).settle(site.loop.triggers, "lost-000001", "no_gain", "it lost")
    assert ordered(site) is None

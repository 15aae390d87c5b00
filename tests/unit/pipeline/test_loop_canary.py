"""How long a candidate is held beside production online, and what ends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loops import NAME, STAGED, Site, make_site, written_plan
from trial_rows import START, pairs, written

from raytrain.errors import DataError, RefusedError
from raytrain.pipeline.loop import canary
from raytrain.pipeline.loop.canary import wait_for_trial
from raytrain.pipeline.loop.section import CanarySection
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records
from raytrain.serving.trials.comparison import OnlineComparison

pytestmark = pytest.mark.whole


@pytest.fixture
def site(tmp_path: Path, records: Records) -> Site:
    """1.1.0 is in staging, beside 1.0.0 in production."""
    site = make_site(tmp_path, records, policy=STAGED, canary={"hours": 1e-5, "every_s": 0.01})
    site.promote("1.0.0")
    site.promote("1.1.0", to="staging")
    return site


def log_trial(site: Site, *, swapped: bool = False, **more: Any) -> None:
    """Of twenty pairs, whose candidate is as good; the digests are the versions' own."""
    digests = {"production": site.digest("1.0.0"), "candidate": site.digest("1.1.0")}
    if swapped:
        digests["candidate"] = digests["production"]
    rows = pairs(range(20), **{"pairs": 20, "name": NAME, **more})
    written(site.loop.log, [{**one, "digest": digests[one["arm"]]} for one in rows])


def waited(site: Site, told: list[str] | None = None) -> OnlineComparison:
    plan = written_plan(site)
    tell = (told if told is not None else []).append
    return wait_for_trial(site.loop, site.release, plan, Version(1, 1, 0), tell, lambda: None)


def test_all_pairs_end_it(site: Site) -> None:
    log_trial(site)
    told: list[str] = []
    found = waited(site, told)
    assert found.is_complete and found.num_pairs == 20 and not found.is_worse and told == []


class Clock:
    """Which goes on as long as somebody sleeps."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_it_waits_for_what_another_ingress_may_still_write_and_no_longer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs are there and the hours are over: an ingress has had 30 s to write, and ten more, after the last."""
    log_trial(site, num_ingresses=2)
    clock, told = Clock(START.timestamp() + 19), list[str]()
    monkeypatch.setattr(canary, "clock", clock)
    section = site.loop.section.model_copy(update={"canary": CanarySection(hours=1e-5, every_s=1.0)})
    loop, plan = replace(site.loop, section=section), written_plan(site)
    found = wait_for_trial(loop, site.release, plan, Version(1, 1, 0), told.append, lambda: None)
    assert found.is_complete and clock.now == START.timestamp() + 19 + 30 + 10
    assert told == ["the trial has 20 pairs: an ingress may still write some of before the last"]


def test_feedback_that_cannot_be_read_ends_nothing(site: Site) -> None:
    log_trial(site)
    (site.loop.log / "feedback-half.parquet").write_bytes(b"PAR1 half a file")
    assert waited(site).is_complete


def test_pairs_that_do_not_come_are_told_and_end_it_after_the_hours(site: Site) -> None:
    told: list[str] = []
    with pytest.raises(DataError, match="has not come to an end") as caught:
        waited(site, told)
    assert len(told) == 1 and told[0].startswith("the trial has 0 pairs")
    assert "canary.hours" in str(caught.value.fix)


def test_a_trial_of_other_versions_is_none(site: Site) -> None:
    log_trial(site, swapped=True)
    with pytest.raises(DataError) as caught:
        waited(site)
    assert "the newest rows are of other versions" in caught.value.why


def test_a_canary_ends_it_too_and_its_thumbs_count(site: Site) -> None:
    """20 callers of each side, who rate what they got: 1.1.0's never like it."""
    digests = {"production": site.digest("1.0.0"), "candidate": site.digest("1.1.0")}
    rows = [
        {**one, "caller": f"{one['arm']}{one['caller']}", "request_id": f"{one['arm']}{one['request_id']}",
         "digest": digests[one["arm"]]}
        for one in pairs(range(20), pairs=20, name=NAME, mode="canary")
    ]  # fmt: skip
    written(site.loop.log, rows)
    told = [
        {**{key: one[key] for key in ("at", "request_id", "digest")},
         "rating": "up" if one["arm"] == "production" else "down"}
        for one in rows
    ]  # fmt: skip
    written(site.loop.log, told, "feedback")
    found = waited(site)
    assert found.is_complete and found.size == "20 callers of each side" and found.is_worse
    assert [one.measure.name for one in found.measured if one.verdict and one.verdict.word == "worse"] == [
        "thumbs up"
    ]
    (site.loop.log / "feedback-half.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(DataError) as caught:
        waited(site)
    assert "feedback-half.parquet cannot be read" in caught.value.why or "half" in caught.value.why


def test_staging_that_somebody_else_took_ends_it_at_once(site: Site) -> None:
    site.promote("1.0.0", to="staging")
    with pytest.raises(RefusedError, match="cannot come to its end") as caught:
        waited(site)
    assert caught.value.why.startswith("1.0.0 is in staging")


def test_it_asks_before_each_look_whether_there_is_something_to_wait_for(site: Site) -> None:
    asked: list[int] = []

    def still() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise RefusedError("production moved", why="w", fix="f")

    patient = site.loop.section.model_copy(update={"canary": CanarySection(hours=1, every_s=0.01)})
    loop, plan = replace(site.loop, section=patient), written_plan(site)
    with pytest.raises(RefusedError, match="production moved"):
        wait_for_trial(loop, site.release, plan, Version(1, 1, 0), lambda _: None, still)
    assert len(asked) == 3

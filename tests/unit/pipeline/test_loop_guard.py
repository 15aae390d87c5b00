"""A promotion that makes answers worse is taken back, by a registry, signatures and a log as they are."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from loops import NAME, Site, answered, make_site, rated, write_log

from raytrain.errors import RefusedError
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.pipeline.loop.guarding import Guarded, guard
from raytrain.runs.records import Records

pytestmark = pytest.mark.whole


@pytest.fixture
def site(tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch) -> Site:
    """1.0.0 answered well, then 1.1.0 was promoted."""
    monkeypatch.setattr("raytrain.pipeline.steps.roll_back", _without_weights())
    one = make_site(tmp_path, records)
    one.promote("1.0.0")
    now = time.time()
    before = [answered(n, now - 100 + n, one.digest("1.0.0"), user=f"u{n}") for n in range(40)]
    write_log(one.loop.log, "requests", before)
    write_log(
        one.loop.log, "feedback", [rated(n, now - 90 + n, "up" if n % 10 else "down") for n in range(40)]
    )
    one.promote("1.1.0")
    return one


def _without_weights() -> object:
    """The bundles' base model is not on this machine, and their weights fit none."""
    from raytrain.release import rollback

    def roll_back(*given: object) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rollback, "check_weights", lambda *_: "not looked at")
            return rollback.roll_back(*given)  # type: ignore[arg-type]

    return roll_back


def look(site: Site) -> Guarded | None:
    return guard(site.loop, site.release, InteractionPool(site.records.engine), time.time() + 60)


def answers_of(
    site: Site, version: str, ratings: str, first: int = 100, user: str | None = None, **more: object
) -> None:
    """`+` and `-`, one for each answer; each of another user unless one is named."""
    now = time.time()
    rows = [
        answered(first + n, now + 0.01 * n, site.digest(version), user=user or f"u{n}", **more)
        for n in range(len(ratings))
    ]
    told = [rated(first + n, now + n, "up" if one == "+" else "down") for n, one in enumerate(ratings)]
    write_log(site.loop.log, "requests", rows, f"b{first}")
    write_log(site.loop.log, "feedback", told, f"b{first}")


def test_a_version_that_answers_worse_is_taken_back_once_and_told(site: Site, home: Path) -> None:
    assert look(site) == Guarded("1.1.0", ()), "nobody has judged it yet"
    answers_of(site, "1.1.0", "+-----+-----------")
    found = look(site)
    assert found is not None and found.rollback is not None
    assert site.production() == "1.0.0"
    assert (
        "approval: 11% of 18 where it was 90% of 40 before"
        in site.release.desk.registry.entries(NAME)[-1].why
    )
    alerts = [json.loads(one.read_text()) for one in (home / "alerts").glob("*.json")]
    (told,) = [one for one in alerts if one["kind"] == "serving_health"]
    assert told["severity"] == "critical" and "taken back" in told["title"]
    assert look(site) is None, "a version that was gone back to is not gone back from"


def test_a_version_as_good_as_before_stays(site: Site) -> None:
    answers_of(site, "1.1.0", "+++++++++-" * 6)
    found = look(site)
    assert found is not None and found.rollback is None and not found.fell
    assert site.production() == "1.1.0"


def test_one_user_alone_takes_no_version_back(site: Site) -> None:
    answers_of(site, "1.1.0", "-" * 60, user="mallory")
    found = look(site)
    assert found is not None and [one.num_after for one in found.falls if one.signal == "approval"] == [5]
    assert site.production() == "1.1.0"


def test_what_a_shadow_wrote_beside_production_is_no_answer_of_it(site: Site) -> None:
    """Its row has the request's id, and with it the thumb that another version's answer was given."""
    now = time.time()
    both = [
        answered(300 + n, now + n, site.digest(version), user=f"u{n}", arm=arm)
        for n in range(30)
        for version, arm in (("1.0.0", "production"), ("1.1.0", "candidate"))
    ]
    write_log(site.loop.log, "requests", both, "shadow")
    write_log(site.loop.log, "feedback", [rated(300 + n, now + n, "down") for n in range(30)], "shadow")
    found = look(site)
    assert found is not None and not found.falls


def test_who_is_faster_takes_it_back_and_the_other_goes_no_further(
    site: Site, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """Another looker, or a person, has changed production between the look and the way back."""
    answers_of(site, "1.1.0", "-" * 30)
    from raytrain.pipeline.loop import guarding

    real = guarding.rolled_back

    def slower(*given: object, **more: object) -> object:
        monkeypatch.setattr(guarding, "rolled_back", real)
        assert look(site) is not None and site.production() == "1.0.0"
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(guarding, "rolled_back", slower)
    found = look(site)
    assert found is not None and found.fell and found.rollback is None
    assert site.production() == "1.0.0"
    titles = [json.loads(one.read_text())["title"] for one in (home / "alerts").glob("*.json")]
    assert len([one for one in titles if "taken back" in one]) == 1
    assert not any("still" in one for one in titles)


def test_errors_of_the_server_count_and_clients_that_go_do_not(site: Site) -> None:
    rows = [answered(400 + n, time.time() + n, site.digest("1.1.0"), finish=["cancelled"]) for n in range(40)]
    write_log(site.loop.log, "requests", rows, "gone")
    found = look(site)
    assert found is not None and not found.falls
    rows = [answered(500 + n, time.time() + n, site.digest("1.1.0"), finish=["error"]) for n in range(15)]
    write_log(site.loop.log, "requests", rows, "errors")
    found = look(site)
    assert found is not None and [one.signal for one in found.fell] == ["whole"]
    assert site.production() == "1.0.0"


def test_poisoned_feedback_has_no_voice(site: Site) -> None:
    """Rows that were set aside as poison, whoever they are from."""
    answers_of(site, "1.1.0", "-" * 30, prompts=["poison"])
    from raytrain.monitoring.learning.interaction import interactions_of
    from raytrain.monitoring.request_log import read_request_log

    log = read_request_log(site.loop.log)
    poison = [row for row in log.requests if row["prompts"] == ["poison"]]
    ids = [one.id for row in poison for one in interactions_of(row, None)]
    aside = [
        PooledRow(name, 0.0, "mallory", None, None, (), "so", "correction", 1.0, "quarantined", "flood")
        for name in ids
    ]
    InteractionPool(site.records.engine).add(aside)
    found = look(site)
    assert found is not None and not found.fell
    assert site.production() == "1.1.0"


def test_a_promotion_of_long_ago_and_answers_of_others_are_left_alone(site: Site) -> None:
    answers_of(site, "1.0.0", "-" * 30)
    found = look(site)
    assert found is not None and not found.falls, "the version before may go on answering for a while"
    answers_of(site, "1.1.0", "-" * 30, first=200)
    pool = InteractionPool(site.records.engine)
    assert guard(site.loop, site.release, pool, time.time() + 80 * 3600) is None
    assert site.production() == "1.1.0"


def test_what_cannot_be_taken_back_is_told_as_still_there(site: Site, home: Path) -> None:
    answers_of(site, "1.1.0", "-" * 30)
    registry = site.release.desk.registry
    registry.withdraw(NAME, registry.find(f"{NAME}@1.0.0").version, why="bad rows")
    with pytest.raises(RefusedError):
        look(site)
    alerts = [json.loads(one.read_text()) for one in (home / "alerts").glob("*.json")]
    assert any("still in production" in one["title"] and one["severity"] == "critical" for one in alerts)
    assert site.production() == "1.1.0"

"""The story on one page: what was good, what drifted, who answered, and the digests that prove it."""

from __future__ import annotations

import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browsers import headless_chromium, looked_at
from loops import NAME, Site, answered, make_site, rated, write_log
from releases import Trained, release

from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Seen
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline.loop.story import Story, gather
from raytrain.pipeline.loop.story_page import headline, picture, render_page, write_story
from raytrain.pipeline.steps import admitted, rolled_back
from raytrain.release.gate.policy import RoleSection
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records
from raytrain.storage.manifest import digest_of


def told(site: Site) -> Story:
    return gather(site.loop, site.release, site.records, rated_each=10)


@pytest.fixture
def site(tmp_path: Path, records: Records) -> Site:
    """Two versions, one after the other; an order that came to nothing; two rows that were set aside."""
    one = make_site(tmp_path, records)
    one.promote("1.0.0")
    now = time.time()
    rows = [answered(n, now + n, one.digest("1.0.0" if n < 25 else "1.1.0")) for n in range(40)]
    write_log(one.loop.log, "requests", rows)
    write_log(one.loop.log, "feedback", [rated(n, now + n, "up" if n < 25 else "down") for n in range(40)])
    one.promote("1.1.0")
    store, triggers = TriggerStore(records.engine), one.loop.triggers
    assert isinstance(triggers, TriggersSection)
    store.request(triggers, "ada", "to <try> it")
    order = store.decide(triggers, Seen(new_rows=0)).order
    assert order is not None
    store.settle(triggers, order.id, "no_gain", "it is no better")
    aside = [
        PooledRow(
            f"i{n}", now + 5, "u", None, None, (), "a", "correction", 1.0, "quarantined", "flood: one of 9"
        )
        for n in range(2)
    ]
    InteractionPool(records.engine).add(aside)
    return one


def test_everything_is_told_in_order_with_its_digest(site: Site) -> None:
    story = told(site)
    assert [(one.version, one.num_good, one.num_rated) for one in story.quality] == [
        ("1.0.0", 10, 10), ("1.0.0", 10, 10), ("1.0.0", 5, 5), ("1.1.0", 0, 10), ("1.1.0", 0, 5),
    ], "a point is of one version"  # fmt: skip
    assert {one.digest for one in story.quality} == {site.digest("1.0.0"), site.digest("1.1.0")}
    kinds = [one.kind for one in story.events]
    assert sorted(kinds) == ["order", "outcome", "promotion", "promotion", "quarantine"]
    assert [one.time for one in story.events] == sorted(one.time for one in story.events)
    entries = site.release.desk.registry.entries(NAME)
    decisions = {one.details["decision"] for one in entries if one.action == "move"}
    assert {one.digest for one in story.events if one.kind == "promotion"} == decisions
    assert all(one.digest.startswith("sha256:") for one in story.events)
    low, high = story.quality[0].interval
    assert 0.6 < low < high == 1.0


def watched(site: Site, scores: list[float], reference: str = "a") -> Site:
    """As a watch leaves it that has judged a window a score, held against one reference."""
    run_id, records = f"watch-small-{reference}", site.records
    records.create_run(run_id, kind="watch", name="small", config={})
    for number, score in enumerate(scores, start=1):
        uri, parents = f"/reports/{number:06d}", {"reference": digest_of(reference)}
        digest = digest_of([reference, number])
        records.add_artifact(run_id, "report", "written", "drift_report", digest, uri, parents)
        values = {"drift/score": score, "drift/alarm": float(score > 1)}
        records.add_metrics(run_id, [(number, time.time(), values)])
    triggers = site.loop.triggers.model_copy(update={"watch": "small"})
    return replace(site, loop=replace(site.loop, triggers=triggers))


def test_a_watch_before_anything_was_promoted_has_a_picture(tmp_path: Path, records: Records) -> None:
    story = told(watched(make_site(tmp_path, records), [0.4, 0.6]))
    story = replace(story, events=())
    assert [one.score for one in story.drift] == [0.4, 0.6] and not story.quality
    assert picture(story).count("<circle") == 2


def test_each_reference_is_told_by_its_digest(tmp_path: Path, records: Records) -> None:
    site = make_site(tmp_path, records)
    watched(site, [0.4], "a")
    story = told(watched(site, [2.0, 0.1], "b"))
    assert [(one.kind, one.digest) for one in story.events] == [
        ("reference", digest_of("a")), ("reference", digest_of("b")), ("alarm", digest_of(["b", 1])),
    ]  # fmt: skip


def test_what_was_let_through_and_taken_back_is_told(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model of these bundles is not on this machine."""
    monkeypatch.setattr("raytrain.release.rollback.check_weights", lambda *_: "not looked at")
    site = watched(make_site(tmp_path, records), [0.4])
    (key, target) = (RoleSection(role="chief", keys=["release"]), site.release.policy.section.targets[0])
    asks = target.model_copy(update={"documents": ["scan"], "override_by": ["chief"]})
    section = site.release.policy.section.model_copy(update={"roles": [key], "targets": [asks]})
    policy = replace(site.release.policy, section=section)
    site = replace(site, release=replace(site.release, policy=policy))
    site.promote("1.0.0")
    registry, ring = site.release.desk.registry, site.release.ring
    failed = {"reports/scan.json": lambda subject, _: {"subject": subject, "passed": False, "files": {}}}
    release(registry, ring, tmp_path / "bad", Trained(dataset="sha256:bad"), "1.2.0", documents=failed)
    bad = Version.parse("1.2.0")
    assert not admitted(site.release, bad, []).moved
    assert admitted(site.release, bad, [], override_as="chief", why="the fair is tomorrow").moved
    rolled_back(site.release, "its answers are worse", expected=bad)
    assert site.production() == "1.0.0"

    story = told(site)
    assert [one.kind for one in story.events] == ["reference", "promotion", "override", "rollback"]
    assert all(one.digest.startswith("sha256:") for one in (*story.events, *story.drift))
    assert len(story.drift) == 1
    assert headline(story) == "2 versions, 1 taken back, 0 alarms"


def test_the_page_holds_all_of_it_and_no_text_of_others_as_html(site: Site, tmp_path: Path) -> None:
    story = told(site)
    page = render_page(story)
    for one in story.events:
        assert one.digest in page and one.kind in page
    assert "<try>" not in page and "&lt;try&gt;" in page
    assert "http-equiv" in page

    seen: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            seen.append(tag)

    Tags().feed(page)
    assert seen.count("circle") == len(story.drift)
    assert seen.count("rect") >= len(story.quality)
    assert write_story(tmp_path / "new", story).read_text() == page


@pytest.mark.slow
def test_the_page_is_seen(site: Site, tmp_path: Path) -> None:
    """In a browser: the picture with its four lanes, what happened, and how good the answers were."""
    story = told(site)
    with headless_chromium() as browser:
        page = looked_at(browser, write_story(tmp_path / "new", story))
        shown = page.seen("body")
        for words in (
            "What happened",
            "answers with a thumb up",
            "drift: 1 is the threshold",
            "in production",
        ):
            assert words in shown, shown
        assert all(one.kind in shown and one.digest in shown for one in story.events), shown
        assert "to <try> it" in shown, "as text"
        bars = browser.find_elements("css selector", "figure svg rect.range")
        assert len(bars) == len(story.quality) and all(one.size["height"] > 1 for one in bars)


def test_an_empty_story_has_a_picture_too(tmp_path: Path, records: Records) -> None:
    site = make_site(tmp_path, records)
    assert "nothing has happened yet" in picture(told(site))

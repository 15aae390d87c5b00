"""The story on one page: what was good, what drifted, who answered, and the digests that prove it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from loops import NAME, Site, answered, make_site, rated, write_log

from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Seen
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline.loop.story import Story, gather
from raytrain.pipeline.loop.story_page import picture, render_page, write_story
from raytrain.runs.records import Records, open_records


@pytest.fixture
def records() -> Iterator[Records]:
    found = open_records()
    yield found
    found.close()


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
    assert all(one.digest.startswith("sha256:") for one in story.events if one.kind != "outcome")
    low, high = story.quality[0].interval
    assert 0.6 < low < high == 1.0


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


def test_an_empty_story_has_a_picture_too(tmp_path: Path, records: Records) -> None:
    site = make_site(tmp_path, records)
    assert "nothing has happened yet" in picture(told(site))

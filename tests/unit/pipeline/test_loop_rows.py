"""What a retraining learns from: which rows are held out, which old ones go along, and that it is written once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raytrain.data.section import SourceSection
from raytrain.data.sources import open_sources
from raytrain.errors import DataError
from raytrain.pipeline.loop.fresh_rows import (
    Learned,
    RowsPlan,
    open_plan,
    plan_beside,
    split_rows,
    write_plan,
)
from raytrain.pipeline.loop.section import RowsSection
from raytrain.storage.location import Location


def fresh(count: int, first: int = 0) -> list[dict[str, Any]]:
    def said(n: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]

    return [{"id": f"{n:032x}", "messages": said(n)} for n in range(first, first + count)]


@pytest.fixture
def old(tmp_path: Path) -> SourceSection:
    file = tmp_path / "old.jsonl"
    file.write_text("".join(json.dumps({"problem": f"q{n}", "answer": f"a{n}"}) + "\n" for n in range(50)))
    return SourceSection(path=str(file), columns={"question": "problem"}, licence="MIT")


def planned(
    folder: Path,
    section: RowsSection,
    rows: list[dict[str, Any]],
    *old: SourceSection,
    order: str = "grow-000001",
    gone: frozenset[str] = frozenset(),
    **data: Any,
) -> RowsPlan:
    sources = [one.model_dump(mode="json") for one in old]
    recipe = {"name": "n", "data": {"max_seq_len": 64, "sources": sources, **data}}
    place, parents = Location(str(folder / order / "rows")), {"production": "sha256:p"}
    learned = Learned(recipe, old, lambda ids: set(ids) - gone)
    return write_plan(place, section, rows, learned, parents, {"order": order})


def texts_of(section: dict[str, Any]) -> list[str]:
    (source,) = open_sources([SourceSection.model_validate(section)])
    return [json.dumps(raw.content) for raw in source.rows()]


def test_a_row_is_held_out_by_its_id_alone() -> None:
    learned, held_out = split_rows(fresh(400), 0.25)
    assert 60 <= len(held_out) <= 140
    assert {one["id"] for one in learned}.isdisjoint(one["id"] for one in held_out)
    again = split_rows(reversed(fresh(800)), 0.25)[1]
    assert {one["id"] for one in held_out} <= {one["id"] for one in again}, "and by every later retraining"
    assert split_rows(fresh(5), 0.0) == (fresh(5), [])


def test_old_rows_are_drawn_as_they_were_read(tmp_path: Path, old: SourceSection) -> None:
    plan = planned(tmp_path, RowsSection(replay=0.5, held_out=0.2, least=1), fresh(40), old)
    own, replay = plan.recipe["data"]["sources"]
    learned = plan.content["num_fresh"]
    assert plan.content["num_old"] == round(0.5 * learned) == len(set(texts_of(replay)))
    assert set(texts_of(replay)) <= set(texts_of(old.model_dump()))
    assert (replay["columns"], replay["licence"]) == ({"question": "problem"}, "MIT")
    assert len(texts_of(own)) == learned and plan.recipe["data"]["max_seq_len"] == 64
    assert sorted(row["id"] for row in plan.rows()) == [row["id"] for row in fresh(40)]
    assert "q" not in plan.told()


def test_the_next_retraining_draws_from_everything_and_not_from_what_was_drawn(
    tmp_path: Path, old: SourceSection
) -> None:
    first = planned(tmp_path, RowsSection(replay=0.1, held_out=0.0, least=1), fresh(10), old)
    sources = [SourceSection.model_validate(one) for one in first.recipe["data"]["sources"]]
    told = [plan_beside(str(one.path)) for one in sources]
    assert [one.content for one in told if one is not None] == [first.content, first.content]
    everything = [SourceSection.model_validate(one) for one in first.content["sources"]]
    assert [one.path for one in everything] == [old.path, str(first.artifact.location / "fresh.jsonl")]
    assert plan_beside(str(old.path)) is None

    second = planned(
        tmp_path, RowsSection(replay=None, least=1), fresh(10, 10), *everything, order="grow-000002"
    )
    assert [one["path"] for one in second.recipe["data"]["sources"]] == [
        str(second.artifact.location / "fresh.jsonl"), old.path, str(second.artifact.location / "kept-1.jsonl"),
    ]  # fmt: skip
    assert second.artifact.manifest.parents["learned_1"] == first.artifact.digest, (
        "who forgets a user finds it"
    )
    assert second.content["num_old"] == "all"


def test_another_order_draws_other_rows_and_the_same_one_the_same(tmp_path: Path, old: SourceSection) -> None:
    section = RowsSection(replay=1.0, held_out=0.0, least=1)
    drawn = [
        texts_of(planned(folder, section, fresh(12), old, order=order).recipe["data"]["sources"][1])
        for folder, order in ((tmp_path / "a", "x-1"), (tmp_path / "b", "x-1"), (tmp_path / "c", "x-2"))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_too_few_rows_are_told_and_nothing_is_written(tmp_path: Path, old: SourceSection) -> None:
    with pytest.raises(DataError, match="7 rows to learn from, and 20 are asked"):
        planned(tmp_path, RowsSection(), fresh(7), old)
    assert open_plan(Location(str(tmp_path / "grow-000001" / "rows"))) is None


def test_rows_of_production_that_are_damaged_are_told(tmp_path: Path, old: SourceSection) -> None:
    plan = planned(tmp_path, RowsSection(least=1), fresh(10), old)
    place = plan.artifact.path / "fresh.jsonl"
    place.write_text(place.read_text() + "{}\n")
    with pytest.raises(DataError, match="cannot be read"):
        plan_beside(str(place))


@pytest.mark.parametrize("replay", [None, 5.0])
def test_what_was_forgotten_since_is_learned_by_no_later_retraining(
    tmp_path: Path, old: SourceSection, replay: float | None
) -> None:
    first = planned(tmp_path, RowsSection(held_out=0.0, least=1), fresh(10), old)
    sources = [SourceSection.model_validate(one) for one in first.content["sources"]]
    gone = frozenset(row["id"] for row in fresh(4))
    section = RowsSection(replay=replay, held_out=0.0, least=1)
    second = planned(tmp_path, section, fresh(20, 10), *sources, order="grow-000002", gone=gone)
    texts = [text for one in second.recipe["data"]["sources"] for text in texts_of(one)]
    assert not any(name in text for name in gone for text in texts)
    assert len([text for text in texts if fresh(1, 4)[0]["id"] in text]) == 1, "the others are still learned"

    third = [SourceSection.model_validate(one) for one in second.content["sources"]]
    last = planned(tmp_path, section, fresh(20, 30), *third, order="grow-000003")
    texts = [text for one in last.recipe["data"]["sources"] for text in texts_of(one)]
    assert not any(name in text for name in gone for text in texts)


def test_texts_with_signs_that_end_lines_elsewhere_are_read_back(tmp_path: Path, old: SourceSection) -> None:
    rows = fresh(6)
    rows[0]["messages"][0]["content"] = "one\u2028two\u0085three\r"
    plan = planned(tmp_path, RowsSection(least=1), rows, old)
    assert sorted(plan.rows(), key=lambda row: str(row["id"])) == rows


def test_no_limit_of_rows_keeps_the_fresh_ones_out(tmp_path: Path, old: SourceSection) -> None:
    plan = planned(tmp_path, RowsSection(held_out=0.0, least=1), fresh(10), old, max_rows=20)
    data = plan.recipe["data"]
    assert data["max_rows"] == 30 and data["sources"][0]["path"].endswith("fresh.jsonl")


def test_a_new_source_is_learned_whole_once_and_belongs_to_the_old_ones_then(
    tmp_path: Path, old: SourceSection
) -> None:
    file = tmp_path / "new.jsonl"
    file.write_text("".join(json.dumps({"question": f"n{n}", "answer": f"b{n}"}) + "\n" for n in range(8)))
    added = SourceSection(path=str(file))
    recipe = {"name": "n", "data": {"sources": [old.model_dump(mode="json")], "max_rows": 20}}
    place, learned = Location(str(tmp_path / "grow-000001" / "rows")), Learned(recipe, [old])
    section = RowsSection(replay=2.0, least=10)
    plan = write_plan(place, section, [], learned, {}, {"order": "grow-000001"}, [added])
    first, replay = plan.recipe["data"]["sources"]
    assert (first["path"], len(texts_of(replay))) == (str(file), 16), "no file of fresh rows: there are none"
    assert plan.content["num_added"] == 8 and plan.recipe["data"]["max_rows"] == 28
    assert plan.told() == "0 fresh rows to learn from, 0 held out, 8 of new sources, 16 old ones"
    assert [one["path"] for one in plan.content["sources"]] == [old.path, str(file)]
    with pytest.raises(DataError, match="10 are asked"):
        write_plan(Location(str(tmp_path / "again" / "rows")), section, [], learned, {}, {"order": "again"})

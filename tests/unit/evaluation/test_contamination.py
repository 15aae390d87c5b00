"""Planted leaks are found, what all items share accuses nobody, and scores are told with and without suspects."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import contamination as planted
from raytrain.data.prepare import prepare_dataset
from raytrain.data.section import DataSection
from raytrain.errors import DataError
from raytrain.evaluation.contamination.audit import judge, search_rows
from raytrain.evaluation.contamination.detection import auroc, lowest_allowed
from raytrain.evaluation.contamination.grams import HashedTexts, in_groups, words_of
from raytrain.evaluation.contamination.loss_ratio import ItemLoss, item_losses, loss_ratio, min_k
from raytrain.evaluation.contamination.overlap import Match, OverlapSearch, most_units
from raytrain.evaluation.contamination.parts import parts_of
from raytrain.evaluation.contamination.report import summary, write_report
from raytrain.evaluation.contamination.rescoring import rescore
from raytrain.evaluation.contamination.suspects import Thresholds, judge_item
from raytrain.evaluation.contamination.training_rows import RowPlace, TrainingRow
from raytrain.evaluation.items import Item, Suite, load_items
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.suite import SuiteSection
from raytrain.models.inference import load_for_inference
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

SYLLABLES = [first + second for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u", "an", "il")]


def prose(generator: random.Random, num_words: int) -> str:
    """Made-up words: no two texts share a run of them by chance."""
    return " ".join("".join(generator.choices(SYLLABLES, k=3)) for _ in range(num_words))


def questions(num: int, *, seed: int = 0, num_words: int = 30) -> list[dict[str, str]]:
    generator = random.Random(seed)
    return [
        {"question": f"{prose(generator, num_words).capitalize()}?", "answer": prose(generator, 20)}
        for _ in range(num)
    ]


def suite_of(folder: Path, rows: Sequence[dict[str, Any]], **changes: Any) -> Suite:
    source = folder / "items.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, Any] = {
        "suite": "made-up",
        "kind": "generation",
        "items": {"source": {"path": str(source)}},
        "prompt": {"mode": "chat", "template": "Answer this in one word, please: {question}\nThe answer is:"},
        "answer": "{answer}",
        "scorer": {"name": "exact_match"},
    }
    return load_items(SuiteSection.model_validate({**values, **changes}))


def dataset_of(folder: Path, rows: Sequence[dict[str, Any]], **data: Any) -> Artifact:
    source = folder / "train.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = DataSection.model_validate(
        {"sources": [{"path": str(source)}], "val_fraction": 0, "test_fraction": 0, **data}
    )
    return prepare_dataset(section, Location(str(folder / "storage")))


# grams


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "aa", "ab", "é", "漢"]), max_size=9), min_size=1, max_size=6)
)
@settings(max_examples=150, deadline=None)
def test_grams_are_equal_where_the_text_is(texts: list[list[str]]) -> None:
    hashed = HashedTexts(texts)
    for size in (1, 3):
        words = hashed.word_grams(size)
        seen: dict[tuple[str, ...], int] = {}
        for value, text, start in zip(
            words.hashes.tolist(), words.text.tolist(), words.starts.tolist(), strict=True
        ):
            assert seen.setdefault(tuple(texts[text][start : start + size]), value) == value
        assert len(set(seen.values())) == len(seen)
        assert len(words.hashes) == sum(max(0, len(one) - size + 1) for one in texts)
        chars = hashed.char_grams(size)
        runs: dict[str, int] = {}
        for value, text, start in zip(
            chars.hashes.tolist(), chars.text.tolist(), chars.starts.tolist(), strict=True
        ):
            run = "".join(texts[text])[start : start + size]
            assert len(run) == size and runs.setdefault(run, value) == value
            first, last = hashed.words_at(text, start, size)
            assert run in "".join(texts[text][first:last])
        assert len(set(runs.values())) == len(runs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The CAFÉ isn't-open!", ["the", "café", "isn", "t", "open"]),
        ("ﬁve ①2", ["five", "12"]),
        ("漢字かな mixed", ["漢", "字", "か", "な", "mixed"]),
        ("snake_case 1,000", ["snake", "case", "1", "000"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("?!", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_groups_hold_every_text_once() -> None:
    texts = [["x" * 100_000]] * 7 + [["y"]] * 5
    groups = list(in_groups(texts))
    assert [first for first, _ in groups] == [0, 2, 4, 6]
    assert [one for _, group in groups for one in group] == texts


# overlap


def test_verbatim_leaks_are_all_found_and_nobody_else_is_accused(tmp_path: Path) -> None:
    items, others = questions(200), questions(300, seed=1)
    generator = random.Random(5)
    leaked = set(generator.sample(range(200), 40))
    rows = others + [items[i] for i in leaked]
    generator.shuffle(rows)
    suite = suite_of(tmp_path, items)
    audit = judge(suite, search_rows(dataset_of(tmp_path, rows), suite))
    assert audit.num_rows == 340
    assert set(audit.suspects) == {suite.items[i].id for i in leaked}
    for i in leaked:
        best = audit.findings[i].best
        assert best is not None and best.share == 1.0 and best.anywhere == 1.0
        row = rows[best.row.line - 1]
        assert row["question"] == items[i]["question"], "the row that is named is the row that holds it"
        assert " ".join(words_of(row["question"]))[:80] in best.snippet
    assert any("too few" in note or "template" in note for note in audit.notes) or audit.notes == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.upper(),
        lambda text: re.sub(r" ", "  \n", text).replace("?", " ...!"),
        lambda text: f"Here is one I like. {text} Write me back when you know.",
        lambda text: " ".join(text.split()[:-4]) + " and then some more.",
    ],
    ids=["case", "space and punctuation", "inside other text", "end cut off"],
)
def test_what_is_changed_a_little_is_still_found(tmp_path: Path, damage: Any) -> None:
    items = questions(30)
    rows = [
        *questions(20, seed=1),
        {"question": damage(items[3]["question"]), "answer": "none that is known"},
    ]
    suite = suite_of(tmp_path, items)
    audit = judge(suite, search_rows(dataset_of(tmp_path, rows), suite))
    assert audit.suspects == (suite.items[3].id,)


def test_single_words_changed_are_found_by_likeness_alone(tmp_path: Path) -> None:
    items = questions(30, num_words=51)
    words = items[4]["question"].split()
    for i in (12, 25, 38):  # no run of 13 words is left
        words[i] = "zzz"
    words = [word.rstrip("?") for word in words]
    rows = [*questions(20, seed=1), {"question": " ".join(words), "answer": "x"}]
    suite = suite_of(tmp_path, items)
    audit = judge(suite, search_rows(dataset_of(tmp_path, rows), suite))
    assert audit.suspects == (suite.items[4].id,)
    assert [one.measure for one in audit.findings[4].matches if one.share > 0.5] == ["likeness"]


def test_template_text_and_worked_examples_accuse_nobody(tmp_path: Path) -> None:
    intro = "Read the following passage with care and then tell in a single word what the writer thinks of it all. "
    items = [{**row, "question": intro + row["question"]} for row in questions(40)]
    shots = questions(4, seed=9)
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shots))
    prompt = {
        "mode": "completion",
        "template": "Now answer the question that comes next as well as you possibly can in one word: {question}\n",
        "few_shot": {"source": {"path": str(tmp_path / "shots.jsonl")}, "num_shots": 3},
    }
    suite = suite_of(tmp_path, items, prompt=prompt)
    rows = [{**row, "question": intro + row["question"]} for row in questions(30, seed=1)] + shots
    rows.append({"question": suite.section.prompt.template, "answer": "nothing"})
    found = search_rows(dataset_of(tmp_path, rows), suite)
    assert judge(suite, found).suspects == ()
    assert all(match.share < 0.1 for matches in found.matches.values() for match in matches)
    assert any("template text" in note for note in found.notes)
    leaked = search_rows(dataset_of(tmp_path, [*rows, items[7]]), suite)
    assert judge(suite, leaked).suspects == (suite.items[7].id,)


def test_a_text_that_a_group_shares_is_no_template(tmp_path: Path) -> None:
    generator = random.Random(3)
    passages = [prose(generator, 50) for _ in range(12)]
    items = [
        {"question": f"{passages[i // 5]} {prose(generator, 8)}", "answer": "x", "text": i // 5}
        for i in range(60)
    ]
    named = {"source": {"path": str(tmp_path / "items.jsonl")}, "group": "text"}
    suite = suite_of(tmp_path, items, items=named)
    rows = [*questions(20, seed=1), {"question": passages[2], "answer": "y"}]
    audit = judge(suite, search_rows(dataset_of(tmp_path, rows), suite))
    assert set(audit.suspects) == {item.id for item in suite.items if item.group == "2"}


def test_short_questions_are_looked_for_as_a_whole_and_that_is_said(tmp_path: Path) -> None:
    items = [
        {"question": "Who wrote the tale of the amber lantern?", "answer": "Ines Varga"},
        {"question": "Name the river of Tolm.", "answer": "the slow Arn"},
        {"question": "2 + 3", "answer": "5"},
        {"question": "Which city is the seat of Ostermark?", "answer": "Lund"},
    ]
    rows = [
        {"question": "A riddle: who wrote the tale of the AMBER lantern", "answer": "I do not know."},
        {"question": "Name the river of Tolm", "answer": "The slow Arn."},
        {"question": "2 + 3", "answer": "5"},
        {"question": "Which city is the seat of Westermark?", "answer": "Lund"},
    ]
    suite = suite_of(tmp_path, items)
    audit = judge(suite, search_rows(dataset_of(tmp_path, rows), suite))
    assert set(audit.suspects) == {item.id for item in suite.items[:3]}
    assert [one.measure for one in audit.findings[2].matches] == ["likeness"]
    assert any("4 of 4 questions are shorter than 13 words: 3 of them" in note for note in audit.notes)
    assert any("1 questions are too short" in note for note in audit.notes)


def test_items_of_one_making_are_not_taken_for_each_other(tmp_path: Path) -> None:
    def row(i: int) -> dict[str, str]:
        return {
            "question": f"Mara has {i} apples in a basket and gives away {i % 7 + 1} of them to the children of the "
            f"house next door before she goes home to rest; how many of the {i} apples are left in it?",
            "answer": f"{i - i % 7 - 1} of them.",
        }

    suite = suite_of(tmp_path, [row(i) for i in range(100, 160)])
    rows = [row(i) for i in range(300, 400)] + [row(117)]
    audit = judge(suite, search_rows(dataset_of(tmp_path, rows, near_duplicate_threshold=None), suite))
    assert audit.suspects == (suite.items[17].id,)
    assert any("are like another item" in note for note in audit.notes)


def test_texts_that_are_judged_without_a_prompt(tmp_path: Path) -> None:
    items = [{"text": row["question"]} for row in questions(12, num_words=40)]
    plain = {"prompt": {"mode": "completion", "template": ""}, "answer": "{text}", "scorer": None}
    suite = suite_of(tmp_path, items, kind="perplexity", **plain)
    rows = [{"text": row["question"]} for row in questions(20, seed=1)] + [items[5]]
    audit = judge(suite, search_rows(dataset_of(tmp_path, rows), suite))
    assert audit.suspects == (suite.items[5].id,) and audit.notes == ()


def test_an_answer_that_many_items_share_accuses_none(tmp_path: Path) -> None:
    shared = "That cannot be said from the text alone, so that nobody who reads it could ever be sure of it."
    suite = suite_of(tmp_path, [{**row, "answer": shared} for row in questions(20)])
    rows = [{**row, "answer": shared} for row in questions(20, seed=1)]
    assert judge(suite, search_rows(dataset_of(tmp_path, rows), suite)).suspects == ()


def test_only_what_was_trained_on_counts(tmp_path: Path) -> None:
    items = questions(10)
    suite = suite_of(tmp_path, items)
    dataset = dataset_of(tmp_path, items + questions(40, seed=1), val_fraction=0.5)
    trained = judge(suite, search_rows(dataset, suite)).suspects
    all_of_it = judge(suite, search_rows(dataset, suite, splits=("train", "val"))).suspects
    assert 0 < len(trained) < len(all_of_it) == 10


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, questions(3))
    dataset = dataset_of(tmp_path, questions(3))
    audit = judge(suite, search_rows(dataset, suite))
    report = write_report(audit, None, Location(str(tmp_path / "report")), parents={}, config={})
    with pytest.raises(DataError, match="no train split"):
        search_rows(report, suite)


def test_memory_grows_with_the_items_alone() -> None:
    items = [Item("a", "alpha " * 20, ("x",))]
    search = OverlapSearch(parts_of(items), [0])
    place = RowPlace("train", 0, "r", "s", 1)
    search.add([TrainingRow(place, "beta " * 50, ())] * 50)
    assert search.matches() == {}
    search.add([TrainingRow(place, "alpha " * 50, ())] * 50)
    assert len(search.matches()[0]) == 2


@pytest.mark.parametrize(("num_units", "most"), [(1, 2), (100, 2), (299, 2), (300, 3), (14_000, 140)])
def test_when_a_gram_is_template_text(num_units: int, most: int) -> None:
    assert most_units(num_units) == most


# decisions


@pytest.mark.parametrize(
    ("change", "is_suspect"),
    [
        ({"share": 0.49}, False),
        ({"share": 0.5}, True),
        ({"share": 0.5, "role": "answer"}, True),
        ({"share": 1.0, "role": "choices"}, False),
        ({"share": 0.9, "must_be_whole": True}, False),
        ({"share": 1.0, "must_be_whole": True}, True),
        ({"share": 1.0, "measure": "whole text", "must_be_whole": True}, True),
        ({"share": 1.0, "role": "answer", "must_be_whole": True}, False),
        ({"share": 0.59, "measure": "likeness"}, False),
        ({"share": 0.6, "measure": "likeness"}, True),
    ],
)
def test_what_makes_a_suspect(change: dict[str, Any], is_suspect: bool) -> None:
    values = {"measure": "words", "role": "question", "row": RowPlace("train", 0, "r", "s", 1), "snippet": ""}
    assert bool(judge_item([Match(**{**values, **change})])) is is_suspect


@pytest.mark.parametrize(
    ("ratio", "limit", "is_suspect"),
    [(0.4, 0.5, True), (0.5, 0.5, True), (0.6, 0.5, False), (0.1, None, False), (1.0, 1.0, False)],
)
def test_a_low_loss_ratio_makes_a_suspect_where_it_is_calibrated(
    ratio: float, limit: float | None, is_suspect: bool
) -> None:
    assert bool(judge_item([], ratio, Thresholds(loss_ratio=limit))) is is_suspect


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20)
)
@settings(max_examples=80, deadline=None)
def test_auroc_is_the_share_of_pairs_in_order(leaked: list[int], clean: list[int]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in leaked for b in clean]
    assert auroc(leaked, clean) == pytest.approx(sum(pairs) / len(pairs))


def test_auroc_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to tell apart"):
        auroc([], [1.0])


def test_the_threshold_holds_false_alarms_or_is_not_given() -> None:
    assert lowest_allowed([1.0] * 98) is None
    assert lowest_allowed([float(i) for i in range(99)]) == 0.0
    assert lowest_allowed([float(i) for i in range(399)]) == 3.0
    assert lowest_allowed([1.0] * 200) is None, "a tie would accuse everybody"
    assert lowest_allowed([0.5, 0.6, *[0.7] * 398]) == 0.6
    assert lowest_allowed([0.5, *[0.6] * 3, *[0.7] * 395]) == 0.6, "the tie ends with the rank"
    generator = random.Random(1)
    alarms = []
    for _ in range(400):
        limit = lowest_allowed([generator.gauss(0, 1) for _ in range(199)])
        assert limit is not None
        alarms.append(sum(generator.gauss(0, 1) <= limit for _ in range(50)) / 50)
    assert sum(alarms) / len(alarms) <= 0.012


def test_min_k_is_the_mean_of_the_unlikeliest() -> None:
    assert min_k([-1.0, -5.0, -2.0, -3.0, -4.0]) == -5.0
    assert min_k([-1.0] * 8 + [-5.0, -3.0]) == -4.0
    assert min_k([-2.0]) == -2.0


def test_the_rows_calibrate_the_ratio(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, questions(150))
    overlap = search_rows(dataset_of(tmp_path, questions(30, seed=1)), suite)
    base: dict[str, ItemLoss | str] = {item.id: ItemLoss(2.0, 2.0, -4.0, 9) for item in suite.items}
    tuned: dict[str, ItemLoss | str] = {
        item.id: ItemLoss(1.9 + 0.001 * i, 1.9, -4.0, 9) for i, item in enumerate(suite.items)
    }
    tuned[suite.items[9].id] = ItemLoss(0.2, 0.2, -0.5, 9)
    audit = judge(suite, overlap, (tuned, base))
    assert audit.suspects == (suite.items[9].id,)
    assert any("accuses at or below 0.100" in note for note in audit.notes)
    for worst in (1.0, 1.2):
        untouched = {name: ItemLoss(2.0 * worst, 2.0 * worst, -4.0, 9) for name in base}
        untouched[suite.items[9].id] = ItemLoss(2.0, 2.0, -4.0, 9)
        told = judge(suite, overlap, (untouched, base))
        assert told.suspects == () and "accuses nobody" in told.notes[-1], "nothing was learned"
    tuned[suite.items[3].id] = "there is no room"
    few = judge(suite, overlap, (tuned, base), Thresholds(loss_ratio=0.99))
    assert "1 items have no loss ratio" in few.notes and len(few.suspects) > 1


# scores


def record(name: str, score: float | None, group: str | None = None) -> ItemRecord:
    return ItemRecord(name, f"sha256:{name}", "asked", "told", ("right",), score, group=group)


def test_scores_with_and_without_suspects() -> None:
    records = [record(str(i), float(i < 60)) for i in range(100)]
    found = rescore(records, {str(i) for i in range(20)})
    assert found.with_all.mean == 0.6 and found.with_all.num_items == 100
    assert found.without_suspects is not None and found.without_suspects.mean == 0.5
    assert found.suspects_alone is not None and found.suspects_alone.mean == 1.0
    assert found.with_all.interval.method == "Wilson"
    assert "60.0 %" in found.sentence() and "50.0 %" in found.sentence() and "80 items" in found.sentence()


def test_scores_of_groups_grades_and_of_what_has_none() -> None:
    grouped = rescore([record(str(i), float(i % 10 < 5), group=str(i // 10)) for i in range(50)], [])
    assert "clustered" in grouped.with_all.interval.method or grouped.with_all.interval.width > 0
    graded = rescore([record(str(i), score) for i, score in enumerate([0.1, 0.4, 0.7, 0.9])], []).with_all
    assert (
        graded.mean == pytest.approx(0.525)
        and 0.0 <= graded.interval.low < 0.525 < graded.interval.high <= 1.0
    )
    missing = rescore([record("a", None), record("b", 1.0)], {"b"})
    assert missing.num_unscored == 1 and missing.with_all.mean == 0.5
    assert rescore([record("a", 1.0)], {"a"}).without_suspects is None
    with pytest.raises(DataError, match="nothing to score"):
        rescore([], [])


def test_the_report_is_an_artifact_that_says_it_all(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    items = questions(12)
    suite = suite_of(tmp_path, items)
    dataset = dataset_of(tmp_path, [*questions(20, seed=1), items[2]])
    audit = judge(suite, search_rows(dataset, suite))
    rescored = rescore([record(item.id, 1.0) for item in suite.items], audit.suspects)
    written = [
        write_report(
            audit, rescored, Location(str(tmp_path / name)), parents={"dataset": dataset.digest}, config={}
        )
        for name in ("one", "two")
    ]
    assert written[0].digest == written[1].digest and written[0].kind == "contamination_report"
    report = json.loads((written[0].path / "report.json").read_text())
    assert report == json.loads(json.dumps(summary(audit, rescored)))
    assert report["num_suspects"] == 1 and report["suspects"][0]["best"]["row"]["split"] == "train"
    assert report["scores"]["without_suspects"]["num_items"] == 11
    table = pq.read_table(written[0].path / "items.parquet").to_pylist()
    assert [row["is_suspect"] for row in table] == [i == 2 for i in range(12)]
    told = (written[0].path / "report.md").read_text()
    assert "1 of 12 items are suspected" in told and "without suspects" in told


# planted leaks


def test_the_ratio_of_a_model_over_itself_is_one(tiny_llama: Path, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, questions(4, num_words=8))
    loaded = load_for_inference(str(tiny_llama), cache=Location(str(tmp_path / "cache")))
    found = item_losses(loaded, suite)
    for loss in found.values():
        assert isinstance(loss, ItemLoss)
        again = loss_ratio(loss, loss)
        assert again.ratio == again.answer_ratio == 1.0 and again.min_k == loss.min_k < -loss.loss
    named = suite_of(tmp_path, [{"question": "Why?", "answer": "As it is."}])
    one = item_losses(loaded, named)["1"]
    assert isinstance(one, ItemLoss)
    text = loaded.tokenizer.apply_chat_template(
        named.items[0].prompt, tokenize=False, add_generation_prompt=True
    )
    ids = loaded.tokenizer(text + "As it is.")["input_ids"]
    num_answer = len(ids) - len(loaded.tokenizer(text)["input_ids"])
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    likely = logits[:-1].gather(1, torch.tensor(ids[1:])[:, None])[-num_answer:]
    assert one.answer_loss == pytest.approx(-float(likely.mean()), abs=1e-5)


@pytest.mark.slow
def test_planted_leaks_are_found_and_clean_items_are_not_accused(tmp_path: Path) -> None:
    """One item in five is trained on, a tiny model by heart: what the benchmark measures at larger scale."""
    settings = {
        "adapter": {"method": "full"},
        "train": {"num_epochs": 24, "global_batch_size": 8, "micro_batch_size": 8, "learning_rate": 6e-3},
    }
    outcome = planted.run(
        planted.Experiment(planted.tiny_model(tmp_path), planted.made_up(135, 3), 125, settings, seed=3)
    )
    assert len(outcome.leaked) == 25
    assert outcome.share_found(leaked=True, measure="words") == 1.0
    assert outcome.share_found(leaked=True, measure="characters") == 1.0
    assert outcome.share_found(leaked=False) == 0.0
    leaked, clean = outcome.values("answer_ratio")
    assert auroc([-one for one in leaked], [-one for one in clean]) >= 0.95
    accused = [i for i, one in enumerate(outcome.audit.findings) if one.suspicion and i not in outcome.leaked]
    assert len(accused) <= 1, "1 % of 100 clean items"

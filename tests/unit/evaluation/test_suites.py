"""From a suite's file to its items: what is asked, what is refused, and what its digest is over."""

from __future__ import annotations

import importlib
import json
import linecache
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.errors import ConfigError, DataError, PlatformError
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.suite import SuiteSection, load_suite
from raytrain.evaluation.templates import fill, value_at

Loader = Callable[..., Suite]
ROWS = [
    {"question": f"{i} + 1?", "answer": str(i + 1), "topic": "odd" if i % 2 else "even"} for i in range(10)
]


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    """A suite over `rows`, of which `changes` (dotted overrides) change something."""

    def loaded(*changes: str, rows: list[Any] = ROWS, name: str = "rows.jsonl") -> Suite:
        recipe = {
            "suite": "sums",
            "kind": "generation",
            "items": {"source": {"path": str(write_rows(tmp_path / name, rows))}},
            "prompt": {"mode": "completion", "template": "Q: {question}\nA:"},
            "answer": " {answer}",
            "scorer": {"name": "number"},
        }
        place = tmp_path / "suite.yaml"
        place.write_text(yaml.safe_dump(recipe))
        return load_items(load_suite(place, list(changes)))

    return loaded


def test_items_in_the_order_of_their_rows(load: Loader) -> None:
    items = load("items.category=topic", "items.group=topic").items
    assert [item.id for item in items] == [str(i) for i in range(1, 11)]
    assert (items[3].prompt, items[3].references) == ("Q: 3 + 1?\nA:", (" 4",))
    assert (items[3].category, items[3].group) == ("odd", "odd")


def test_chat_with_a_system_message(load: Loader) -> None:
    (item, *_) = load("prompt.mode=chat", "prompt.system=Add.", "prompt.template='{question}'").items
    assert item.prompt == [{"role": "system", "content": "Add."}, {"role": "user", "content": "0 + 1?"}]


def test_worked_examples_are_the_same_for_all_and_never_the_item_itself(load: Loader, tmp_path: Path) -> None:
    few = [f"prompt.few_shot.source.path={tmp_path / 'rows.jsonl'}", "prompt.few_shot.num_shots=3"]
    suite = load(*few)
    for item in suite.items:
        shots = str(item.prompt).split("\n\n")
        assert len(shots) == 4 and shots[-1] == str(item.prompt).rpartition("\n\n")[2]
        assert shots[-1] not in [shot.partition(" ")[2] for shot in shots[:-1]]
        assert not any(shot.startswith(shots[-1]) for shot in shots[:-1]), "it would read its own answer"
    shown = [tuple(str(item.prompt).split("\n\n")[:-1]) for item in suite.items]
    most = max(set(shown), key=shown.count)
    assert shown.count(most) == 7, "those that are not among the examples see the same three"
    assert most[0].endswith(tuple(row["answer"] for row in ROWS))
    chat = load(*few, "prompt.mode=chat").items[0].prompt
    assert [turn["role"] for turn in chat] == ["user", "assistant"] * 3 + ["user"]  # type: ignore[index]
    with pytest.raises(DataError, match="10 worked examples are wanted, and there are 10 questions"):
        load(few[0], "prompt.few_shot.num_shots=10")


def test_more_items_keep_those_that_fewer_had(load: Loader) -> None:
    ids = {n: [item.id for item in load(f"items.max_items={n}").items] for n in (3, 6, 10, 99)}
    assert set(ids[3]) < set(ids[6]) < set(ids[10]) and ids[10] == ids[99]
    assert len(ids[3]) == 3 and ids[3] == sorted(ids[3], key=int)
    assert [item.id for item in load("items.max_items=3", "items.seed=1").items] != ids[3]


def test_an_item_is_no_example_though_its_row_has_more_columns(load: Loader, tmp_path: Path) -> None:
    shots = write_rows(tmp_path / "shots.jsonl", [*ROWS[:4], ROWS[0]])
    rows = [{**row, "id": i} for i, row in enumerate(ROWS[:4])]
    suite = load(f"prompt.few_shot.source.path={shots}", "prompt.few_shot.num_shots=3", rows=rows)
    for item in suite.items:
        *shown, asked = str(item.prompt).split("\n\n")
        assert len(shown) == 3 and not any(shot.startswith(asked) for shot in shown)


def test_rows_of_several_files_are_told_apart(load: Loader, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name in ("a", "b"):
        write_rows(tmp_path / "many" / f"{name}.jsonl", ROWS[:1])
    items = load(f"items.source.path={tmp_path / 'many'}").items
    assert [item.id for item in items] == ["a.jsonl:1", "b.jsonl:1"]


@pytest.mark.parametrize(
    ("choices", "answer", "right"),
    [
        (["2", "1", "0", "3"], 0, 0),
        (["2", "1", "0", "3"], "3", 3),
        (["2", "1", "0", "3"], "0", "may be a choice's text or another's number"),
        (["yes", "yes"], "yes", "stands twice"),
        (["", "yes"], "yes", "no list of two"),
        (["no", "yes"], 2, "none of its 2 choices"),
        (["no", "yes"], -1, "none of its 2 choices"),
    ],
)
def test_which_choice_is_right(load: Loader, choices: list[str], answer: Any, right: Any) -> None:
    rows = [{"question": "?", "choices": choices, "right": answer}]
    changes = ("kind=multiple_choice", "scorer=null", "choices=choices", "answer='{right}'")
    if isinstance(right, int):
        assert load(*changes, rows=rows).items[0].right == right
        return
    with pytest.raises(DataError) as caught:
        load(*changes, rows=rows)
    assert right in caught.value.what


@pytest.mark.parametrize("answer", ["{right}", "{text}"])
def test_choices_by_number_and_by_text(load: Loader, answer: str) -> None:
    rows = [{"question": "?", "choices": ["no", "yes", "perhaps"], "right": 1, "text": "yes"}]
    item = load(
        "kind=multiple_choice", "scorer=null", "choices=choices", f"answer='{answer}'", rows=rows
    ).items[0]
    assert (item.choices, item.right, item.references) == (("no", "yes", "perhaps"), 1, ("yes",))


def test_the_digest_is_over_what_is_asked(load: Loader) -> None:
    digest = load().digest
    assert load(name="elsewhere.jsonl").digest == digest
    assert load("description=sums").digest == digest, "what people read changes no answer"
    for change in (
        "version='2'", "prompt.template='{question}'", "answer='{answer}'", "scorer.name=exact_match",
        "items.max_items=9", "generation.max_new_tokens=9", "generation.stop=['.']", "items.category=topic",
        "prompt.mode=chat",
    ):  # fmt: skip
        assert load(change).digest != digest, change
    assert load(rows=[*ROWS[:-1], {**ROWS[-1], "answer": "11"}]).digest != digest
    assert load(rows=[*ROWS[:-1], {**ROWS[-1], "topic": "other"}]).digest == digest, (
        "a column nobody asks for"
    )


@pytest.mark.parametrize(
    ("changes", "rows", "kind", "told"),
    [
        ([], [], DataError, "has no items"),
        (["items.id=question"], [ROWS[0], ROWS[1], ROWS[0]], DataError, "stands twice"),
        (["prompt.template='{qestion}'"], ROWS, ConfigError, "has no `qestion`"),
        (["prompt.template='{question'"], ROWS, ConfigError, "cannot be read"),
        (["prompt.template='{}'"], ROWS, ConfigError, "without a name"),
        (["prompt.template='{question!r}'"], ROWS, ConfigError, "with a format"),
        (["items.group=tpic"], ROWS, ConfigError, "has no `tpic`"),
        ([], [{"question": "?", "answer": None}], DataError, "`answer` is no text"),
        ([], [{"question": ["?"], "answer": "a"}], DataError, "`question` is no text"),
        ([], [ROWS[0], "text"], DataError, "row 2 cannot be read"),
        (["prompt.system=x"], ROWS, ConfigError, "mode: chat only"),
        (["scorer=null"], ROWS, ConfigError, "needs a `scorer`"),
        (["kind=multiple_choice", "scorer=null"], ROWS, ConfigError, "needs `choices`"),
        (["kind=multiple_choice", "scorer=null", "choices=question"], ROWS, DataError, "no list of two"),
        (["kind=multiple_choise"], ROWS, ConfigError, "kind"),
        (["items.source.path=nowhere.jsonl"], ROWS, DataError, "is not there"),
        (["suite=Two words"], ROWS, ConfigError, "suite"),
    ],
)
def test_what_is_refused(
    load: Loader, changes: list[str], rows: list[Any], kind: type[PlatformError], told: str
) -> None:
    with pytest.raises(kind) as caught:
        load(*changes, rows=rows)
    assert told in f"{caught.value.what} {caught.value.why}"
    assert caught.value.fix


def test_an_answer_that_is_no_choice(load: Loader) -> None:
    rows = [{"question": "?", "choices": ["no", "yes"], "answer": "2"}]
    with pytest.raises(DataError, match="none of its 2 choices"):
        load("kind=multiple_choice", "scorer=null", "choices=choices", "answer='{answer}'", rows=rows)


def test_templates() -> None:
    row = {"messages": [{"content": "hi"}], "a.b": "dotted", "n": 3, "x": 0.5}
    assert fill("{{{messages[0].content}}} {a.b} {n} {x}", row, key="k", place="row 1") == "{hi} dotted 3 0.5"
    assert value_at(row, "messages", key="k", place="row 1") == [{"content": "hi"}]
    with pytest.raises(ConfigError, match="row 1 has no `messages\\[1\\]"):
        fill("{messages[1].content}", row, key="k", place="row 1")
    with pytest.raises(DataError, match="no text"):
        fill("{flag}", {"flag": True}, key="k", place="row 1")


def test_a_suites_rows_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites").mkdir()
    write_rows(tmp_path / "suites" / "rows.jsonl", ROWS)
    recipe = {
        "suite": "sums",
        "kind": "perplexity",
        "items": {"source": {"path": "rows.jsonl"}},
        "prompt": {"mode": "completion", "template": ""},
        "answer": "{question}",
    }
    (tmp_path / "suites" / "sums.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    assert len(load_items(load_suite(Path("suites/sums.yaml"))).items) == 10


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("columns={question: problem}", "how training reads rows"),
        ("layout=auto", "how training reads rows"),
        ("licence=MIT", "`description`"),
    ],
)
def test_keys_that_only_training_knows_are_refused_and_not_listed(
    load: Loader, key: str, instead: str
) -> None:
    for place in ("items.source", "prompt.few_shot.source"):
        with pytest.raises(ConfigError) as caught:
            load(f"{place}.{key}")
        assert instead in caught.value.fix
    listed = SuiteSection.model_json_schema()["$defs"]["ItemsSource"]["properties"]
    assert "path" in listed and key.partition("=")[0] not in listed


def test_a_generators_held_out_rows(load: Loader) -> None:
    source = "items.source={generator: tool_calls, num_rows: 5, seed: 3, split: %s}"
    template = ["prompt.template='{messages[0].content}'", "answer='{messages[1].content}'"]
    train, heldout = (load(source % split, *template) for split in ("train", "heldout"))
    assert {item.prompt for item in train.items}.isdisjoint(item.prompt for item in heldout.items)
    with pytest.raises(ConfigError, match="has no split"):
        load(source % "test", *template)


def test_what_names_no_group_stands_for_itself(load: Loader) -> None:
    rows = [{**row, "topic": None if i < 4 else "same"} for i, row in enumerate(ROWS)]
    items = load("items.category=topic", "items.group=topic", rows=rows).items
    assert [item.group for item in items] == [None] * 4 + ["same"] * 6 == [item.category for item in items]
    with pytest.raises(DataError, match="is empty"):
        load("items.id=topic", rows=rows)


def test_a_scorer_of_ones_own_counts_in_the_digest(
    load: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "from raytrain.evaluation.scoring.registry import Score\ndef mine(output, references): return Score(%s)\n"
    digests = []
    for value in ("1.0", "0.0"):
        (tmp_path / "own_scorer.py").write_text(text % value)
        sys.modules.pop("own_scorer", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        digests.append(load("scorer.name='own_scorer:mine'").digest)
    assert digests[0] != digests[1]

"""Items through a tiny model: each comes out once, right by the book, whatever happens to it."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raytrain.errors import ClusterError, ConfigError, StorageError
from raytrain.evaluation.answering.asking import answer_items
from raytrain.evaluation.answering.settings import settings_from
from raytrain.evaluation.answering.worker_pool import WorkerPool
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.records import ItemRecord, RecordFolder, records_of, storable, table_of
from raytrain.evaluation.suite import load_suite
from raytrain.models.inference import LoadedModel, load_for_inference
from raytrain.models.text_generation import generate_texts
from raytrain.storage.location import Location

WORDS = ["the sum", "of two", "is five", "a cat", "what is the", "sum of"]


@pytest.fixture(scope="module")
def loaded(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_for_inference(str(tiny_llama), cache=Location(str(tmp_path_factory.mktemp("cache"))))


def suite_of(tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> Suite:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "suite": "words",
        "kind": "generation",
        "items": {"source": {"path": str(source)}},
        "prompt": {"mode": "completion", "template": "{text}"},
        "answer": "{answer}",
        "generation": {"max_new_tokens": 6},
        **({"scorer": {"name": "exact_match"}} if changes.get("kind", "generation") == "generation" else {}),
        **changes,
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(recipe))
    return load_items(load_suite(tmp_path / "suite.yaml"))


def answered(loaded: LoadedModel, suite: Suite, **options: Any) -> list[ItemRecord]:
    found = {one.item_id: one for one in answer_items(loaded, suite, suite.items, **options)}
    return [found[item.id] for item in suite.items]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_asking(loaded: LoadedModel, tmp_path: Path, batch_size: int) -> None:
    expected = [one.text for one in generate_texts(loaded.model, loaded.tokenizer, WORDS, max_new_tokens=6)]
    rows = [{"text": text, "answer": answer} for text, answer in zip(WORDS, expected, strict=True)]
    rows[2]["answer"] = "something else"
    suite = suite_of(tmp_path, rows)
    found = answered(loaded, suite, batch_size=batch_size)
    assert [one.output for one in found] == expected
    assert [one.score for one in found] == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert all(
        one.least_margin is not None and one.least_margin >= 0 and one.prompt == text
        for one, text in zip(found, WORDS, strict=True)
    )
    assert [one.item_digest for one in found] == [item.digest() for item in suite.items]


def test_a_stop_text_ends_the_answer_and_is_cut_off(loaded: LoadedModel, tmp_path: Path) -> None:
    rows = [{"text": text, "answer": "x"} for text in WORDS]
    free = answered(loaded, suite_of(tmp_path, rows))
    stop = free[0].output[2:4]
    assert len(stop) == 2
    stopped = answered(loaded, suite_of(tmp_path, rows, generation={"max_new_tokens": 6, "stop": [stop]}))
    for one, whole in zip(stopped, free, strict=True):
        assert one.output == whole.output.partition(stop)[0]
        assert (one.stop_reason == "stop") == (stop in whole.output or whole.stop_reason == "stop")
        assert one.num_new_tokens <= whole.num_new_tokens


def test_an_item_that_cannot_be_answered_or_scored_is_told_of(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strict.py").write_text(
        "from raytrain.evaluation.scoring.registry import Score\n\n\n"
        "def scorer(output, references):\n"
        "    if references == ['raise'] or references == ('raise',):\n        raise RuntimeError('not this one')\n"
        "    return Score(7.0 if references[0] == 'seven' else 1.0)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"text": "two", "answer": answer} for answer in ("fine", "raise", "seven")]
    rows.append({"text": "word " * 3000, "answer": "too long"})
    found = answered(loaded, suite_of(tmp_path, rows, scorer={"name": "strict:scorer"}))
    assert [one.score for one in found] == [1.0, None, None, None]
    assert found[1].error == "RuntimeError: not this one"
    assert "not from 0 to 1" in str(found[2].error)
    assert "there is room for" in str(found[3].error)


def test_choices_by_likelihood(loaded: LoadedModel, tmp_path: Path) -> None:
    choices = [" five", " a cat", " the sum of two"]
    rows = [{"text": text, "choices": choices, "answer": 1} for text in WORDS]
    found = answered(loaded, suite_of(tmp_path, rows, kind="multiple_choice", choices="choices"))
    for one, text in zip(found, WORDS, strict=True):
        sums = []
        for choice in choices:
            ids = loaded.tokenizer(text + choice)["input_ids"]
            start = len(loaded.tokenizer(text)["input_ids"])
            with torch.no_grad():
                logits = loaded.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            sums.append(sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids))))
        assert list(one.log_likelihoods) == pytest.approx(sums, abs=1e-4)
        assert one.output == choices[sums.index(max(sums))]
        assert one.score == float(sums.index(max(sums)) == 1)
        assert one.num_bytes == (5, 6, 15)


def test_texts_by_perplexity(loaded: LoadedModel, tmp_path: Path) -> None:
    rows = [{"text": text, "answer": text} for text in WORDS] + [{"text": "", "answer": ""}]
    whole = answered(
        loaded, suite_of(tmp_path, rows, kind="perplexity", prompt={"mode": "completion", "template": ""})
    )
    for one, row in zip(whole[:-1], rows, strict=False):
        (total,) = one.log_likelihoods
        assert one.score == pytest.approx(math.exp(total / len(row["text"])))
        assert 0 < one.score < 1
        assert one.num_new_tokens == len(loaded.tokenizer(row["text"], add_special_tokens=False)["input_ids"])
    assert whole[-1].score is None and "nothing to judge" in str(whole[-1].error)
    after = answered(
        loaded,
        suite_of(tmp_path, rows[:2], kind="perplexity", prompt={"mode": "completion", "template": "what "}),
    )
    assert after[0].log_likelihoods != whole[0].log_likelihoods


def test_nan_is_no_score(tiny_llama: Path, tmp_path: Path) -> None:
    broken = load_for_inference(str(tiny_llama), cache=Location(str(tmp_path / "cache")))
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(math.nan)  # type: ignore[union-attr]
    rows = [{"text": "two", "choices": ["a", "b"], "answer": 0}]
    (one,) = answered(broken, suite_of(tmp_path, rows, kind="multiple_choice", choices="choices"))
    assert one.score is None and "NaN" in str(one.error)


def test_chat_needs_a_template(loaded: LoadedModel, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, [{"text": "hi", "answer": "x"}], prompt={"mode": "chat", "template": "{text}"})
    if loaded.tokenizer.chat_template:
        assert answered(loaded, suite)[0].prompt != "hi"
        return
    with pytest.raises(ConfigError, match="chat template"):
        answered(loaded, suite)


RECORD = ItemRecord(
    "1",
    "sha256:0",
    "p",
    "out \ud800",
    ("r",),
    0.5,
    "n",
    None,
    "g",
    "c",
    3,
    4,
    "stop",
    0.25,
    (-1.0, -2.0),
    (3, 4),
    ("a", "b"),
    1,
    True,
    0.5,
)


def test_records_come_back_from_parquet(tmp_path: Path) -> None:
    empty = ItemRecord("2", "sha256:1", "", "", (), None, error="why")
    folder = RecordFolder(tmp_path / "records")
    folder.append([RECORD])
    folder.append([empty])
    folder.append([])
    found, damaged = RecordFolder(tmp_path / "records").read()
    assert damaged == [] and list(found) == ["1", "2"] and found["2"] == empty
    assert found["1"].output == storable(RECORD.output) == "out \\ud800"
    assert records_of(table_of([empty])) == [empty]


def test_a_damaged_file_is_moved_aside_and_a_half_written_one_is_never_seen(tmp_path: Path) -> None:
    place = tmp_path / "records"
    folder = RecordFolder(place)
    folder.append([RECORD])
    folder.append([ItemRecord("2", "d", "", "", (), 1.0)])
    (place / ".part-half").write_bytes(b"PAR1")
    part = place / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    again = RecordFolder(place)
    found, damaged = again.read()
    assert list(found) == ["2"] and damaged == ["part-000000.parquet"]
    again.append([RECORD])
    RecordFolder(place).append([ItemRecord("3", "d", "", "", (), 0.0)])
    found, damaged = RecordFolder(place).read()
    assert sorted(found) == ["1", "2", "3"] and damaged == []
    assert not list(place.glob(".part-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        folder = RecordFolder(mount / "records")
        folder.append([RECORD])
        noise = random.Random(0).randbytes(200_000).hex()
        with pytest.raises(StorageError):
            folder.append([ItemRecord("2", "d", noise, "", (), 1.0)])
        found, damaged = RecordFolder(mount / "records").read()
        assert list(found) == ["1"] and damaged == []
    finally:
        subprocess.run(["umount", mount], check=True)


def test_nan_in_an_answer_is_a_counted_item(loaded: LoadedModel, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, [{"text": text, "answer": "x"} for text in WORDS])
    inside = loaded.model
    head = inside.get_output_embeddings().weight
    kept = head.detach().clone()
    with torch.no_grad():
        head[7] = math.nan
    try:
        found = answered(loaded, suite)
    finally:
        with torch.no_grad():
            head.copy_(kept)
    assert all(one.score is None and "NaN" in str(one.error) for one in found)


def test_what_a_template_or_tokenizer_refuses_is_a_counted_item(loaded: LoadedModel, tmp_path: Path) -> None:
    rows = [{"text": "fine", "answer": "x"}, {"text": "half \ud800", "answer": "x"}]
    found = answered(loaded, suite_of(tmp_path, rows))
    assert found[0].error is None and found[1].score is None and found[1].error
    before = loaded.tokenizer.chat_template
    loaded.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    try:
        chat = {"mode": "chat", "template": "{text}", "system": "Be brief."}
        for kind in ({}, {"kind": "multiple_choice", "choices": "choices", "answer": "0"}):
            rows = [{"text": "fine", "answer": "x", "choices": ["a", "b"]}]
            (one,) = answered(loaded, suite_of(tmp_path, rows, prompt=chat, **kind))
            assert "System role not supported" in str(one.error)
    finally:
        loaded.tokenizer.chat_template = before


@pytest.mark.parametrize(
    ("text", "why"), [("", "RuntimeError"), (" \n", "RuntimeError"), ("gone\nfar", "gone")]
)
def test_a_worker_that_dies_without_a_word_is_told_of(text: str, why: str) -> None:
    pool = WorkerPool.__new__(WorkerPool)
    pool._num_deaths = 0
    pool._how = settings_from(["scaling.max_failures=0"])
    with pytest.raises(ClusterError) as died:
        pool._replace(None, RuntimeError(text))
    assert died.value.why == why

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raytrain.data.prepare import prepare_dataset
from raytrain.data.section import DataSection
from raytrain.data.tokens import (
    TokenTable,
    load_tokens,
    prepare_tokens,
    render_row,
    tokenize_split,
    tokenizer_digest,
)
from raytrain.errors import ConfigError, DataError
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)


def section(**values: Any) -> DataSection:
    return DataSection(sources="unused.jsonl", **values)


def tokenize(
    tokenizer: Any, *rows: dict[str, Any], **values: Any
) -> tuple[TokenTable, list[tuple[str, str]]]:
    rejected: list[tuple[str, str]] = []
    numbered = ({"row_id": f"r{i}", **row} for i, row in enumerate(rows))
    table = tokenize_split(numbered, tokenizer, section(**values), lambda *told: rejected.append(told))
    return table, rejected


def learnt(table: TokenTable, tokenizer: Any, index: int = 0) -> str:
    """The text of the tokens that are targets."""
    ids, mask = table.row(index)
    text: str = tokenizer.decode(ids[mask == 1])
    return text


def whole(table: TokenTable, tokenizer: Any, index: int = 0) -> str:
    text: str = tokenizer.decode(table.row(index)[0])
    return text


CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two and three?"},
        {"role": "assistant", "content": "Five."},
        {"role": "user", "content": "And one more?"},
        {"role": "assistant", "content": "Six."},
    ]
}


def test_a_chat_learns_each_answer_and_its_end_and_nothing_else(tokenizer: Any) -> None:
    table, _ = tokenize(tokenizer, CHAT)
    assert learnt(table, tokenizer) == "Five.<|im_end|>Six.<|im_end|>"
    assert whole(table, tokenizer).startswith("<|im_start|>system\nBe brief.")
    assert whole(table, tokenizer).endswith("Six.<|im_end|>"), "the newline after the last turn is nobody's"


def test_loss_on_all_learns_the_whole_chat(tokenizer: Any) -> None:
    table, _ = tokenize(tokenizer, CHAT, loss_on="all")
    assert learnt(table, tokenizer) == whole(table, tokenizer)


@pytest.mark.parametrize(
    ("row", "loss_on", "expected"),
    [
        ({"prompt": "Say: ", "completion": "hello there"}, "completion", "hello there<|im_end|>"),
        ({"prompt": "Say: ", "completion": "hello there"}, "all", "Say: hello there<|im_end|>"),
        ({"prompt": None, "completion": "alone"}, "completion", "alone<|im_end|>"),
        ({"text": "plain words"}, "completion", "plain words<|im_end|>"),
        ({"prompt": "Ünï? ", "completion": "日本 🎉"}, "completion", "日本 🎉<|im_end|>"),
    ],
)
def test_targets_of_the_plain_layouts(
    tokenizer: Any, row: dict[str, Any], loss_on: str, expected: str
) -> None:
    table, _ = tokenize(tokenizer, row, loss_on=loss_on)
    assert learnt(table, tokenizer) == expected


def test_overlong_rows_are_dropped_or_cut(tokenizer: Any) -> None:
    row = {"prompt": "Go: ", "completion": "x " * 50}
    table, rejected = tokenize(tokenizer, row, {"text": "short"}, max_seq_len=20)
    assert (table.row_ids, rejected) == (["r1"], [("r0", "too_long")])
    table, rejected = tokenize(tokenizer, row, max_seq_len=20, overlong="truncate")
    assert rejected == []
    assert table.lengths.tolist() == [20]


def test_a_row_whose_answer_was_cut_off_has_no_target(tokenizer: Any) -> None:
    row = {"prompt": "a long prompt " * 20, "completion": "yes"}
    table, rejected = tokenize(tokenizer, row, max_seq_len=16, overlong="truncate")
    assert (len(table), rejected) == (0, [("r0", "no_target")])
    assert table.input_ids.dtype == np.int32


def test_chats_and_texts_in_one_chunk_keep_their_ids(tokenizer: Any) -> None:
    rows = [CHAT, {"text": "one"}, CHAT, {"prompt": "p", "completion": "two"}]
    table, _ = tokenize(tokenizer, *rows)
    told = {row_id: learnt(table, tokenizer, i) for i, row_id in enumerate(table.row_ids)}
    assert told["r1"] == "one<|im_end|>"
    assert told["r3"] == "two<|im_end|>"
    assert told["r0"] == told["r2"]


def test_a_chat_without_a_template_names_the_way_out(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template") as caught:
        render_row(CHAT, tokenizer, "completion")
    assert "model.chat_template" in caught.value.fix


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages|length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match="rewrites earlier turns") as caught:
        render_row(CHAT, tokenizer, "completion")
    assert "loss_on=all" in caught.value.fix


@pytest.fixture
def dataset(tmp_path: Path, rows: list[dict[str, str]]) -> Artifact:
    import json

    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare_dataset(
        DataSection(sources=str(place), val_fraction=0.2, near_duplicate_threshold=None),
        Location(str(tmp_path / "storage")),
    )


def test_tokens_are_made_once_and_found_again(tokenizer: Any, dataset: Artifact, tmp_path: Path) -> None:
    storage = Location(str(tmp_path / "storage"))
    first = prepare_tokens(dataset, tokenizer, section(), storage)
    stamp = (first.path / "train.input_ids.npy").stat().st_mtime_ns
    again = prepare_tokens(dataset, tokenizer, section(), storage)
    assert again.digest == first.digest
    assert (again.path / "train.input_ids.npy").stat().st_mtime_ns == stamp, "nothing was tokenized twice"
    assert first.manifest.parents == {"dataset": dataset.digest}
    train, val = load_tokens(first, "train"), load_tokens(first, "val")
    assert len(train) + len(val) == 60
    assert len(val) > 0
    assert learnt(train, tokenizer).startswith("The sum of")


@pytest.mark.parametrize("change", [{"max_seq_len": 256}, {"loss_on": "all"}, {"overlong": "truncate"}])
def test_other_settings_are_other_tokens(
    tokenizer: Any, dataset: Artifact, tmp_path: Path, change: dict[str, Any]
) -> None:
    storage = Location(str(tmp_path / "storage"))
    first = prepare_tokens(dataset, tokenizer, section(), storage)
    assert prepare_tokens(dataset, tokenizer, section(**change), storage).location != first.location


def test_another_template_is_another_tokenizer(tokenizer: Any) -> None:
    before = tokenizer_digest(tokenizer)
    assert tokenizer_digest(tokenizer) == before
    tokenizer.chat_template += "{# another #}"
    assert tokenizer_digest(tokenizer) != before


def test_damaged_tokens_are_made_anew(tokenizer: Any, dataset: Artifact, tmp_path: Path) -> None:
    storage = Location(str(tmp_path / "storage"))
    first = prepare_tokens(dataset, tokenizer, section(), storage)
    damaged = first.path / "train.input_ids.npy"
    whole_file = damaged.read_bytes()
    damaged.write_bytes(whole_file[:-4] + b"\0\0\0\7")
    again = prepare_tokens(dataset, tokenizer, section(), storage)
    assert again.digest == first.digest
    assert damaged.read_bytes() == whole_file
    (again.path / "manifest.json").unlink()
    assert prepare_tokens(dataset, tokenizer, section(), storage).digest == first.digest


def test_no_row_left_says_why(tokenizer: Any, dataset: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training row is left") as caught:
        prepare_tokens(dataset, tokenizer, section(max_seq_len=8), Location(str(tmp_path / "storage")))
    assert "too_long" in caught.value.why
    assert "data.max_seq_len (now 8)" in caught.value.fix
    assert not list((tmp_path / "storage" / "tokens").glob("*")), "nothing half-written is left"

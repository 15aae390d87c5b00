"""Greedy decoding is what asking for the likeliest token by hand gives, in batches of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import spoil_token
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, MistralConfig, MistralForCausalLM

from raytrain.models.decoding.greedy import GreedyAnswer, decode_greedily, holds_stop, text_before
from raytrain.models.decoding.slot_cache import SlotCache

pytestmark = pytest.mark.whole

PROMPTS = [
    np.random.default_rng(i).integers(3, 300, length).tolist()
    for i, length in enumerate((4, 11, 1, 7, 7, 20, 3))
]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama)


def decode(model: Any, prompts: list[list[int]] = PROMPTS, **options: Any) -> list[GreedyAnswer]:
    settings = {"max_new_tokens": 12, "end_tokens": (), "pad_id": 0, **options}
    found = dict(decode_greedily(model, prompts, **settings))
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in range(len(prompts))]


@contextmanager
def shapes_of(model: Any) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens) of each forward pass, but those of the proofs before the first."""
    decode(model, prompts=PROMPTS[:1], max_new_tokens=1)
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()


def by_hand(model: Any, prompt: list[int], num_tokens: int) -> tuple[list[int], float]:
    """Everything read anew for each token, without a cache."""
    ids, least = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(num_tokens):
            logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].float()
            first, second = logits.topk(2).values.tolist()
            least = min(least, first - second)
            ids.append(int(logits.argmax()))
    return ids[len(prompt) :], least


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_it_is_what_asking_by_hand_gives(model: Any, batch_size: int) -> None:
    for prompt, answer in zip(PROMPTS, decode(model, batch_size=batch_size), strict=True):
        tokens, least = by_hand(model, prompt, 12)
        assert list(answer.tokens) == tokens
        assert answer.least_margin == pytest.approx(least, abs=1e-4)
        assert answer.stop_reason == "length"


def test_rows_that_end_leave_the_batch_and_the_others_go_on(model: Any) -> None:
    free = decode(model)
    ends = {free[0].tokens[2], free[3].tokens[5]}
    with shapes_of(model) as shapes:
        ended = decode(model, end_tokens=ends, batch_size=len(PROMPTS))
    widths = [rows for rows, _ in shapes[1:]]
    for answer, whole in zip(ended, free, strict=True):
        first = next((i for i, token in enumerate(whole.tokens) if token in ends), None)
        assert answer.tokens == (whole.tokens if first is None else whole.tokens[:first])
        assert answer.stop_reason == ("length" if first is None else "stop")
    assert shapes[0] == (1, sum(map(len, PROMPTS))), "prompts are read without padding"
    assert sum(widths) == sum(min(11, len(one.tokens)) for one in ended), "no row is computed after its end"


def test_the_next_prompt_takes_a_freed_place(model: Any) -> None:
    """Three answers of many lengths at a time: as many steps as the tokens of all need, and a few at the end."""
    prompts = [np.random.default_rng(50 + i).integers(3, 300, 4 + i % 5).tolist() for i in range(24)]
    free = decode(model, prompts=prompts, max_new_tokens=30)
    wanted = {tuple(answer.tokens[: 1 + i * 7 % 30]) for i, answer in enumerate(free)}
    with shapes_of(model) as shapes:
        found = decode(
            model,
            prompts=prompts,
            max_new_tokens=30,
            batch_size=3,
            is_complete=lambda tokens: tuple(tokens) in wanted,
        )
    for answer, whole in zip(found, free, strict=True):
        assert answer.tokens == whole.tokens[: len(answer.tokens)]
        assert answer.least_margin >= whole.least_margin - 1e-4
    steps = [rows for rows, tokens in shapes if tokens == 1]
    num_read = sum(len(one.tokens) - 1 for one in found)  # the first token comes from reading the prompt
    assert sum(steps) == num_read and max(steps) == 3
    assert len(steps) <= num_read / 3 + 30


def test_prompts_are_read_as_places_free(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass has more tokens than it may, and none is read long before it is written on."""
    monkeypatch.setattr("raytrain.models.packed_reading.MAX_TOKENS", 25)
    with shapes_of(model) as shapes:
        found = decode(model, batch_size=2, max_new_tokens=4)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        assert list(answer.tokens) == by_hand(model, prompt, 4)[0]
    readings = [i for i, (rows, tokens) in enumerate(shapes) if tokens > 1 and rows == 1]
    assert len(readings) >= 3 and readings[-1] > len(readings), "steps lie between the readings"
    assert max(tokens for _, tokens in shapes) <= 25


def test_what_is_complete_ends(model: Any) -> None:
    answers = decode(model, is_complete=lambda tokens: len(tokens) == 4)
    assert [(len(one.tokens), one.stop_reason) for one in answers] == [(4, "stop")] * len(PROMPTS)


def test_a_sliding_window_is_kept() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6,
    )  # fmt: skip
    mistral = MistralForCausalLM(config)
    for prompt, answer in zip(PROMPTS, decode(mistral, batch_size=3), strict=True):
        assert list(answer.tokens) == by_hand(mistral, prompt, 12)[0]


EXAMPLES = np.random.default_rng(9).integers(3, 300, 40).tolist()


def test_what_all_prompts_begin_with_is_read_once(model: Any) -> None:
    """One of them is nothing else but one token less, another the same twice."""
    given = [EXAMPLES + prompt for prompt in PROMPTS] + [EXAMPLES[:-1], EXAMPLES + PROMPTS[0]]
    with shapes_of(model) as shapes:
        answers = decode(model, prompts=given, batch_size=len(given))
    assert shapes[:2] == [(1, 40 + sum(map(len, PROMPTS))), (len(given), 1)]
    for prompt, answer in zip(given, answers, strict=True):
        tokens, least = by_hand(model, prompt, 12)
        assert list(answer.tokens) == tokens
        assert answer.least_margin == pytest.approx(least, abs=1e-4)


def test_where_a_window_slides_each_reads_all_by_itself() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6,
    )  # fmt: skip
    mistral = MistralForCausalLM(config)
    given = [EXAMPLES + prompt for prompt in PROMPTS]
    for prompt, answer in zip(given, decode(mistral, prompts=given), strict=True):
        assert list(answer.tokens) == by_hand(mistral, prompt, 12)[0]


def test_the_mode_stays_and_nothing_is_asked_of_nothing(model: Any) -> None:
    model.train()
    assert decode(model, prompts=[]) == []
    decode(model, prompts=PROMPTS[:1])
    assert model.training
    model.eval()


def test_a_stop_text_is_found_as_soon_as_it_stands_there(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    text = "What is the sum of two and three? The answer is fivé…\n\nQuestion: what is two " + "and two " * 20
    tokens = tokenizer(text)["input_ids"]
    for stops in (["\n\n"], ["é…"], ["Question:", "sum"], ["nothing of it"], ["answer is fivé…\n\nQuestion"]):
        for count in range(1, len(tokens) + 1):
            whole = tokenizer.decode(tokens[:count], skip_special_tokens=True)
            before = tokenizer.decode(tokens[: count - 1], skip_special_tokens=True)
            if any(stop in before for stop in stops):
                break
            assert holds_stop(tokenizer, stops, tokens[:count]) == any(stop in whole for stop in stops)
    assert text_before("one two three two", ["two", "three"]) == "one "
    assert text_before("one", ["two"]) == "one"


def test_what_is_no_number_in_one_row_stays_there(tiny_llama: Path) -> None:
    """Its slot is taken by others afterwards."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    whole = decode(model, batch_size=2)  # proven sound
    used = {token for prompt, one in zip(PROMPTS, whole, strict=True) for token in (*prompt, *one.tokens)}
    sick = min(set(range(3, 300)) - used)

    spoil_token(model, sick)
    prompts = [[*PROMPTS[0][:2], sick, *PROMPTS[0][2:]], *PROMPTS, [sick]]
    found = decode(model, prompts=prompts, batch_size=2)
    assert [one.stop_reason for one in found] == ["nan", *["length"] * len(PROMPTS), "nan"]
    assert [one.tokens for one in found[1:-1]] == [one.tokens for one in whole]


def test_a_slot_grows_no_further_than_a_row_may() -> None:
    source = DynamicCache()
    source.update(*torch.randn(2, 1, 3, 5, 4), 0)
    room: dict[int | None, int] = {}
    for most in (None, 6):
        cache = SlotCache(2, 4, most)
        cache.put(0, source, torch.arange(5))
        cache.expect([6])
        keys = cache.layers[0].keys
        assert keys is not None
        room[most] = keys.shape[2]
    assert room == {None: 8, 6: 6}


def test_a_slot_grows_and_its_tokens_stay() -> None:
    source = DynamicCache()
    texts = torch.randn(2, 1, 3, 5, 4)  # keys and values of a row: heads, tokens, size
    source.update(*texts, 0)
    cache = SlotCache(2, 2)
    cache.put(0, source, torch.tensor([0, 1]))
    cache.put(1, source, torch.tensor([4, 2, 0, 1]))
    seen = cache.expect([3, 5])
    assert seen[:, 0, 0].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    new = torch.randn(2, 2, 3, 1, 4)
    keys, values = cache.update(*new, 0)
    for found, old, latest in ((keys, texts[0, 0], new[0]), (values, texts[1, 0], new[1])):
        assert torch.equal(found[0, :, :3], torch.cat([old[:, [0, 1]], latest[0]], dim=1))
        assert torch.equal(found[1], torch.cat([old[:, [4, 2, 0, 1]], latest[1]], dim=1))
    cache.move(1, 0)
    cache.expect([6])
    keys, _ = cache.update(*new[:, :1], 0)
    assert torch.equal(keys[0, :, :4], texts[0, 0][:, [4, 2, 0, 1]]) and cache.get_seq_length() == 5

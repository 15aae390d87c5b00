"""Likelihoods of many texts together are those of each alone, by the book."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import spoil_token
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

from raytrain.errors import DataError
from raytrain.models.likelihood import Passage, log_likelihoods, passage_of, windows_of
from raytrain.models.text_generation import encode_prompt


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


def alone(model: Any, passage: Passage) -> tuple[float, bool]:
    """One passage, whole logits, one token at a time."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([passage.ids])).logits[0].double().log_softmax(-1)
    places = range(len(passage.ids) - passage.num_targets, len(passage.ids))
    sums = math.fsum(float(logits[i - 1, passage.ids[i]]) for i in places)
    return sums, all(int(logits[i - 1].argmax()) == passage.ids[i] for i in places)


def test_what_is_no_number_in_one_text_stays_there(tiny_llama: Path) -> None:
    """They begin alike, and one pass reads them all."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    shared, sick = (5, 6, 7, 8), 299
    given = [Passage((*shared, *ids), len(ids)) for ids in ((11, sick, 12), (11, 13, 14), (15, 16), (sick,))]
    whole = log_likelihoods(model, given)
    spoil_token(model, sick)
    found = log_likelihoods(model, given)
    assert [math.isnan(one.log_likelihood) for one in found] == [True, False, False, False], (
        "the last token is judged, and read by nobody"
    )
    assert [one.log_likelihood for one in found[1:]] == pytest.approx([w.log_likelihood for w in whole[1:]])


def passages(num: int, vocabulary: int = 300) -> list[Passage]:
    generator = np.random.default_rng(4)
    found = []
    for _ in range(num):
        ids = tuple(int(one) for one in generator.integers(3, vocabulary, generator.integers(2, 30)))
        found.append(Passage(ids, int(generator.integers(1, len(ids)))))
    return found


@pytest.mark.parametrize("max_tokens", [1, 40, 4096])
def test_together_is_as_alone(model: Any, max_tokens: int) -> None:
    given = passages(25)
    told: list[tuple[int, int]] = []
    found = log_likelihoods(model, given, max_tokens=max_tokens, on_progress=lambda *done: told.append(done))
    for one, passage in zip(found, given, strict=True):
        expected, is_greedy = alone(model, passage)
        assert one.log_likelihood == pytest.approx(expected, abs=1e-4)
        assert (one.num_targets, one.is_greedy) == (passage.num_targets, is_greedy)
    assert told[-1] == (25, 25)
    assert len(told) == {1: 25, 40: len(told), 4096: 1}[max_tokens]
    assert model.training is False


def test_what_the_model_itself_writes_is_greedy(model: Any) -> None:
    start = torch.tensor([[5, 9, 11]])
    written = model.generate(start, max_new_tokens=6, do_sample=False)[0].tolist()
    found = log_likelihoods(model, [Passage(tuple(written), 6), Passage((*written[:-1], 7), 6)])
    assert [one.is_greedy for one in found] == [True, written[-1] == 7]


def test_a_model_that_cannot_pack_reads_one_at_a_time() -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4, use_cache=False)
    mamba = MambaForCausalLM(config).eval()
    given = passages(4, vocabulary=64)
    for one, passage in zip(log_likelihoods(mamba, given), given, strict=True):
        assert one.log_likelihood == pytest.approx(alone(mamba, passage)[0], abs=1e-4)


def test_nan_is_told_as_nan(tiny_llama: Path) -> None:
    broken = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    (one,) = log_likelihoods(broken, passages(1))
    assert math.isnan(one.log_likelihood)
    assert log_likelihoods(broken, []) == []


def test_a_continuation_is_tokenized_with_its_context(tokenizer: Any) -> None:
    for context, continuation in (("the answer is", " yes"), ("the answer is ", "yes"), ("a\n\n", "b")):
        passage = passage_of(tokenizer, context, continuation, None)
        whole = tokenizer(context + continuation)["input_ids"]
        assert list(passage.ids) == whole
        assert passage.num_targets == len(whole) - len(tokenizer(context.rstrip())["input_ids"])
    assert passage_of(tokenizer, "the answer is ", "yes", None) == passage_of(
        tokenizer, "the answer is", " yes", None
    )


def test_nothing_to_judge_is_refused(tokenizer: Any) -> None:
    for context in ("abc", ""):
        with pytest.raises(DataError, match="nothing to judge"):
            passage_of(tokenizer, context, "", None)


def test_the_model_answers_afterwards_as_before(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    log_likelihoods(model, passages(3))
    assert model.config._attn_implementation == "sdpa"
    assert model.training is False


def test_an_empty_context_is_the_first_token(tokenizer: Any) -> None:
    passage = passage_of(tokenizer, "", "yes", None)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = tokenizer("yes")["input_ids"]
    ids = ids if ids[0] == first else [first, *ids]
    assert list(passage.ids) == ids and passage.num_targets == len(ids) - 1


def test_what_does_not_fit_loses_its_beginning_and_says_so(tokenizer: Any) -> None:
    whole = passage_of(tokenizer, "one two three four five six", " seven", None)
    cut = passage_of(tokenizer, "one two three four five six", " seven", 6)
    assert cut.was_cut and not whole.was_cut
    assert cut.ids == whole.ids[-7:] and cut.num_targets == min(whole.num_targets, 6)


@pytest.mark.parametrize("max_positions", [4, 7, 1000])
def test_windows_judge_each_token_once(tokenizer: Any, max_positions: int) -> None:
    text = "the quick brown fox jumps over the lazy dog and runs away"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = windows_of(tokenizer, text, max_positions)
    judged = [token for one in windows for token in one.ids[-one.num_targets :]]
    assert judged == ids
    assert all(len(one.ids) - 1 <= max_positions and one.num_targets < len(one.ids) for one in windows)
    if len(windows) > 1:
        assert len(windows[-1].ids) == max_positions, "the last has as much context as fits"
    assert windows_of(tokenizer, "", 10) == []


def test_no_text_begins_twice(tiny_llama: Path) -> None:
    """A chat template that writes the first token itself, before a tokenizer that would add it."""
    from tokenizers.processors import TemplateProcessing

    adding = AutoTokenizer.from_pretrained(tiny_llama)
    first = adding.bos_token
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, adding.bos_token_id)]
    )
    plain = passage_of(adding, "the answer is", " yes", None)
    assert plain.ids.count(adding.bos_token_id) == 1
    assert passage_of(adding, f"{first}the answer is", " yes", None) == plain
    assert tuple(encode_prompt(adding, f"{first}the answer is")) == plain.ids[: -plain.num_targets]


def test_what_joins_with_its_context_into_one_token_has_something_before_it() -> None:
    class Joining:
        bos_token = None
        bos_token_id = None
        eos_token_id = 9

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [{"a": 1, "ab": 3}[text]]}

    assert passage_of(Joining(), "a", "b", None).ids == (9, 3)  # type: ignore[arg-type]

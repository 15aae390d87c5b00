from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raytrain.errors import ConfigError, DataError
from raytrain.models.adapter import attach_adapter
from raytrain.models.base import load_base_model, load_tokenizer, resolve_base_model
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.models.text_generation import generate_texts
from raytrain.storage.location import Location

PROMPTS = ["What is", "The sum of two and three is five.", "a", "The answer is five. What is the sum", "two"]


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return load(tiny_llama)[0]


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    return load(tiny_llama)[1]


def load(folder: Path, **settings: Any) -> Any:
    section = ModelSection(base_model=str(folder), **settings)
    base = resolve_base_model(section, Location(str(folder)))
    return load_base_model(base, section), load_tokenizer(base, section)


def test_answers_come_in_the_order_of_the_prompts_whatever_the_batch(model: Any, tokenizer: Any) -> None:
    alone = generate_texts(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=1)
    together = generate_texts(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=3)
    assert alone == together
    assert [one.num_prompt_tokens for one in alone] == [len(tokenizer(p)["input_ids"]) for p in PROMPTS]
    assert all(one.num_new_tokens == 6 or one.stop_reason == "stop" for one in alone)


def test_greedy_answers_are_the_likeliest_tokens(model: Any, tokenizer: Any) -> None:
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    for _ in range(5):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = tokenizer.decode(ids[0, -5:], skip_special_tokens=True)
    assert generate_texts(model, tokenizer, PROMPTS[:1], max_new_tokens=5)[0].text == expected


def test_a_row_that_ends_stops_there_and_the_others_go_on(model: Any, tokenizer: Any) -> None:
    free = generate_texts(model, tokenizer, PROMPTS, max_new_tokens=8, batch_size=8)
    # Make the end token of the model one that the first answer contains.
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    first = int(model(input_ids=ids).logits[0, -1].argmax())
    model.generation_config.eos_token_id = [2, first]
    ended = generate_texts(model, tokenizer, PROMPTS, max_new_tokens=8, batch_size=8)
    assert (ended[0].text, ended[0].num_new_tokens, ended[0].stop_reason) == ("", 1, "stop")
    assert [one.num_prompt_tokens for one in ended] == [one.num_prompt_tokens for one in free]


def test_sampling_follows_its_seed_and_leaves_the_random_state_alone(model: Any, tokenizer: Any) -> None:
    before = torch.get_rng_state()
    sampled = [
        generate_texts(model, tokenizer, PROMPTS, max_new_tokens=6, temperature=1.0, top_p=0.9, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    assert torch.equal(before, torch.get_rng_state())


def test_messages_go_through_the_chat_template(model: Any, tokenizer: Any) -> None:
    message = [{"role": "user", "content": "two"}]
    text = "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    chat, plain = (generate_texts(model, tokenizer, [one], max_new_tokens=4) for one in (message, text))
    assert chat == plain
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        generate_texts(model, tokenizer, [message])


def test_no_prompts_give_no_answers_and_progress_is_told(model: Any, tokenizer: Any) -> None:
    assert generate_texts(model, tokenizer, []) == []
    told: list[tuple[int, int]] = []
    generate_texts(
        model, tokenizer, PROMPTS, max_new_tokens=2, batch_size=2, on_progress=lambda *one: told.append(one)
    )
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_prompt_without_tokens_or_without_room_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="prompt 1 is empty"):
        generate_texts(model, tokenizer, ["a", ""])
    with pytest.raises(DataError, match="prompt 0 is too long"):
        generate_texts(model, tokenizer, ["a " * 200], max_new_tokens=100)


def test_a_model_can_answer_in_the_middle_of_its_training(tiny_llama: Path, tokenizer: Any) -> None:
    section, adapter = ModelSection(base_model=str(tiny_llama), gradient_checkpointing=True), AdapterSection()
    base = resolve_base_model(section, Location(str(tiny_llama)))
    model = attach_adapter(load_base_model(base, section, adapter=adapter), adapter, base=base, seed=0)
    ids = torch.tensor([[5, 6, 7]])

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    before = gradients()
    generate_texts(model, tokenizer, PROMPTS, max_new_tokens=4)
    assert model.training
    assert model.get_base_model().config.use_cache is False
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))

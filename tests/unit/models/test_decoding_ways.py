"""However a model keeps what it has read, it writes what reading all anew for each token gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    JambaConfig,
    JambaForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from raytrain.models.decoding import choice
from raytrain.models.decoding.greedy import GreedyAnswer, decode_greedily
from raytrain.models.likelihood import Passage, log_likelihoods
from raytrain.models.packed_reading import reading

pytestmark = pytest.mark.slow

VOCABULARY = 97
SPECIAL = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    **SPECIAL,
}
SMALL = {"num_hidden_layers": 2, "hidden_size": 32, **SPECIAL}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, **SPECIAL}
OPT = {"ffn_dim": 48, "num_attention_heads": 4, "max_position_embeddings": 256, "word_embed_proj_dim": 32}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}

BUILD: dict[str, tuple[str, Callable[[], Any]]] = {
    "llama": ("_packed", lambda: LlamaForCausalLM(LlamaConfig(**SIZE))),
    "gpt2": ("_packed", lambda: GPT2LMHeadModel(GPT2Config(**GPT2))),
    "opt": ("_packed", lambda: OPTForCausalLM(OPTConfig(**SMALL, **OPT))),
    "mistral": ("_padded", lambda: MistralForCausalLM(MistralConfig(**SIZE, sliding_window=8))),
    "lfm2": ("_alone", lambda: Lfm2ForCausalLM(Lfm2Config(**SIZE, full_attn_idxs=[1]))),
    "jamba": (
        "_alone",
        lambda: JambaForCausalLM(JambaConfig(**SIZE, **JAMBA, num_experts=2, use_mamba_kernels=False)),
    ),
    "mamba": ("_reread", lambda: MambaForCausalLM(MambaConfig(**SMALL, state_size=4))),
    "rwkv": (
        "_reread",
        lambda: RwkvForCausalLM(RwkvConfig(**SMALL, attention_hidden_size=32, context_length=256)),
    ),
}


def built(build: Callable[[], Any]) -> Any:
    """Weights so large that answers differ from prompt to prompt."""
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for one in model.parameters():
            if one.dim() >= 2 and one.std() < 0.1:
                one.mul_(6.0)
    return model


def prompts() -> list[list[int]]:
    """Of 1 to 32 tokens; two are the same, and several begin as others do."""
    generator = random.Random(1)

    def tokens(count: int) -> list[int]:
        return [generator.randrange(3, VOCABULARY) for _ in range(count)]

    one = tokens(12)
    other = one[:7] + tokens(9)
    return [one, one, one[:5], one[:1], other, other + tokens(3), tokens(1), tokens(25), one + tokens(20)]


def decode(model: Any, given: list[list[int]], **options: Any) -> list[GreedyAnswer]:
    found = dict(
        decode_greedily(model, given, pad_id=0, **{"max_new_tokens": 8, "end_tokens": (), **options})
    )
    return [found[i] for i in range(len(given))]


def by_hand(model: Any, prompt: list[int], ends: set[int]) -> tuple[int, ...]:
    written: list[int] = []
    with torch.no_grad():
        while len(written) < 8:
            logits = model(input_ids=torch.tensor([prompt + written]), use_cache=False).logits[0, -1]
            if int(logits.argmax()) in ends:
                break
            written.append(int(logits.argmax()))
    return tuple(written)


@pytest.mark.parametrize("name", BUILD)
def test_it_is_what_reading_all_anew_gives(name: str) -> None:
    way, build = BUILD[name]
    model, ends = built(build), {2, 5, 9, 30, 50}
    expected = [by_hand(model, prompt, ends) for prompt in prompts()]
    assert len(set(expected)) > 3, "answers that are all alike prove nothing"
    for batch_size in (1, 3, 16):
        found = decode(model, prompts(), end_tokens=ends, batch_size=batch_size)
        assert [one.tokens for one in found] == expected
    assert [one.__name__ for one in choice._proven[model].values()] == [way]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Phi3ForCausalLM(
            Phi3Config(**SIZE, original_max_position_embeddings=16, rope_parameters=LONG)
        ),
        lambda: LlamaForCausalLM(
            LlamaConfig(**{**SIZE, "max_position_embeddings": 16}, rope_parameters=DYNAMIC)
        ),
    ],
    ids=["longrope", "dynamic"],
)
def test_a_long_row_changes_nothing_of_a_short_one(build: Callable[[], Any]) -> None:
    """Beyond 16 tokens these models stretch the positions of all rows that are read together."""
    model = built(build)
    short, long = [one for one in prompts() if len(one) < 8], [list(range(3, 40))]
    alone = [decode(model, [one])[0] for one in short]
    together = decode(model, short + long, batch_size=8)
    assert [one.tokens for one in together[:-1]] == [one.tokens for one in alone]
    generated = model.generate(
        torch.tensor(long),
        attention_mask=torch.ones(1, len(long[0]), dtype=torch.long),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert together[-1].tokens == tuple(generated[0, len(long[0]) :].tolist())
    passages = [Passage((*one, 7), 1) for one in short + long]
    judged = [one.log_likelihood for one in log_likelihoods(model, passages)][: len(short)]
    assert judged == [log_likelihoods(model, [one])[0].log_likelihood for one in passages[: len(short)]]


def test_readers_may_end_in_any_order() -> None:
    model = built(BUILD["llama"][1])
    given = prompts()
    expected = [one.tokens for one in decode(model, given)]
    before = model.config._attn_implementation
    first, second = (
        decode_greedily(model, given, max_new_tokens=8, end_tokens=(), pad_id=0) for _ in range(2)
    )
    found = [dict([next(first)]), dict([next(second)])]
    model.train()  # by somebody who does not know
    found[0].update(first)
    assert model.config._attn_implementation != before, "the second still reads"
    found[1].update(second)
    for one in found:
        assert [one[i].tokens for i in range(len(given))] == expected
    assert (model.config._attn_implementation, model.training) == (before, False)


def test_slots_are_as_many_as_prompts() -> None:
    model = built(BUILD["llama"][1])
    with reading(model) as reader, torch.inference_mode():
        rows: Any = choice.rows_of(reader, prompts()[:3], 0, 256, 1024)
        rows.fill()
        rows.read({0: 5, 1: 6, 2: 7})
        assert rows._slots.layers[0].keys.shape == (3, 2, 12 + 64, 8)

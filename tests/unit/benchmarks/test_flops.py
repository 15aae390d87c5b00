"""The FLOP that figures are made of are those that torch counts."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.flops import device_peak, lora_work

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("length", [8, 512])
def test_torch_counts_as_many(length: int) -> None:
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=12,
        num_attention_heads=4, num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        adapted(input_ids=ids).logits.sum().backward()
    work = lora_work(config, rank=4)
    # Eager attention computes the half above the diagonal too.
    expected = work.of_rows([length], num_targets=length) + work.of_length_squared * length**2
    # In the first block no gradient goes back to what is not trained.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.05)


def test_an_unknown_device_is_measured() -> None:
    peak, source = device_peak("cpu", torch.float32)
    assert peak > 1e8 and "measured" in source

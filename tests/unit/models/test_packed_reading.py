"""That a model is left as it was, and let go, by whoever has read with it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from raytrain.models.packed_reading import reading


def test_whoever_has_read_lets_the_model_go(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).train()
    before, attention = set(vars(model.lm_head)), model.config._attn_implementation
    with reading(model) as first, reading(model) as second, torch.inference_mode():
        assert second is first and not model.training
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert model.training and set(vars(model.lm_head)) == before
    assert model.config._attn_implementation == attention
    gone = weakref.ref(model)
    del model, first, second
    gc.collect()
    assert gone() is None


def test_without_room_its_products_are_pytorch_s_own(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with reading(model, has_room=False):
        assert "forward" not in vars(model.lm_head)
    with reading(model):
        assert "forward" in vars(model.lm_head)

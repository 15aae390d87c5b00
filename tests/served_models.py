"""A tiny base model and adapters over it, and what each answers by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def save_adapter(
    base: Path, folder: Path, *, seed: int, rank: int = 4, size: float = 0.2, **settings: Any
) -> Path:
    """A LoRA adapter in PEFT's layout whose matrices are all random: it changes what the base answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, **{"target_modules": "all-linear", **settings})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=size)
    model.save_pretrained(folder)
    return folder


def peft_logits(base: Path, adapter: Path | None, ids: Sequence[int]) -> Any:
    """(tokens, vocabulary), by PEFT itself."""
    import torch

    model = _peft_model(base, adapter)
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).logits[0]


def peft_answer(
    base: Path, adapter: Path | None, ids: Sequence[int], num: int, ends: Sequence[int] = ()
) -> list[int]:
    """The likeliest tokens, each after reading all before it anew; without the end token."""
    import torch

    model, written = _peft_model(base, adapter), list(ids)
    with torch.no_grad():
        for _ in range(num):
            token = int(model(input_ids=torch.tensor([written]), use_cache=False).logits[0, -1].argmax())
            if token in ends:
                break
            written.append(token)
    return written[len(ids) :]


_models: dict[tuple[Path, Path | None], Any] = {}


def _peft_model(base: Path, adapter: Path | None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if (base, adapter) not in _models:
        model = AutoModelForCausalLM.from_pretrained(base)
        _models[base, adapter] = (
            model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
        ).eval()
    return _models[base, adapter]

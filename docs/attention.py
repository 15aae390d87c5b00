"""Writes docs/attention.md: which attention backends each architecture can use, checked here and now on tiny models.

    python docs/attention.py

A unit test fails when the table in the tree is not what this finds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from raytrain.models.attention_backends import BACKENDS, Compared, compare_backends

PLACE = Path(__file__).parent / "attention.md"

_HEAD = """# Attention: which backend works with which architecture

Written by `python docs/attention.py`, which builds a tiny model of each architecture and compares the logits of every
backend with those of `eager` on the same weights, padded rows included; do not edit it by hand.

`model.attention: auto` is `sdpa`, which runs FlashAttention too where it can, or `eager` where the model does not
know it; where it has to take the slower one it says so, with the reason. A backend that a recipe names is used or
refused, never replaced. *Packing* is raytrain's attention over rows that lie after each other (`train.packing`); each
model proves at the start of a run that its rows do not see each other, and is trained on padded rows where it cannot.
"""
_SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_T5 = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
_GPT2 = {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}

# Name, model class, config class, settings.
ARCHITECTURES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("Llama", "LlamaForCausalLM", "LlamaConfig", {**_SMALL, "num_key_value_heads": 2}),
    ("GPT-2", "GPT2LMHeadModel", "GPT2Config", {**_GPT2, "bos_token_id": 1, "eos_token_id": 2}),
    (
        "Mistral, sliding window",
        "MistralForCausalLM",
        "MistralConfig",
        {**_SMALL, "num_key_value_heads": 2, "sliding_window": 4},
    ),
    ("BERT", "BertForMaskedLM", "BertConfig", _SMALL),
    ("T5", "T5ForConditionalGeneration", "T5Config", {**_T5, "decoder_start_token_id": 0}),
    ("ViT", "ViTForImageClassification", "ViTConfig", {**_SMALL, "image_size": 16, "patch_size": 4}),
    (
        "Longformer",
        "LongformerForMaskedLM",
        "LongformerConfig",
        {**_SMALL, "attention_window": [4, 4], "max_position_embeddings": 64},
    ),
)


def builder(model: str, config: str, settings: dict[str, Any]) -> Callable[[str], Any]:
    """A function from a backend's name to a model with always the same weights."""

    def build(backend: str) -> Any:
        torch.manual_seed(0)
        made = getattr(transformers, config)(**settings)
        return getattr(transformers, model)._from_config(made, attn_implementation=backend)

    return build


def inputs_of(model: str) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Two rows of different lengths, padded, and which of their logits count."""
    if "Image" in model:
        return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)}, None
    ids = torch.arange(24).view(2, 12) * 7 % 120 + 3
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "Conditional" in model:
        return {**inputs, "decoder_input_ids": ids[:, :5]}, None
    return inputs, mask.bool()


def findings() -> dict[str, dict[str, Compared]]:
    found = {}
    for name, model, config, settings in ARCHITECTURES:
        inputs, mask = inputs_of(model)
        found[name] = compare_backends(builder(model, config, settings), inputs, mask)
    return found


def render(found: dict[str, dict[str, Compared]]) -> str:
    columns = [*BACKENDS, "packing"]
    lines = [_HEAD, f"| architecture | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, compared in found.items():
        cells = ["yes" if compared[one].status == "equal" else compared[one].status for one in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "`not installed`: the architecture knows the backend, this machine does not have its package, so it was not "
        "compared here.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PLACE.write_text(render(findings()), encoding="utf-8")

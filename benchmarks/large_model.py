"""A model of the shape of Llama 3.2 1B with random weights, for speed alone: nothing has to be downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHAPE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "rope_theta": 500_000.0, "tie_word_embeddings": True,
}  # fmt: skip


def write_large_model(folder: Path, tokenizer: Any) -> Path:
    """Weights in bfloat16 (2.1 GB) beside `tokenizer`, whose vocabulary the model has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **SHAPE)
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

"""Whether an engine's memory can hold what its section lets it take on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError
from raytrain.models.machine import memory_bytes
from raytrain.models.onednn_weights import onednn_bytes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from raytrain.serving.engine.section import EngineSection

_MIB = 1 << 20


def key_value_bytes(config: Any, element_bytes: int) -> int:
    """Of keys and values of one token, over all layers of a model of this config."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    head_size = int(getattr(text, "head_dim", None) or int(text.hidden_size) // heads)
    return 2 * int(text.num_hidden_layers) * kv_heads * head_size * element_bytes


@dataclass(frozen=True)
class Needs:
    """The most that a replica takes, where every answer fills the context."""

    weights_bytes: int
    """With what oneDNN has of them."""
    token_bytes: int
    """Keys and values of one token."""
    num_rows: int
    context_tokens: int
    kept_bytes: int
    """Read prompts and adapters, as much of them as may be."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kept_bytes + self.token_bytes * self.num_rows * self.context_tokens

    def check(self, limit_bytes: int) -> None:
        """Raises ConfigError that says what would fit."""
        if self.total_bytes <= limit_bytes:
            return
        room = max(0, limit_bytes - self.weights_bytes - self.kept_bytes)
        tokens = room // (self.num_rows * self.token_bytes)
        rows = room // (self.context_tokens * self.token_bytes)
        fits = [f"engine.max_context_tokens={tokens}"] if tokens >= 2 else []
        fits += [f"engine.max_rows={rows}"] if rows else []
        answers = self.token_bytes * self.num_rows * self.context_tokens
        raise ConfigError(
            f"a replica may come to need {_mib(self.total_bytes)} of memory, and there are {_mib(limit_bytes)}",
            why=f"{_mib(answers)} for {self.num_rows} answers of {self.context_tokens} tokens, {self.token_bytes} "
            f"bytes each; {_mib(self.weights_bytes)} for the base model; {_mib(self.kept_bytes)} for what is kept",
            fix=f"set {' or '.join(fits)}"
            if fits
            else "take a smaller base model or dtype, set engine.onednn_weights=false, or lower "
            "engine.prefix_cache_mib and engine.adapter_mib",
        )


def check_memory(model: PreTrainedModel, section: EngineSection, context_tokens: int) -> None:
    """Of one replica alone on its machine or GPU. Raises ConfigError."""
    twice = onednn_bytes(model) if section.onednn_weights else 0
    needs = Needs(
        weights_bytes=sum(one.nbytes for one in model.parameters()) + twice,
        token_bytes=key_value_bytes(model.config, model.dtype.itemsize),
        num_rows=section.max_rows,
        context_tokens=context_tokens,
        kept_bytes=(section.prefix_cache_mib + section.adapter_mib) * _MIB,
    )
    needs.check(_limit_bytes(model.device))


def _limit_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return memory_bytes()
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:,.0f} MiB"

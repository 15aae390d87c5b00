"""How rows are laid into micro-batches: packed after each other, or padded under each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from raytrain.data.batches import Dealer, deal_packed, deal_padded
from raytrain.data.collators import Collator, PackedCollator, PaddedCollator
from raytrain.errors import ConfigError
from raytrain.models.attention import try_packing
from raytrain.training.section import TrainSection
from raytrain.training.spec import RunSpec


@dataclass(frozen=True)
class Batching:
    """Which rows share a micro-batch, and how they lie in it."""

    deal: Dealer
    collate: Collator
    is_packed: bool


def build_batching(section: TrainSection, *, max_seq_len: int, pad_id: int, is_packed: bool) -> Batching:
    """Both hold at most micro_batch_size * max_seq_len tokens in one forward pass."""
    if is_packed:
        max_tokens = section.micro_batch_size * max_seq_len
        return Batching(partial(deal_packed, max_tokens=max_tokens), PackedCollator(), True)
    deal = partial(deal_padded, micro_batch_size=section.micro_batch_size)
    return Batching(deal, PaddedCollator(pad_id), False)


def choose_batching(
    model: torch.nn.Module, spec: RunSpec, tokenizer: Any, *, note: Callable[[str], None]
) -> Batching:
    """What `train.packing` asks for; with `auto`, packed where the model proves that rows do not see each other.

    Every rank comes to the same choice, as all hold the same weights. Raises ConfigError where packing was asked for
    and the model cannot.
    """
    reason = try_packing(model) if spec.train.packing != "off" else "train.packing is off"
    if reason is not None and spec.train.packing == "on":
        raise ConfigError(
            "train.packing: on cannot be used with this model",
            why=reason,
            fix="set train.packing to auto (or off): rows are then sorted by length and padded",
        )
    if reason is not None and spec.train.packing == "auto":
        note(f"rows are padded, not packed: {reason}")
    return build_batching(
        spec.train, max_seq_len=spec.data.max_seq_len, pad_id=tokenizer.pad_token_id, is_packed=reason is None
    )

"""Prompts read packed, what they share once, before anything is written after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raytrain.models.decoding.rows import forward, new_cache
from raytrain.models.packed_reading import Reader

if TYPE_CHECKING:
    import torch
    from transformers import Cache


@dataclass(frozen=True)
class ReadPrompt:
    """Where a prompt's tokens stand in the cache of all that were read with it."""

    cache: Cache
    places: torch.Tensor
    """(tokens,), in the only row of `cache`."""
    logits: torch.Tensor
    """(1, vocabulary) of the token that follows; float32."""


def read_trees(reader: Reader, trees: Sequence[Sequence[Sequence[int]]]) -> list[list[ReadPrompt | None]]:
    """One pass over prompts in trees, as `Reader.batches` makes them.

    None stands for a prompt of a larger tree whose logits are no numbers: that may be another's fault, whom a mask only
    hides, so it is to be read by itself.
    """
    import torch

    texts = reader.lay_out(trees)
    device = reader.model.device
    ends = [path[-1] for path in texts.paths]
    kept = sorted(set(ends))  # once, where several prompts are the same
    row_of = {place: row for row, place in enumerate(kept)}
    cache = new_cache(reader.model)
    logits = forward(reader.model, cache, texts.arguments(device), torch.tensor(kept, device=device))[0]
    is_number = logits.amax(dim=1).isfinite().tolist()
    paths = iter(texts.paths)
    found: list[list[ReadPrompt | None]] = []
    for tree in trees:
        prompts: list[ReadPrompt | None] = []
        for _ in tree:
            path = next(paths)
            row = row_of[path[-1]]
            is_doubtful = len(tree) > 1 and not is_number[row]
            places = torch.tensor(path, device=device)
            prompts.append(None if is_doubtful else ReadPrompt(cache, places, logits[row].float()[None]))
        found.append(prompts)
    return found

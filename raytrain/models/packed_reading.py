"""A model made to read texts packed, and what they share once, as far as it proves that it can."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from raytrain.models.adapter import unwrapped
from raytrain.models.inner import inner_model
from raytrain.models.onednn_weights import onednn_weights
from raytrain.models.packing_proof import stretches_positions, try_packing, try_sharing
from raytrain.models.prefix_trees import PrefixTree, grow_trees, num_tokens, tree_arguments, tree_of

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_TOKENS = 2048
"""Of one forward pass: enough for the processor to be busy."""


@dataclass(frozen=True)
class Reader:
    """A model that only reads for now, and how."""

    model: Any
    attention: str | None
    """With which it packs; None where it cannot, and reads one text at a time."""
    can_share: bool
    is_alone: bool = False
    """Whether no row may be read beside another in any way."""

    def batches(self, texts: Sequence[Sequence[int]], max_tokens: int | None = None) -> list[list[list[int]]]:
        """The numbers of the texts of each forward pass, by tree; the longest first, as memory runs out there if it
        does. max_tokens: of a pass, where a single text has not more; MAX_TOKENS unless told."""
        max_tokens = 0 if self.attention is None else MAX_TOKENS if max_tokens is None else max_tokens
        trees = grow_trees(texts, max_tokens) if self.can_share else [[i] for i in range(len(texts))]
        sizes = [num_tokens([texts[i] for i in tree]) for tree in trees]
        found: list[list[list[int]]] = []
        room = 0
        for number in sorted(range(len(trees)), key=lambda number: -sizes[number]):
            if not found or sizes[number] > room:
                found.append([])
                room = max_tokens
            found[-1].append(trees[number])
            room -= sizes[number]
        return found

    def lay_out(self, groups: Sequence[Sequence[Sequence[int]]]) -> PackedTexts:
        """One pass over these groups of texts, each a tree; of one text where the model cannot pack."""
        trees = [tree_of(group) for group in groups]
        starts = itertools.accumulate([len(tree.ids) for tree in trees], initial=0)
        paths = [
            tuple(start + place for place in path)
            for start, tree in zip(starts, trees, strict=False)
            for path in tree.paths
        ]
        return PackedTexts(tuple(trees), tuple(paths), self.attention is not None)


@dataclass(frozen=True)
class PackedTexts:
    """Texts in one sequence."""

    trees: tuple[PrefixTree, ...]
    paths: tuple[tuple[int, ...], ...]
    """Of each text the places of its tokens in the sequence."""
    is_packed: bool

    def arguments(self, device: torch.device) -> dict[str, Any]:
        """What the model is given."""
        import torch

        ids = torch.tensor([[token for tree in self.trees for token in tree.ids]], device=device)
        return {"input_ids": ids, **(tree_arguments(self.trees, device) if self.is_packed else {})}


@contextmanager
def reading(model: nn.Module, *, has_room: bool = True) -> Iterator[Reader]:
    """The model in evaluation mode, and packing texts where it proves that it can. It is left as it was.

    has_room: its weights may lie in memory twice, which makes it faster on a CPU.
    """
    inside: Any = unwrapped(model)
    use = _used.setdefault(inside, _Use())
    if not use.num_readers:
        use.attention, use.was_training = inner_model(inside).config._attn_implementation, inside.training
        use.reader = _proven_reader(inside)
        inside.eval()
        if use.reader.attention is not None:
            inner_model(inside).set_attn_implementation(use.reader.attention)
        if has_room:
            use.speed.enter_context(onednn_weights(model))
    assert use.reader is not None, "who came first has found it"
    use.num_readers += 1
    try:
        yield use.reader
    finally:
        use.num_readers -= 1
        if not use.num_readers:
            del _used[inside]  # its reader holds the model
            use.speed.close()
            inside.train(use.was_training)
            if use.reader.attention is not None:
                inner_model(inside).set_attn_implementation(use.attention)


@dataclass
class _Use:
    """Who reads a model now. Answers are told as they are found, so that readers need not end in the order in which
    they began."""

    num_readers: int = 0
    reader: Reader | None = None
    attention: str | None = None
    was_training: bool = False
    speed: ExitStack = field(default_factory=ExitStack)


_used: dict[Any, _Use] = {}

_proven: WeakKeyDictionary[Any, dict[tuple[Any, ...], tuple[str | None, bool]]] = WeakKeyDictionary()
"""What each model has shown: the attention that it packs with, None where it cannot, and whether it may share."""


def _proven_reader(model: Any) -> Reader:
    """Proven once: of many calls with few texts the proofs would take more than the texts."""
    config = inner_model(model).config
    before = config._attn_implementation
    known = _proven.setdefault(model, {})
    setting = (before, model.dtype, model.device.type)
    if setting not in known:
        is_packed = try_packing(model) is None
        can_share = is_packed and try_sharing(model) is None
        known[setting] = (config._attn_implementation if is_packed else None, can_share)
        if is_packed:
            inner_model(model).set_attn_implementation(before)
    return Reader(model, *known[setting], is_alone=stretches_positions(model))

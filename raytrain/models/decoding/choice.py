"""How a model continues rows: as fast as it proves that it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from raytrain.models.decoding.packed_rows import PackedRows
from raytrain.models.decoding.padded_rows import PaddedRows, RereadRows
from raytrain.models.decoding.rows import Rows, new_cache
from raytrain.models.packed_reading import Reader
from raytrain.models.packing_proof import CANNOT, proof_rows, tolerance

if TYPE_CHECKING:
    import torch

Way = Callable[[Reader, Sequence[Sequence[int]], int, int, int], Rows]
"""reader, prompts, pad_id, num_places, max_new_tokens."""

_proven: WeakKeyDictionary[Any, dict[tuple[Any, ...], Way]] = WeakKeyDictionary()


def rows_of(
    reader: Reader, prompts: Sequence[Sequence[int]], pad_id: int, num_places: int, max_new_tokens: int
) -> Rows:
    """The first of the ways that this model proves to know: what it continues is what it would have read as a whole.

    Packed prompts take no padding and read what they share once, and a freed place is taken by the next. Rows side by
    side need a cache that can drop one; a row by itself a cache; and without one, as of a model that keeps its state
    elsewhere, all of a row is read for each token.
    """
    model = reader.model
    known = _proven.setdefault(model, {})
    setting = (reader.attention, reader.can_share, model.dtype, model.device.type)
    if setting not in known:
        known[setting] = next(
            way for way in _ways(reader) if way is _reread or _is_proven(way, reader, pad_id)
        )
    return known[setting](reader, prompts, pad_id, num_places, max_new_tokens)


def can_join(reader: Reader) -> bool:
    """Whether prompts can be read packed and join rows that are being continued, each in a slot of its own."""
    return reader.can_share and _keeps_all(reader.model) and _is_proven(_packed, reader, 0)


def _ways(reader: Reader) -> Iterator[Way]:
    if reader.can_share and _keeps_all(reader.model):
        yield _packed
    if not reader.is_alone:
        yield _padded
    yield _alone
    yield _reread


def _packed(
    reader: Reader, prompts: Sequence[Sequence[int]], _: int, num_places: int, max_new_tokens: int
) -> Rows:
    return PackedRows(reader, prompts, num_places, max_new_tokens)


def _padded(reader: Reader, prompts: Sequence[Sequence[int]], pad_id: int, num_places: int, _: int) -> Rows:
    return PaddedRows(reader.model, prompts, pad_id, num_places)


def _alone(reader: Reader, prompts: Sequence[Sequence[int]], pad_id: int, *_: int) -> Rows:
    return PaddedRows(reader.model, prompts, pad_id, 1)


def _reread(reader: Reader, prompts: Sequence[Sequence[int]], *_: int) -> Rows:
    return RereadRows(reader.model, prompts)


def _keeps_all(model: Any) -> bool:
    """Whether each token's keys and values stand in the cache by themselves: a sliding window drops some, and a
    recurrent state is of all that was read."""
    from transformers.cache_utils import DynamicLayer

    cache = new_cache(model)
    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)


def _is_proven(way: Way, reader: Reader, pad_id: int) -> bool:
    """Three prompts in two places are continued by given tokens; one ends before the others. The logits are those of
    reading each as a whole."""
    import torch

    longer, shorter = sorted((row.tolist() for row in proof_rows(reader.model)), key=len, reverse=True)
    prompts = [longer, shorter, longer[::-1]]
    written: list[list[int]] = [[], [], []]
    most = [3, 1, 2]
    with torch.inference_mode():
        try:
            rows = way(reader, prompts, pad_id, 2, max(most))
            while rows.fill():
                for row, logits in zip(rows.rows, rows.logits, strict=True):
                    if not _is_as_whole(reader.model, prompts[row.number] + written[row.number], logits):
                        return False
                going = {}
                for place, row in enumerate(rows.rows):
                    if len(written[row.number]) < most[row.number]:
                        written[row.number].append(longer[len(written[row.number])])
                        going[place] = written[row.number][-1]
                rows.read(going)
        except CANNOT:
            return False
    return [len(one) for one in written] == most


def _is_as_whole(model: Any, ids: list[int], logits: torch.Tensor) -> bool:
    import torch

    whole = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()
    difference = float((whole - logits).abs().max()) / max(1.0, float(whole.abs().max()))
    return difference <= tolerance(model.dtype)

"""One pass over texts of several classifiers."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from raytrain.models.classifier import ClassifierTrunk, Head
from raytrain.serving.adapters.bank import AdapterBank
from raytrain.serving.backend import Classification
from raytrain.serving.classification.waiting import Text

if TYPE_CHECKING:
    from raytrain.serving.adapters.weights import AdapterWeights


@dataclass(frozen=True)
class PassStats:
    """Counted since the start."""

    passes: int = 0
    texts: int = 0
    """Divided by passes: how many are classified at a time."""
    tokens: int = 0
    padding_tokens: int = 0
    """That were read beside them."""


class Passes:
    """The body, the adapters mixed in it, and the heads behind it. For one thread, under torch.inference_mode()."""

    def __init__(self, trunk: ClassifierTrunk, most_bytes: int) -> None:
        """most_bytes: that adapters may take."""
        self._trunk = trunk
        self._bank = AdapterBank(trunk.module, most_bytes)
        self._heads: dict[str, Head] = {}
        self.stats = PassStats()

    def put(self, digest: str, lora: AdapterWeights, head: Head) -> int:
        """The bytes that it takes. Raises as `AdapterBank.put`."""
        self._bank.put(digest, lora)
        self._heads[digest] = head
        return self._bank.num_bytes(digest) + head.num_bytes

    def make_way(self, lora: AdapterWeights) -> bool:
        """As `AdapterBank.make_way`."""
        return self._bank.make_way(lora)

    def drop(self, digest: str) -> None:
        self._bank.drop(digest)
        del self._heads[digest]

    def read(self, texts: Sequence[Text]) -> list[Classification | None]:
        """The answer to each; None where the model gave what is no number."""
        began = time.perf_counter()
        # Texts of one classifier lie beside each other, so that its head is asked once.
        order = sorted(range(len(texts)), key=lambda place: texts[place].asked.adapter)
        rows = [texts[place] for place in order]
        ids, mask = self._padded([one.ids for one in rows])
        counts = Counter(one.asked.adapter for one in rows)
        self._bank.use([(digest, num * ids.shape[1]) for digest, num in counts.items()])
        hidden = self._trunk.read(ids, mask)
        chances: list[list[float]] = []
        for digest, num in counts.items():
            part = slice(len(chances), len(chances) + num)
            logits = self._heads[digest].logits(hidden[part], ids[part], mask[part])
            chances += logits.double().softmax(1).tolist()
        self._count(rows, ids.numel())
        told = [_told(text, chance, began) for text, chance in zip(rows, chances, strict=True)]
        return [one for _, one in sorted(zip(order, told, strict=True), key=lambda pair: pair[0])]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest, device = max(map(len, rows)), self._trunk.device
        pad = self._trunk.pad_id
        ids = torch.tensor([[*one, *[pad] * (longest - len(one))] for one in rows], device=device)
        lengths = torch.tensor([[len(one)] for one in rows], device=device)
        return ids, (torch.arange(longest, device=device) < lengths).long()

    def _count(self, rows: Sequence[Text], num_read: int) -> None:
        num_tokens, before = sum(len(one.ids) for one in rows), self.stats
        self.stats = replace(
            before,
            passes=before.passes + 1,
            texts=before.texts + len(rows),
            tokens=before.tokens + num_tokens,
            padding_tokens=before.padding_tokens + num_read - num_tokens,
        )


def _told(text: Text, chances: Sequence[float], began: float) -> Classification | None:
    if not all(map(math.isfinite, chances)):
        return None
    return Classification(tuple(chances), len(text.ids), began - text.asked.arrived)

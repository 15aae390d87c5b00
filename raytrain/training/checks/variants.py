"""The ways of computing one step that must all give the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raytrain.data.batches import Slots
from raytrain.training.checks.scale import Smaller
from raytrain.training.spec import RunSpec

Layout = Literal["padded", "bucketed", "packed"]

_LOGITS_BYTES = 2**30
_BYTES_PER_LOGIT = 4


@dataclass(frozen=True)
class Variant:
    """One way. Rows are padded in the order of the batch, sorted by length first (bucketed), or packed."""

    layout: Layout
    micro_batch_size: int
    strategy: str = "single"
    zero_stage: int | None = None
    num_workers: int = 1
    precision: str = "float32"

    @property
    def name(self) -> str:
        workers = "1 worker" if self.num_workers == 1 else f"{self.num_workers} workers"
        strategy = self.strategy if self.zero_stage is None else f"{self.strategy} ZeRO-{self.zero_stage}"
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return f"{strategy}, {workers}, {self.layout}, micro-batch {self.micro_batch_size}{precision}"


def plan_variants(*, num_rows: int, micro_batch_size: int, precision: str) -> list[Variant]:
    """The variants of one batch of `num_rows` rows; the last ones need two processes, one strategy after the other."""
    some = max(1, min(micro_batch_size, num_rows // 2))
    accumulation = sorted({num_rows, max(1, num_rows // 2), 1}, reverse=True)
    alone = [
        *(Variant("padded", size) for size in accumulation),
        Variant("bucketed", some),
        *(Variant("packed", size) for size in sorted({num_rows, 1}, reverse=True)),
    ]
    if precision != "float32":
        alone.append(Variant("bucketed", some, precision=precision))
    share = max(1, some // 2)
    together = [
        Variant("bucketed", share, "ddp", num_workers=2),
        Variant("packed", share, "ddp", num_workers=2),
        Variant("bucketed", share, "fsdp", num_workers=2),
        Variant("packed", share, "fsdp", num_workers=2),
        *(Variant("bucketed", share, "deepspeed", stage, num_workers=2) for stage in (1, 2, 3)),
    ]
    return alone + together


def spec_of(variant: Variant, spec: RunSpec, num_rows: int) -> RunSpec:
    """The recipe with the values of one variant. Raises ValueError where they do not go together."""
    smaller = Smaller(spec)
    smaller.put("model", dtype="float32")
    scaling: dict[str, Any] = {
        "num_workers": variant.num_workers,
        "strategy": variant.strategy,
        "deepspeed": {} if variant.zero_stage is None else {"zero_stage": variant.zero_stage},
        "use_gpu": False,
    }
    train: dict[str, Any] = {
        "global_batch_size": num_rows,
        "micro_batch_size": variant.micro_batch_size,
        "packing": "on" if variant.layout == "packed" else "off",
        "precision": variant.precision,
        "max_grad_norm": None,
        # AdamW's first moment after one step is then the gradient itself; see `measure`.
        "adam_betas": (0.0, 0.999),
        "weight_decay": 0.0,
        "hooks": [],
    }
    smaller.put_all({"scaling": scaling, "train": train}, silent=True)
    return smaller.spec


def deal_in_order(rows: NDArray[np.int64], world_size: int, micro_batch_size: int) -> Slots:
    """Micro-batches of rows as they come, the plainest way there is."""
    num_steps = max(1, -(-len(rows) // (micro_batch_size * world_size)))
    parts = np.array_split(rows, num_steps * world_size)
    return [parts[step * world_size : (step + 1) * world_size] for step in range(num_steps)]


def rows_that_fit(num_rows: int, longest: int, vocabulary: int) -> int:
    """Rows whose whole logits, padded to the longest row, stay below 1 GiB in float32; at least one."""
    return max(1, min(num_rows, _LOGITS_BYTES // max(1, longest * vocabulary * _BYTES_PER_LOGIT)))

"""The support matrix: what works under which strategy. A recipe is held against it before anything starts.

`tested` means that a test of this repository trains it. `not tested` means that nothing here says it fails, and nothing
here has tried it, most often for want of a GPU. `refused` means that it cannot work, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raytrain.errors import ConfigError
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.training.section import ScalingSection, TrainSection
from raytrain.training.strategies.deepspeed_config import offloads_optimizer, zero_stage

Status = Literal["tested", "not tested", "refused"]

STRATEGIES = ("single", "ddp", "fsdp", "zero1", "zero2", "zero3")
"""Columns of the matrix; zero1 to zero3 are `scaling.strategy: deepspeed` with that `zero_stage`."""


@dataclass(frozen=True)
class Cell:
    """One combination. `reason` says why it is not tested or refused, `fix` what to do about a refusal."""

    status: Status
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True)
class SupportRow:
    """One feature under every strategy."""

    feature: str
    cells: Mapping[str, Cell]


_TESTED = Cell("tested")
_NO_GPU = Cell("not tested", "needs a GPU, and no test here has one")
_NO_DEVICE_TEST = Cell("not tested", "trained on CPUs over gloo here, not on GPUs over NCCL")
_NOBODY_TRIED = Cell("not tested", "no test here trains it")
_ONE_PROCESS = Cell(
    "refused", "one process exchanges nothing", "set scaling.strategy to auto, or scaling.num_workers to 1"
)
_QLORA_FSDP = Cell(
    "refused",
    "bitsandbytes packs 4-bit weights into byte tensors whose first dimension is not the weight's, which FSDP cuts",
    "set adapter.method to lora, or scaling.strategy to ddp",
)
_QLORA_ZERO3 = Cell(
    "refused",
    "ZeRO-3 cuts the 4-bit weights away from the scales that they are read with",
    "set scaling.deepspeed.zero_stage to 1 or 2, adapter.method to lora, or scaling.strategy to ddp",
)
_FLOAT16_ZERO = Cell(
    "refused",
    "DeepSpeed's optimizer holds the gradients, so that raytrain's loss scaler cannot look at them",
    "set train.precision to bfloat16",
)
_HALF_FULL_ZERO = Cell(
    "refused",
    "DeepSpeed would step float32 copies of the weights that a checkpoint, which holds the model's dtype, cannot keep",
    "set model.dtype to float32 (train.precision: bfloat16 computes in bfloat16 all the same)",
)
_NO_OFFLOAD = Cell(
    "refused", "offload is DeepSpeed's", "set scaling.strategy to deepspeed, or drop scaling.deepspeed"
)


def _row(feature: str, everywhere: Cell = _TESTED, **others: Cell) -> SupportRow:
    return SupportRow(feature, {name: others.get(name, everywhere) for name in STRATEGIES})


def _zero(cell: Cell) -> dict[str, Cell]:
    return {"zero1": cell, "zero2": cell, "zero3": cell}


_ROWS = {
    "workers": _row("scaling.num_workers above 1", single=_ONE_PROCESS),
    "elastic": _row("scaling.num_workers [least, most]", _NOBODY_TRIED, single=_ONE_PROCESS, ddp=_TESTED),
    "gpu": _row("scaling.use_gpu", _NO_DEVICE_TEST),
    "lora": _row("adapter.method lora"),
    "qlora": _row("adapter.method qlora", _NO_GPU, fsdp=_QLORA_FSDP, zero3=_QLORA_ZERO3),
    "full": _row("adapter.method full"),
    "dora": _row("adapter.use_dora", _NOBODY_TRIED),
    "float32": _row("train.precision float32"),
    "bfloat16": _row("train.precision bfloat16"),
    "float16": _row("train.precision float16", _NO_GPU, **_zero(_FLOAT16_ZERO)),
    "bfloat16_frozen": _row("model.dtype bfloat16, with an adapter"),
    "float16_frozen": _row("model.dtype float16, with an adapter", _NOBODY_TRIED),
    "half_full": _row(
        "model.dtype bfloat16 or float16, adapter.method full", _NOBODY_TRIED, **_zero(_HALF_FULL_ZERO)
    ),
    "packing": _row("train.packing on"),
    "lightning": _row("train.lightning"),
    "compile": _row("train.compile", _NOBODY_TRIED, single=_TESTED, ddp=_TESTED),
    "gradient_checkpointing": _row("model.gradient_checkpointing"),
    "offload_optimizer": _row(
        "scaling.deepspeed.offload_optimizer", _NO_OFFLOAD, zero1=_NOBODY_TRIED, zero2=_TESTED, zero3=_TESTED
    ),
    "resume": _row("resume from a checkpoint of any other strategy, on another number of workers"),
}


def support_rows() -> list[SupportRow]:
    """The whole matrix, for people to read."""
    return list(_ROWS.values())


def column_of(scaling: ScalingSection) -> str:
    """The column that a recipe's `scaling:` means."""
    if scaling.strategy == "deepspeed":
        return f"zero{zero_stage(scaling.deepspeed)}"
    if scaling.strategy == "auto":
        return "single" if scaling.max_workers == 1 else "ddp"
    return scaling.strategy


def features_of(
    model: ModelSection, adapter: AdapterSection, train: TrainSection, scaling: ScalingSection
) -> list[str]:
    """Keys of the rows that a recipe asks for."""
    is_half = model.dtype != "float32"
    asked = {
        "workers": scaling.max_workers > 1,
        "elastic": scaling.is_elastic,
        "gpu": scaling.use_gpu,
        adapter.method: True,
        "dora": adapter.use_dora,
        train.precision: True,
        f"{model.dtype}_frozen": is_half and adapter.method != "full",
        "half_full": is_half and adapter.method == "full",
        "packing": train.packing == "on",
        "lightning": train.lightning is not None,
        "compile": train.compile,
        "gradient_checkpointing": model.gradient_checkpointing,
        "offload_optimizer": offloads_optimizer(scaling.deepspeed),
    }
    return [key for key, is_asked in asked.items() if is_asked]


def check_support(
    model: ModelSection, adapter: AdapterSection, train: TrainSection, scaling: ScalingSection
) -> None:
    """Raise ConfigError where the matrix refuses what a recipe asks for."""
    column = column_of(scaling)
    for key in features_of(model, adapter, train, scaling):
        row = _ROWS[key]
        cell = row.cells[column]
        if cell.status == "refused":
            raise ConfigError(
                f"{row.feature} does not work with strategy {column}", why=cell.reason, fix=cell.fix
            )

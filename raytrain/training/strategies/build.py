"""Chooses the strategy of a run."""

from __future__ import annotations

from typing import Literal

import torch

from raytrain.errors import ConfigError
from raytrain.training.section import ScalingSection, TrainSection
from raytrain.training.strategies.base import Strategy

StrategyName = Literal["single", "ddp", "fsdp", "deepspeed"]


def choose_strategy(scaling: ScalingSection, world_size: int) -> StrategyName:
    """What `scaling.strategy` means for so many workers. Raises ConfigError where `single` is to hold several."""
    if scaling.strategy == "auto":
        return "single" if world_size == 1 else "ddp"
    if scaling.strategy == "single" and world_size > 1:
        raise ConfigError(
            f"scaling.strategy: single cannot hold {world_size} workers together",
            why="it exchanges nothing",
            fix="set scaling.strategy to auto, or scaling.num_workers to 1",
        )
    return scaling.strategy


def build_strategy(
    scaling: ScalingSection, train: TrainSection, *, world_size: int, device: torch.device
) -> Strategy:
    """*Collective.* The strategy of this rank; for all but `single` the process group is there already.

    Raises ConfigError where what it needs is not installed.
    """
    name = choose_strategy(scaling, world_size)
    if name == "single":
        from raytrain.training.strategies.single import SingleProcess

        return SingleProcess(device)
    if name == "ddp":
        from raytrain.training.strategies.ddp import DistributedDataParallelStrategy

        return DistributedDataParallelStrategy(device)
    if name == "fsdp":
        from raytrain.training.strategies.fsdp import FullyShardedStrategy

        return FullyShardedStrategy(device)
    from raytrain.training.strategies.deepspeed import DeepSpeedStrategy

    return DeepSpeedStrategy(device, scaling.deepspeed, micro_batch_size=train.micro_batch_size)

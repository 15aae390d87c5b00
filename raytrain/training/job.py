"""What the loop works on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from raytrain.data.batches import BatchPlanner
from raytrain.data.collators import Collator
from raytrain.training.channel import Channel
from raytrain.training.gradients import GradientCheck
from raytrain.training.hooks import Hook
from raytrain.training.readings import UnreadStep
from raytrain.training.saving import Saver
from raytrain.training.section import TrainSection
from raytrain.training.state import TrainingState
from raytrain.training.strategies.base import Strategy
from raytrain.training.validation import Evaluator


@dataclass
class Job:
    """Everything one rank needs to train; built in setup.py, resumed or fresh."""

    section: TrainSection
    max_steps: int
    strategy: Strategy
    channel: Channel
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    gradients: GradientCheck
    planner: BatchPlanner
    collate: Collator
    validation: Evaluator
    tokenizer: Any
    state: TrainingState
    saver: Saver
    hooks: dict[str, Hook]
    unread: list[UnreadStep] = field(default_factory=list)
    """Steps since the device was last read."""

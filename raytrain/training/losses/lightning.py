"""A user's LightningModule as the loss: raytrain's loop, rows and checkpoints around its `training_step`.

Lightning is not imported here: a module is known by its class, so that `lightning` and `pytorch_lightning` both serve.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray

from raytrain.data.batches import Examples
from raytrain.data.collators import IGNORED_LABEL
from raytrain.data.tasks import TaskName
from raytrain.errors import TrainingError
from raytrain.training.losses.base import Phase
from raytrain.training.losses.causal_lm import shifted
from raytrain.training.losses.lightning_module import is_overridden

Reduction = Literal["targets", "rows", "sum"]
"""What a step gives for a micro-batch: the mean over targets, the mean over rows, or a sum."""


class LightningLoss:
    """Runs `training_step` (in evaluation `validation_step`, where there is one) and gives its loss as a sum.

    The step gets one dictionary: the model's arguments and `labels`, padded, IGNORED_LABEL where there is no loss.
    What it logs with `self.log` is kept until `take_logged`.
    """

    def __init__(self, module: Any, task: TaskName) -> None:
        self.module = module
        self.training_step = LightningStep(module, "training_step")
        overrides = is_overridden(module, "validation_step")
        self.validation_step = LightningStep(module, "validation_step") if overrides else self.training_step
        self._task = task
        self._trainer = _Trainer()
        self._num_evaluated = 0
        self._has_begun = False
        # Lightning's door for a loop that is not its Trainer: self.log goes there, and self.trainer too. Without
        # _trainer a module would read 0 from self.global_step for ever.
        module.fabric = self._trainer
        module._trainer = self._trainer

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        # Who wants a gradient, a check with dropout off among them, wants the step that is trained.
        is_trained = torch.is_grad_enabled()
        self._trainer.phase = "train" if is_trained else "eval"
        if self.module.training != model.training:
            self.module.train(model.training)
        step = self.training_step if is_trained else self.validation_step
        count = self.count(labels, step.reduction)
        # A rank without rows goes along all the same; labels that are all ignored would make its mean 0/0.
        batch = {**inputs, "labels": torch.where(count == 0, torch.zeros_like(labels), labels)}
        loss = step(batch, self._trainer.batch_idx if is_trained else self._num_evaluated)
        self._num_evaluated += not is_trained
        return loss.float() * (count if step.reduction != "sum" else (count > 0).float())

    def row_weights(self, table: Examples) -> NDArray[np.float64] | None:
        """See WeighsRows."""
        by_row = self.training_step.reduction == "rows"
        return (table.num_loss_tokens > 0).astype(np.float64) if by_row else None

    def take_logged(self, phase: Phase) -> dict[str, float]:
        """See LogsMetrics."""
        return self._trainer.take(phase)

    def at(self, global_step: int, epoch: int, batch_index: int) -> None:
        """See FollowsSteps."""
        if not self._has_begun:  # what was tried before the first step is no figure of the run
            self.take_logged("train")
            self.take_logged("eval")
            self._has_begun = True
        self._num_evaluated = 0
        self._trainer.global_step, self._trainer.current_epoch = global_step, epoch
        self._trainer.batch_idx = batch_index

    def count(self, labels: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        """What a mean of this micro-batch was divided by, float32, on the labels' device."""
        is_target = (shifted(labels) if self._task == "causal_lm" else labels) != IGNORED_LABEL
        if reduction == "rows":
            is_target = is_target.flatten(1).any(dim=1) if is_target.ndim > 1 else is_target
        return is_target.sum().float()


class LightningStep:
    """One of a module's steps, and what its loss is."""

    reduction: Reduction = "targets"

    def __init__(self, module: Any, method: str) -> None:
        self.name = f"{type(module).__name__}.{method}"
        self._run = _with_index(getattr(module, method))

    def __call__(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """The loss, without dimensions. Raises TrainingError where the step returns none."""
        answer = self._run(batch, index)
        loss = answer.get("loss") if isinstance(answer, Mapping) else answer
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            return loss.reshape(())
        raise TrainingError(
            f"{self.name} returned no loss",
            why=f"its loss has the shape {list(loss.shape)}"
            if isinstance(loss, torch.Tensor)
            else f"it returned {type(answer).__name__}",
            fix="return the loss, a tensor of one number, or a dictionary with `loss`",
        )


def _with_index(step: Callable[..., Any]) -> Callable[[dict[str, Any], int], Any]:
    """Lightning's steps may leave out `batch_idx`."""
    takes_index = len(inspect.signature(step).parameters) > 1
    return (lambda batch, index: step(batch, index)) if takes_index else (lambda batch, _: step(batch))


class _Trainer:
    """Stands where Lightning's Trainer and Fabric would: says where the run is, and takes what a module logs."""

    logger = None
    loggers: tuple[Any, ...] = ()

    def __init__(self) -> None:
        is_alone = not torch.distributed.is_initialized()
        self.global_rank = self.local_rank = 0 if is_alone else torch.distributed.get_rank()
        self.world_size = 1 if is_alone else torch.distributed.get_world_size()
        self.global_step = 0
        self.current_epoch = 0
        self.batch_idx = 0
        self.phase: Phase = "train"
        self._values: dict[Phase, dict[str, list[Any]]] = {"train": {}, "eval": {}}

    def log_dict(self, metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            mean = value.detach().float().mean() if isinstance(value, torch.Tensor) else float(value)
            self._values[self.phase].setdefault(name, []).append(mean)

    def take(self, phase: Phase) -> dict[str, float]:
        """Means since the last call, by `module/<phase>/<name>`."""
        taken, self._values[phase] = self._values[phase], {}
        return {
            f"module/{phase}/{name}": sum(float(value) for value in values) / len(values)
            for name, values in taken.items()
        }

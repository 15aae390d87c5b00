"""Finds out, before the first step, what a LightningModule's loss is, so that it can be accumulated exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raytrain.data.batches import Examples
from raytrain.data.collators import IGNORED_LABEL, Collator
from raytrain.data.tasks import TaskName
from raytrain.errors import ConfigError, PlatformError
from raytrain.training.batching import tensors_of
from raytrain.training.losses.lightning import LightningLoss, LightningStep, Reduction
from raytrain.training.losses.lightning_module import make_lightning_module
from raytrain.training.losses.section import LightningSection


def build_lightning_loss(
    section: LightningSection,
    task: TaskName,
    model: torch.nn.Module,
    table: Examples,
    collate: Collator,
    *,
    note: Callable[[str], None],
) -> LightningLoss:
    """The module of a recipe as a loss. Raises ConfigError as `make_lightning_module` and `prove_reductions` do."""
    loss = LightningLoss(make_lightning_module(section, model, note=note), task)
    prove_reductions(loss, model, table, collate)
    return loss


_NUM_PROBED = 8
"""Trained parameters, the last of the model, whose gradient is looked at."""


@dataclass(frozen=True)
class _Pair:
    """Two rows, each alone and both in one micro-batch, and the targets of each."""

    first: dict[str, Any]
    second: dict[str, Any]
    both: dict[str, Any]
    counts: tuple[float, float]


def prove_reductions(loss: LightningLoss, model: torch.nn.Module, table: Examples, collate: Collator) -> None:
    """Run a short and a long row through the module's steps, each alone and together, in evaluation mode.

    Loss and gradient together must follow from those alone, by a mean over targets, a mean over rows or a sum; a loss
    that counts padding, say, does not. A second time the short row has one target only, so that the two means lie far
    apart: in the gradient also where all tokens cost the same, as under fresh weights. Raises ConfigError where no
    reduction fits, or several do, or the two steps differ.
    """
    pairs = _pairs(loss, model, table, collate)
    if not pairs:
        return
    first = next(model.parameters())
    probe = _Probe(
        [one for one in model.parameters() if one.requires_grad][-_NUM_PROBED:], first.dtype == torch.float32
    )
    was_training = model.training
    loss.module.eval()
    try:
        with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []):
            for step in dict.fromkeys((loss.training_step, loss.validation_step)):
                fitting = _fitting(step, pairs, probe)
                if step is not loss.training_step and loss.training_step.reduction in fitting:
                    fitting = {loss.training_step.reduction}  # without a gradient it may not be told apart
                step.reduction = _the_only(fitting, step.name)
    finally:
        loss.module.train(was_training)
    by_row = {step.reduction == "rows" for step in (loss.training_step, loss.validation_step)}
    if len(by_row) > 1:
        raise ConfigError(
            f"{loss.training_step.name} and {loss.validation_step.name} measure by different means",
            why=f"over {loss.training_step.reduction} the one, over {loss.validation_step.reduction} the other",
            fix="return the same loss from both",
        )


def _pairs(loss: LightningLoss, model: torch.nn.Module, table: Examples, collate: Collator) -> list[_Pair]:
    """The shortest row with a longer one: as they are, and with one target left to the shortest."""
    counts = np.asarray(table.num_loss_tokens)
    lengths = np.asarray(table.lengths)
    usable = np.flatnonzero(counts > 0)
    if len(usable) == 0:
        return []
    usable = usable[np.argsort(lengths[usable], kind="stable")]
    short = int(usable[0])
    longer = usable[lengths[usable] >= 2 * lengths[short]]
    long = int(longer[0]) if len(longer) else int(usable[-1])
    device = next(model.parameters()).device

    def batch_of(*rows: int) -> dict[str, Any]:
        inputs, labels = tensors_of(collate(table, np.array(rows)), device)
        return {**inputs, "labels": labels}

    first, second, both = batch_of(short), batch_of(long), batch_of(short, long)
    pairs = [_counted(loss, first, second, both)]
    if first["labels"].ndim > 1:
        one_target = _with_one_target(first["labels"])
        masked = both["labels"].clone()
        masked[0, : one_target.shape[1]] = one_target[0]
        pairs.append(_counted(loss, {**first, "labels": one_target}, second, {**both, "labels": masked}))
    return pairs


def _counted(
    loss: LightningLoss, first: dict[str, Any], second: dict[str, Any], both: dict[str, Any]
) -> _Pair:
    counts = (float(loss.count(one["labels"], "targets")) for one in (first, second))
    return _Pair(first, second, both, (next(counts), next(counts)))


def _with_one_target(labels: torch.Tensor) -> torch.Tensor:
    """(1, length): only the last target stays, which is never the first token of a row with several."""
    kept = torch.full_like(labels, IGNORED_LABEL)
    last = int((labels[0] != IGNORED_LABEL).nonzero()[-1])
    kept[0, last] = labels[0, last]
    return kept


@dataclass(frozen=True)
class _Probe:
    """Runs a step, and says how near two results are."""

    parameters: list[torch.nn.Parameter]
    is_exact: bool

    def __call__(self, step: LightningStep, batch: dict[str, Any]) -> _Result:
        """A fault of the user's code is told as such here, before workers are blamed for it."""
        try:
            with torch.enable_grad():
                loss = step(batch, 0)
                found = (
                    torch.autograd.grad(loss, self.parameters, allow_unused=True)
                    if loss.requires_grad
                    else None
                )
        except PlatformError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{step.name} failed on the first rows",
                why=f"{type(error).__name__}: {error}",
                fix="mend the module; its batch is one dictionary of the model's arguments and `labels`, and the rows, "
                "the optimizer and the Trainer's loops are not within its reach (docs/lightning.md)",
            ) from error
        value = float(loss.detach())
        if not np.isfinite(value):
            raise ConfigError(
                f"the loss of {step.name} is {value} before the first step",
                why="on two of the training rows, in evaluation mode",
                fix="look at the loss where few labels are not -100, and at the weights of the base model",
            )
        if found is None:
            return _Result(value, None)
        parts = [
            torch.zeros(one.numel(), device=one.device) if gradient is None else gradient.flatten()
            for one, gradient in zip(self.parameters, found, strict=True)
        ]
        return _Result(value, torch.cat([part.double() for part in parts]))

    def agree(self, expected: _Result, found: _Result) -> bool:
        """To rounding; half precision rounds every sum in its own way."""
        of_loss, of_gradient = (1e-5, 1e-3) if self.is_exact else (2e-2, 5e-2)
        if abs(expected.loss - found.loss) > of_loss * max(1.0, abs(found.loss)):
            return False
        if expected.gradient is None or found.gradient is None:
            return True
        distance = (expected.gradient - found.gradient).norm()
        return bool(distance <= of_gradient * found.gradient.norm() + 1e-12)


@dataclass(frozen=True)
class _Result:
    """The loss of one micro-batch and its gradient, flat, with respect to what is probed."""

    loss: float
    gradient: torch.Tensor | None

    def plus(self, other: _Result, mine: float, theirs: float) -> _Result:
        """Both, weighed."""
        loss = mine * self.loss + theirs * other.loss
        if self.gradient is None or other.gradient is None:
            return _Result(loss, None)
        return _Result(loss, mine * self.gradient + theirs * other.gradient)


def _fitting(step: LightningStep, pairs: list[_Pair], probe: _Probe) -> set[Reduction]:
    """The reductions that explain every pair. Raises ConfigError where none does."""
    fitting: set[Reduction] = {"targets", "rows", "sum"}
    for pair in pairs:
        alone, other, both = (probe(step, batch) for batch in (pair.first, pair.second, pair.both))
        n, m = pair.counts
        expected: dict[Reduction, _Result] = {
            "targets": alone.plus(other, n / (n + m), m / (n + m)),
            "rows": alone.plus(other, 0.5, 0.5),
            "sum": alone.plus(other, 1.0, 1.0),
        }
        fitting &= {one for one, value in expected.items() if probe.agree(value, both)}
        if not fitting:
            raise ConfigError(
                f"the loss of {step.name} is no mean and no sum over targets or rows",
                why=f"two rows alone give {alone.loss:.6g} and {other.loss:.6g}, together {both.loss:.6g}, where a "
                f"mean over targets would be {expected['targets'].loss:.6g} with a gradient to match; accumulated, it "
                "would depend on the micro-batch size",
                fix="return the mean (or the sum) of the loss over labels that are not -100, so that padding counts "
                "for nothing, and draw no random numbers in evaluation mode",
            )
    if all(n == m for n, m in (pair.counts for pair in pairs)):
        fitting -= {"rows"}  # every row has as many targets: the two means are one
    return fitting


def _the_only(fitting: set[Reduction], name: str) -> Reduction:
    if len(fitting) == 1:
        return next(iter(fitting))
    raise ConfigError(
        f"it cannot be told what the loss of {name} is a mean of",
        why=f"two rows give the same by {' and '.join(sorted(fitting))}, loss and gradient, to what model.dtype rounds",
        fix="set model.dtype: float32 (train.precision: bfloat16 computes in bfloat16 all the same)",
    )

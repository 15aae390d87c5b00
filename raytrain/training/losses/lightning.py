"""A user's LightningModule as the loss: raytrain's loop, rows and checkpoints around its `training_step`.

Lightning is not imported here: a module is known by its class, so that `lightning` and `pytorch_lightning` both serve.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from raytrain.data.batches import Examples
from raytrain.data.collators import IGNORED_LABEL, Collator
from raytrain.data.tasks import TaskName
from raytrain.errors import ConfigError, TrainingError
from raytrain.training.imports import import_named
from raytrain.training.losses.base import Phase
from raytrain.training.losses.causal_lm import shifted
from raytrain.training.losses.section import LightningSection
from raytrain.training.validation import tensors_of

Reduction = Literal["targets", "rows", "sum"]
"""What `training_step` gives for a micro-batch: the mean over targets, the mean over rows, or the sum over targets."""

_ACCUMULATION = "accumulate_grad_batches"
_OPTIMIZER_METHODS = (
    "backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping", "lr_scheduler_step",
    "on_before_backward", "on_after_backward", "on_before_optimizer_step", "configure_model",
)  # fmt: skip
"""Overridden, they would change what is learnt; raytrain's loop does not call them."""
_CALLED = frozenset(["training_step", "validation_step", "forward"])


class LightningLoss:
    """Runs `training_step` (in evaluation `validation_step`, where there is one) and gives its loss as a sum.

    The step gets one dictionary: the model's arguments and `labels`, padded, IGNORED_LABEL where there is no loss.
    What it logs with `self.log` is kept until `take_logged`.
    """

    def __init__(self, module: Any, task: TaskName) -> None:
        self.module = module
        self.training_step = LightningStep(module, "training_step")
        overrides = _is_overridden(module, "validation_step")
        self.validation_step = LightningStep(module, "validation_step") if overrides else self.training_step
        self._task = task
        self._log = _Log()
        self._num_batches = 0
        module.fabric = self._log  # Lightning's door for a loop that is not its Trainer: self.log goes there

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        # Who wants a gradient, a check with dropout off among them, wants the step that is trained.
        is_trained = torch.is_grad_enabled()
        self._log.phase = "train" if is_trained else "eval"
        if self.module.training != model.training:
            self.module.train(model.training)
        step = self.training_step if is_trained else self.validation_step
        count = self._count(labels, step.reduction)
        # A rank without rows goes along all the same; labels that are all ignored would make its mean 0/0.
        batch = {**inputs, "labels": torch.where(count == 0, torch.zeros_like(labels), labels)}
        loss = step(batch, self._num_batches)
        self._num_batches += 1
        return loss.float() * (count if step.reduction != "sum" else (count > 0).float())

    def row_weights(self, table: Examples) -> NDArray[np.float64] | None:
        """See WeighsRows."""
        by_row = self.training_step.reduction == "rows"
        return (table.num_loss_tokens > 0).astype(np.float64) if by_row else None

    def take_logged(self, phase: Phase) -> dict[str, float]:
        """See LogsMetrics."""
        return self._log.take(phase)

    def _count(self, labels: torch.Tensor, reduction: Reduction) -> torch.Tensor:
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


def build_lightning_loss(
    section: LightningSection,
    task: TaskName,
    model: torch.nn.Module,
    table: Examples,
    collate: Collator,
    *,
    note: Callable[[str], None],
) -> LightningLoss:
    """The module of a recipe, proven to give a loss that can be added up over micro-batches and workers.

    Raises ConfigError where the class cannot be made, brings parameters of its own, would step or accumulate by
    itself, or gives a loss that is neither a mean nor a sum.
    """
    name = section.module
    made_by = import_named(name, key="train.lightning.module")
    try:
        module = made_by(model=model, **section.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"train.lightning.module: {name} cannot be made",
            why=f"{type(error).__name__}: {error}",
            fix="its __init__ takes `model` (the loaded base model) and the keys of train.lightning.arguments",
        ) from error
    check_lightning_module(module, section, model, note=note)
    loss = LightningLoss(module, task)
    prove_reductions(loss, model, table, collate)
    return loss


def check_lightning_module(
    module: Any, section: LightningSection, model: torch.nn.Module, *, note: Callable[[str], None]
) -> None:
    """ConfigError where raytrain's loop would do something else than the module's author means; `note` of the rest."""
    name = type(module).__name__
    if not any(base.__name__ == "LightningModule" for base in type(module).__mro__):
        raise ConfigError(
            f"train.lightning.module: {section.module} is no LightningModule",
            why=f"it makes a {name}",
            fix="derive the class from lightning.LightningModule",
        )
    _refuse_own_accumulation(module, section)
    for method in _OPTIMIZER_METHODS:
        if _is_overridden(module, method):
            raise ConfigError(
                f"{name}.{method} would not be called",
                why="raytrain's loop scales, clips and steps by itself, the same under every strategy",
                fix=f"remove {method}; clipping is train.max_grad_norm, the optimizer train.learning_rate and its kin",
            )
    theirs = {id(parameter) for parameter in model.parameters()}
    own = [one for one, parameter in module.named_parameters() if id(parameter) not in theirs]
    if own or not any(id(parameter) in theirs for parameter in module.parameters()):
        raise ConfigError(
            f"train.lightning.module: {name} must train the model that it is given, and nothing else",
            why=f"{own[0]} belongs to no part of it, and no checkpoint or result would hold it"
            if own
            else "none of the model's parameters is among the module's",
            fix="keep `model` as an attribute in __init__ (self.model = model), and let it hold all that is trained",
        )
    unused = [one for one in _lightning_methods(module) if one not in _CALLED and _is_overridden(module, one)]
    if unused:
        note(f"{name}: {', '.join(sorted(unused))} not called: rows, optimizer and loop are the recipe's")


def _refuse_own_accumulation(module: Any, section: LightningSection) -> None:
    name = type(module).__name__
    if not module.automatic_optimization:
        raise ConfigError(
            f"{name} steps its optimizer itself (automatic_optimization = False)",
            why="accumulation would be set in two places, in its training_step and in train.global_batch_size",
            fix="remove automatic_optimization = False and manual_backward, and return the loss",
        )
    hyperparameters = getattr(module, "hparams", {})
    own = section.arguments.get(_ACCUMULATION) or hyperparameters.get(_ACCUMULATION)
    own = own or vars(module).get(_ACCUMULATION)
    if own not in (None, 1):
        raise ConfigError(
            f"accumulation is set twice: {_ACCUMULATION} {own} in {name}, and train.global_batch_size",
            why="both would divide the loss",
            fix=f"remove {_ACCUMULATION} from {name}; "
            f"train.lightning.{_ACCUMULATION}: {own} means the same in the recipe",
        )
    for callback in _callbacks(module):
        if type(callback).__name__ == "GradientAccumulationScheduler":
            raise ConfigError(
                f"accumulation is set twice: {name}.configure_callbacks returns a GradientAccumulationScheduler",
                why="train.global_batch_size decides how many micro-batches make a step",
                fix="remove the callback",
            )


def _callbacks(module: Any) -> list[Any]:
    if not _is_overridden(module, "configure_callbacks"):
        return []
    made = module.configure_callbacks()
    return list(made) if isinstance(made, (list, tuple)) else [made]


def prove_reductions(loss: LightningLoss, model: torch.nn.Module, table: Examples, collate: Collator) -> None:
    """Find out what the losses of the module's steps are, by two rows together and each alone, in evaluation mode.

    Rows with different numbers of targets tell the mean over targets from the mean over rows; where a table has none,
    the two are the same. Raises ConfigError where a loss is neither, nor a sum, or the two steps differ.
    """
    counts = np.asarray(table.num_loss_tokens)
    order = np.argsort(table.lengths, kind="stable")
    usable = order[counts[order] > 0]
    if len(usable) < 2:
        return
    first = int(usable[0])
    others = usable[counts[usable] != counts[first]]
    pair = (first, int(others[0]) if len(others) else int(usable[1]))
    numbers = (float(counts[pair[0]]), float(counts[pair[1]]))
    first_parameter = next(model.parameters())
    device, is_exact = first_parameter.device, first_parameter.dtype == torch.float32
    batches = []
    for rows in ([pair[0]], [pair[1]], list(pair)):
        inputs, labels = tensors_of(collate(table, np.array(rows)), device)
        batches.append({**inputs, "labels": labels})

    was_training = model.training
    loss.module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for step in dict.fromkeys((loss.training_step, loss.validation_step)):
                alone, other, both = (float(step(batch, 0)) for batch in batches)
                step.reduction = _reduction_of(step.name, (alone, other), both, numbers, is_exact=is_exact)
    finally:
        loss.module.train(was_training)
        loss.take_logged("train")
    by_row = {step.reduction == "rows" for step in (loss.training_step, loss.validation_step)}
    if len(by_row) > 1:
        raise ConfigError(
            f"{loss.training_step.name} and {loss.validation_step.name} measure by different means",
            why=f"over {loss.training_step.reduction} the one, over {loss.validation_step.reduction} the other",
            fix="return the same loss from both",
        )


def _reduction_of(
    name: str, alone: tuple[float, float], both: float, counts: tuple[float, float], *, is_exact: bool
) -> Reduction:
    expected: dict[Reduction, float] = {
        "targets": (counts[0] * alone[0] + counts[1] * alone[1]) / sum(counts),
        "rows": sum(alone) / 2,
        "sum": sum(alone),
    }
    nearest = min(expected, key=lambda one: abs(expected[one] - both))
    tolerance = 1e-4 if is_exact else 2e-2  # of the loss; half precision rounds every sum in its own way
    if abs(expected[nearest] - both) <= tolerance * max(1.0, abs(both)):
        return nearest
    raise ConfigError(
        f"the loss of {name} is no mean and no sum over targets or rows",
        why=f"two rows alone give {alone[0]:.6g} and {alone[1]:.6g}, together {both:.6g}, where a mean over targets "
        f"would be {expected['targets']:.6g}; accumulated, it would depend on the micro-batch size",
        fix="return the mean (or the sum) of the loss over labels that are not -100, and draw no random numbers in "
        "evaluation mode",
    )


def _is_overridden(module: Any, method: str) -> bool:
    """Whether a class of the user's, and not Lightning, defines the method."""
    owner = next((base for base in type(module).__mro__ if method in vars(base)), None)
    return owner is not None and owner.__module__.split(".")[0] not in (
        "lightning",
        "pytorch_lightning",
        "torch",
    )


def _lightning_methods(module: Any) -> set[str]:
    """Names that Lightning's classes define for its users to override."""
    classes = [
        base
        for base in type(module).__mro__
        if base.__name__ in ("LightningModule", "ModelHooks", "DataHooks", "CheckpointHooks")
    ]
    return {name for base in classes for name in vars(base) if not name.startswith("_")}


def _with_index(step: Callable[..., Any]) -> Callable[[dict[str, Any], int], Any]:
    """Lightning's steps may leave out `batch_idx`."""
    takes_index = len(inspect.signature(step).parameters) > 1
    return (lambda batch, index: step(batch, index)) if takes_index else (lambda batch, _: step(batch))


class _Log:
    """Stands where Lightning's Fabric would: takes what a module logs, gives means by `module/<phase>/<name>`."""

    logger = None
    loggers: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self.phase: Phase = "train"
        self._values: dict[Phase, dict[str, list[torch.Tensor]]] = {"train": {}, "eval": {}}

    def log_dict(self, metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            one = torch.as_tensor(value).detach().float().mean()
            self._values[self.phase].setdefault(name, []).append(one)

    def take(self, phase: Phase) -> dict[str, float]:
        taken, self._values[phase] = self._values[phase], {}
        return {f"module/{phase}/{name}": float(torch.stack(values).mean()) for name, values in taken.items()}

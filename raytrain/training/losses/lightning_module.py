"""Makes a user's LightningModule, and refuses one whose author means something else than raytrain's loop would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from raytrain.config.imports import make_named
from raytrain.errors import ConfigError
from raytrain.training.losses.section import LightningSection

_ACCUMULATION = "accumulate_grad_batches"
_REFUSED = (
    "backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping", "lr_scheduler_step",
    "on_before_backward", "on_after_backward", "on_before_optimizer_step", "configure_model",
)  # fmt: skip
"""Overridden, they would change what is learnt; raytrain's loop does not call them."""
_CALLED = frozenset(["training_step", "validation_step", "forward"])


def make_lightning_module(
    section: LightningSection, model: torch.nn.Module, *, note: Callable[[str], None]
) -> Any:
    """The module around `model`, on its device.

    Raises ConfigError where the class cannot be made, trains more than the model, or would step or accumulate by
    itself; tells `note` what of it is not used.
    """
    module = make_named(
        section.module,
        key="train.lightning.module",
        takes="`model` (the loaded base model) and the keys of train.lightning.arguments",
        named={"model": model, **section.arguments},
    )
    name = type(module).__name__
    if not any(base.__name__ == "LightningModule" for base in type(module).__mro__):
        raise ConfigError(
            f"train.lightning.module: {section.module} is no LightningModule",
            why=f"it makes a {name}",
            fix="derive the class from lightning.LightningModule",
        )
    _refuse_own_accumulation(module)
    for method in _REFUSED:
        if is_overridden(module, method):
            raise ConfigError(
                f"{name}.{method} would not be called",
                why="raytrain's loop goes backward, clips and steps by itself, the same under every strategy",
                fix=f"remove {method}; layers belong into __init__, clipping is train.max_grad_norm, the optimizer "
                "train.learning_rate and its kin",
            )
    _refuse_own_weights(module, model)
    _note_what_is_unused(module, model, note)
    module.to(next(model.parameters()).device)
    return module


def is_overridden(module: Any, method: str) -> bool:
    """Whether a class of the user's, and not Lightning, defines the method."""
    owner = next((base for base in type(module).__mro__ if method in vars(base)), None)
    return owner is not None and owner.__module__.split(".")[0] not in (
        "lightning",
        "pytorch_lightning",
        "torch",
    )


def _refuse_own_accumulation(module: Any) -> None:
    name = type(module).__name__
    if not module.automatic_optimization:
        raise ConfigError(
            f"{name} steps its optimizer itself (automatic_optimization = False)",
            why="accumulation would be set in two places, in its training_step and in train.global_batch_size",
            fix="remove automatic_optimization = False and manual_backward, and return the loss",
        )
    own = getattr(module, "hparams", {}).get(_ACCUMULATION) or vars(module).get(_ACCUMULATION)
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
    if not is_overridden(module, "configure_callbacks"):
        return []
    made = module.configure_callbacks()
    return list(made) if isinstance(made, (list, tuple)) else [made]


def _refuse_own_weights(module: Any, model: torch.nn.Module) -> None:
    """What is trained must be the model's; a frozen teacher beside it may stay, it is made anew at each start."""
    theirs = {id(parameter) for parameter in model.parameters()}
    own = [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in theirs
    ]
    if own or not any(id(parameter) in theirs for parameter in module.parameters()):
        raise ConfigError(
            f"train.lightning.module: {type(module).__name__} must train the model that it is given, and nothing else",
            why=f"{own[0]} belongs to no part of it, and no checkpoint or result would hold it"
            if own
            else "none of the model's parameters is among the module's",
            fix="keep `model` as an attribute in __init__ (self.model = model), and let it hold all that is trained",
        )


def _note_what_is_unused(module: Any, model: torch.nn.Module, note: Callable[[str], None]) -> None:
    name = type(module).__name__
    unused = [one for one in _lightning_methods(module) if one not in _CALLED and is_overridden(module, one)]
    if unused:
        note(f"{name}: {', '.join(sorted(unused))} not called: rows, optimizer and loop are the recipe's")
    theirs = {id(buffer) for buffer in model.buffers()}
    own = [one for one, buffer in module.named_buffers() if id(buffer) not in theirs]
    if own:
        note(f"{name}: {', '.join(own)}: buffers of the module's own are in no checkpoint")


def _lightning_methods(module: Any) -> set[str]:
    """Names that Lightning's classes define for its users to override."""
    classes = [
        base
        for base in type(module).__mro__
        if base.__name__ in ("LightningModule", "ModelHooks", "DataHooks", "CheckpointHooks")
    ]
    return {name for base in classes for name in vars(base) if not name.startswith("_")}

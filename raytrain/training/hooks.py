"""Where a user's own code joins the loop."""

from __future__ import annotations

from typing import Any

from raytrain.config.imports import make_named
from raytrain.errors import ConfigError


class Hook:
    """Override what you need. Every rank makes its own instance and calls it at the same points.

    An exception in a hook ends the run as any other fault of a worker does.
    """

    def on_step_end(self, global_step: int, metrics: dict[str, float]) -> None:
        """After each optimizer step; `metrics` are the same on every rank.

        A run with hooks therefore reads the loss of every step from the device, whatever `train.log_every` says.
        """

    def on_evaluate(self, global_step: int, metrics: dict[str, float]) -> None:
        """After each evaluation."""

    def on_checkpoint(self, global_step: int) -> None:
        """When a checkpoint begins; what `state_dict` then returns on rank 0 is saved with it."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values that a resumed run needs; saved in the checkpoint under the hook's name."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called once before the first step of a resumed run, on every rank."""


def build_hooks(names: list[str]) -> dict[str, Hook]:
    """Make the hooks that a recipe names as `module:Class`.

    Raises ConfigError where one cannot be imported or is no Hook.
    """
    hooks: dict[str, Hook] = {}
    for name in names:
        made = make_named(name, key="train.hooks", takes="no arguments")
        if not isinstance(made, Hook):
            raise ConfigError(
                f"train.hooks: {name} is no Hook",
                why=f"it makes a {type(made).__name__}",
                fix="derive the class from raytrain.training.hooks.Hook",
            )
        hooks[name] = made
    return hooks

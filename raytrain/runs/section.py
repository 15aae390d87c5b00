"""The `tracking:` section of a recipe: where metrics go besides the records database and metrics.jsonl."""

from __future__ import annotations

from typing import Literal

from raytrain.config.section import Section


class TrackingSection(Section):
    """Where metrics go besides the records database and metrics.jsonl, which always get them."""

    tensorboard: bool = True
    """Write TensorBoard event files into the run's folder."""
    mlflow: str | None = None
    """Tracking URI of MLflow (`http://host:5000`, `sqlite:///mlflow.db`); needs raytrain[mlflow]."""
    mlflow_experiment: str = "raytrain"
    """MLflow experiment, made where it is not there."""
    wandb: str | None = None
    """Weights & Biases project; needs raytrain[wandb] and WANDB_API_KEY in the environment."""
    wandb_mode: Literal["online", "offline", "disabled"] = "online"
    """`offline` writes into the run's folder, for `wandb sync` later."""

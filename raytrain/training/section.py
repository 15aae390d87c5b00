"""The `train:` and `scaling:` sections of a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from raytrain.cluster.section import WorkersSection
from raytrain.config.imports import check_import_name
from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.training.losses.section import LightningSection, LossSection


class TrainSection(Section):
    """How long, how fast and how often: the optimizer's part of a run, its evaluations and its checkpoints."""

    LOOKED_FOR: ClassVar[Mapping[str, str]] = {
        "gradient_accumulation_steps": "accumulation follows from global_batch_size, micro_batch_size and "
        "scaling.num_workers: set global_batch_size",
        "per_device_train_batch_size": "set micro_batch_size, the sequences in one forward pass of a worker",
        "batch_size": "set global_batch_size, the sequences in one step, or micro_batch_size, those in a forward pass",
    }

    num_epochs: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Passes over the training rows; a fraction is allowed. `max_steps`, where set, wins."""
    max_steps: Annotated[int, Field(gt=0, le=2**40)] | None = None
    """Optimizer steps; null = as many as `num_epochs` gives."""
    global_batch_size: Annotated[int, Field(gt=0, le=2**20)] = 16
    """Sequences in one optimizer step, over all workers."""
    micro_batch_size: Annotated[int, Field(gt=0, le=2**20)] = 4
    """Sequences in one forward pass on one worker, at most; packed, as many tokens as so many of the longest have.
    Gradient accumulation follows from the two sizes."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Rows after each other without padding, none of which sees another; auto = where the model can, else padded."""
    compile: bool = False
    """Compile the feed-forward layers with torch.compile: some seconds at the start for faster steps; needs g++."""
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = 2e-4
    """Peak learning rate."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """Where a decaying schedule ends."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the learning rate after warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled decay; one-dimensional parameters (norms, biases) are never decayed."""
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's moment decay rates."""
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's denominator floor."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Clip the global gradient norm to this; null = no clipping."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the forward pass (autocast); float16 needs a GPU, where losses are scaled."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds weights, dropout and row order."""
    log_every: Annotated[int, Field(gt=0)] = 1
    """Steps between recorded metrics; between them no number is asked of the device."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations on the validation rows; 0 = only at the end."""
    eval_max_rows: Annotated[int, Field(gt=0)] | None = None
    """Evaluate on the first so many validation rows; null = all."""
    save_every: Annotated[int, Field(ge=0)] = 100
    """Steps between checkpoints; 0 = by the clock alone (`save_every_minutes`). Both off = no checkpoints."""
    save_every_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes between checkpoints, beside `save_every`; null = off."""
    keep_last_n: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints that stay."""
    keep_best_k: Annotated[int, Field(ge=0)] = 1
    """Checkpoints with the best `monitor` that stay besides."""
    monitor: Literal["eval/loss", "eval/perplexity", "eval/accuracy"] = "eval/loss"
    """Metric that ranks checkpoints and stops early; eval/accuracy = of a classification, with `mode: max`."""
    mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger `monitor` is better."""
    early_stopping_patience: Annotated[int, Field(gt=0)] | None = None
    """Evaluations without a better `monitor` before the run ends; null = off."""
    early_stopping_min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as better."""
    result: Literal["last", "best"] = "last"
    """Which weights the run's result holds: those of the last step, or of the checkpoint with the best `monitor`."""
    max_bad_steps: Annotated[int, Field(gt=0)] = 3
    """Steps in a row with NaN or infinite gradients before the run stops, seen when metrics are recorded next; such a
    step changes no weight."""
    loss: LossSection = LossSection()
    """The loss; by default the one that its task is trained with."""
    lightning: LightningSection | None = None
    """A LightningModule in place of `loss`; null = none."""
    hooks: list[str] = Field(default_factory=list)
    """Classes `module:Class` to be made on every worker, with any of on_step_end, on_evaluate, on_checkpoint."""

    @field_validator("hooks")
    @classmethod
    def _are_classes(cls, value: list[str]) -> list[str]:
        return [check_import_name(name) for name in value]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate} lies above learning_rate {self.learning_rate}"
            )
        if self.early_stopping_patience is not None and self.eval_every == 0:
            raise ValueError(
                "early_stopping_patience counts evaluations: set eval_every to a number of steps"
            )
        if self.result == "best" and not (self.eval_every and self.saves and self.keep_best_k):
            raise ValueError("result: best needs eval_every, keep_best_k and checkpoints")
        best = "max" if self.monitor == "eval/accuracy" else "min"
        if self.mode != best:
            larger = "larger" if best == "max" else "smaller"
            raise ValueError(f"monitor: {self.monitor} is better the {larger} it is: set mode: {best}")
        self._check_lightning()
        return self

    def _check_lightning(self) -> None:
        if self.lightning is None:
            return
        if "global_batch_size" in self.model_fields_set and self.lightning.accumulate_grad_batches:
            raise ConfigError(
                f"accumulation is set twice: train.global_batch_size {self.global_batch_size} and "
                f"train.lightning.accumulate_grad_batches {self.lightning.accumulate_grad_batches}",
                why="each of them decides how many micro-batches make a step",
                fix="remove train.lightning.accumulate_grad_batches "
                "(or train.global_batch_size, to count micro-batches as Lightning does)",
            )
        own = self.lightning.arguments.get("accumulate_grad_batches")
        if own not in (None, 1):
            raise ConfigError(
                f"accumulation is set twice: train.lightning.arguments.accumulate_grad_batches {own}, and "
                "train.global_batch_size",
                why="raytrain's loop accumulates, and the module would too",
                fix=f"remove it from the arguments; train.lightning.accumulate_grad_batches: {own} means the same",
            )
        if self.monitor == "eval/accuracy":
            raise ValueError("monitor eval/accuracy cannot be had with lightning, which gives a loss alone")
        if self.loss != LossSection():
            raise ValueError("the loss is set twice: remove train.loss, or train.lightning")
        if self.packing == "on":
            raise ValueError("packing on cannot be used with lightning, whose training_step sees padded rows")

    @property
    def saves(self) -> bool:
        """Whether the run writes checkpoints of its own accord; one that is asked to stop always does."""
        return self.save_every > 0 or self.save_every_minutes is not None

    def num_steps(self, num_rows: int) -> int:
        """Optimizer steps of the whole run over `num_rows` training rows; the last batch of an epoch may be short."""
        if self.max_steps is not None:
            return self.max_steps
        whole_epochs = math.floor(self.num_epochs)
        rest_rows = math.ceil((self.num_epochs - whole_epochs) * num_rows)
        steps_in = math.ceil(num_rows / self.global_batch_size)
        return max(1, whole_epochs * steps_in + math.ceil(rest_rows / self.global_batch_size))


class DeepSpeedSection(Section):
    """What DeepSpeed spreads over the workers, and a user's own configuration of it."""

    zero_stage: Literal[1, 2, 3] | None = None
    """1 = optimizer state is spread over the workers, 2 = gradients too, 3 = weights too; null = as `config` says,
    else 2."""
    offload_optimizer: bool = False
    """Keep the optimizer's state on the CPU and step there."""
    config: str | dict[str, Any] | None = None
    """A DeepSpeed JSON: its path, or its content. It may not contradict the recipe."""

    @field_validator("config", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """The content stands in the resolved recipe, which is then whole wherever it is read."""
        return _read_json_object(value) if isinstance(value, str) else value


class ScalingSection(WorkersSection):
    """The workers; alone changes between laptop and cluster. Fields that Ray's ScalingConfig has carry its names."""

    max_wait_for_nodes_s: Annotated[float, Field(ge=0)] = 300.0
    """Seconds that a run waits for room for its least number of workers when it has lost a node, before it fails; it
    looks at least once a minute. A cluster that makes nodes by itself is waited for without end."""
    elastic_resize_monitor_interval_s: Annotated[float, Field(ge=1)] = 60.0
    """With [least, most]: seconds between two looks whether there is room for more workers."""
    strategy: Literal["auto", "single", "ddp", "fsdp", "deepspeed"] = "auto"
    """How the workers hold the model together; auto = ddp, or single where there is one worker."""
    deepspeed: DeepSpeedSection = DeepSpeedSection()
    """Of `strategy: deepspeed`."""


def _read_json_object(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: line {error.lineno}: {error.msg}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object, but a {type(content).__name__}")
    return content

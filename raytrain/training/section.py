"""The `train:` and `scaling:` sections of a recipe."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raytrain.config.section import Section


class TrainSection(Section):
    """How long, how fast and how often: the optimizer's part of a run, its evaluations and its checkpoints."""

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
    """Steps between recorded metrics."""
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
    monitor: Literal["eval/loss", "eval/perplexity"] = "eval/loss"
    """Metric that ranks checkpoints and stops early."""
    mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger `monitor` is better."""
    early_stopping_patience: Annotated[int, Field(gt=0)] | None = None
    """Evaluations without a better `monitor` before the run ends; null = off."""
    early_stopping_min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as better."""
    result: Literal["last", "best"] = "last"
    """Which weights the run's result holds: those of the last step, or of the checkpoint with the best `monitor`."""
    max_bad_steps: Annotated[int, Field(gt=0)] = 3
    """Steps in a row with NaN or infinite gradients before the run stops; such a step changes no weight."""
    hooks: list[str] = Field(default_factory=list)
    """Classes `module:Class` to be made on every worker, with any of on_step_end, on_evaluate, on_checkpoint."""

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
        for name in self.hooks:
            module, colon, attribute = name.partition(":")
            if not colon or not module or not attribute or ":" in attribute:
                raise ValueError(f"hook {name!r} must read module:Class")
        return self

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


class ScalingSection(Section):
    """The workers; alone changes between laptop and cluster. Fields that Ray's ScalingConfig has carry its names."""

    num_workers: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Training processes."""
    use_gpu: bool = False
    """One GPU for each worker."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray reserves for each worker."""
    resources_per_worker: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Further Ray resources of each worker, for example {"accelerator_type:A100": 0.001}."""
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """How Ray places the workers on nodes."""
    accelerator_type: str | None = None
    """Ray's name of the GPU type that workers need."""
    threads_per_worker: Annotated[int, Field(ge=1)] | None = None
    """Threads of each worker's arithmetic; null = its CPUs, rounded down, at least 1."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Times that Ray replaces a dead worker before the run fails."""

    @property
    def threads(self) -> int:
        return self.threads_per_worker or max(1, int(self.cpus_per_worker))

    @property
    def worker_resources(self) -> dict[str, float]:
        """What Ray reserves for one worker."""
        gpu = {"GPU": 1.0} if self.use_gpu else {}
        return {"CPU": self.cpus_per_worker, **gpu, **self.resources_per_worker}

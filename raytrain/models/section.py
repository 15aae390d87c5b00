"""The `model:` and `adapter:` sections of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from raytrain.config.section import Section
from raytrain.data.tasks import TaskName


class ModelSection(Section):
    """Which base model is trained, and how it is held in memory."""

    base_model: str
    """Hub id, local folder, .gguf file, artifact, or package://PACKAGE/FILE (a file that a package ships)."""
    task: TaskName = "causal_lm"
    """What the model is trained for; see docs/tasks.md."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; null = its main branch."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The dtype that the base model's weights are held in; adapter weights are always float32."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention backend; auto = sdpa, or eager where the model does not know it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, far less memory."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    chat_template: str | None = None
    """A Jinja chat template, or the path of a file with one; null = the tokenizer's own."""

    @field_validator("base_model")
    @classmethod
    def _check_base_model(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("name a hub id, a local folder, a .gguf file or package://PACKAGE/FILE")
        return value.strip()


class AdapterSection(Section):
    """What is trained: a LoRA adapter over the frozen base model, or all of its weights."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """lora; qlora = lora over a 4-bit base (needs CUDA and the extra `qlora`); full = every weight."""
    lora_rank: int = 16
    """Rank of the update matrices, at least 1."""
    lora_alpha: int = Field(default=32, ge=1)
    """The update is scaled by lora_alpha / lora_rank (by its square root with use_rslora)."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the input of the update matrices."""
    target_modules: list[str] | str = "all-linear"
    """PEFT's own: a list of module name endings, a regular expression, or all-linear (without the head)."""
    modules_to_save: list[str] | None = None
    """Modules that are trained whole and saved with the adapter, for example [lm_head]."""
    use_dora: bool = False
    """Weight-decomposed LoRA (Liu et al. 2024): magnitude and direction are trained apart."""
    use_rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski 2023): lora_alpha / sqrt(lora_rank)."""
    init_lora_weights: Literal["default", "gaussian"] = "default"
    """First values of the A matrices; B starts at zero: step 0 is the base model exactly."""

    @field_validator("lora_rank")
    @classmethod
    def _check_rank(cls, value: int) -> int:
        if value < 1:
            raise ValueError(
                "must be 1 or more; `adapter.method: full` trains all weights without an adapter"
            )
        if value > 65536:
            raise ValueError("must be at most 65536; no model has matrices of a higher rank")
        return value

    @field_validator("target_modules", "modules_to_save")
    @classmethod
    def _check_not_empty(cls, value: list[str] | str | None) -> list[str] | str | None:
        if value is not None and (not value or (isinstance(value, list) and not all(value))):
            raise ValueError("name at least one module, or leave the key out")
        return value

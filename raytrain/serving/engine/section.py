"""`engine:` of a serving config."""

from __future__ import annotations

from pydantic import Field

from raytrain.config.section import Section


class EngineSection(Section):
    """How many requests are answered side by side, and what memory they may take."""

    max_rows: int = Field(default=16, ge=1, le=1024)
    """Answers that are written side by side."""
    max_waiting: int = Field(default=64, ge=0)
    """Requests that may wait for a place; one more is refused with 429."""
    max_context_tokens: int | None = Field(default=None, ge=2)
    """Of a prompt with its answer; null = the positions that the model has."""
    prompt_tokens_per_step: int = Field(default=256, ge=16)
    """Tokens of prompts that are read between two steps of the answers that are being written."""
    prefix_cache_mib: int = Field(default=256, ge=0)
    """For what was read of prompts, where others may begin alike; 0 = off."""
    adapter_mib: int = Field(default=512, ge=1)
    """For adapters that can answer at once."""
    onednn_weights: bool = True
    """Keep weights on a CPU a second time, as oneDNN lays them out: products take two thirds of the time where
    several answers are written at a time, for twice the memory of the base model."""

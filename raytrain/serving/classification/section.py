"""`classification:` of a serving config."""

from __future__ import annotations

from pydantic import Field

from raytrain.config.section import Section


class ClassificationSection(Section):
    """How many texts are classified together, and what memory classifiers may take. They share the base model's weights
    with what writes over it."""

    tokens_per_pass: int = Field(default=2048, ge=16)
    """Of one pass over the model, padding among them; a longer text is read alone."""
    max_waiting: int = Field(default=256, ge=1)
    """Texts that may wait for a pass, and the most of one request; one more is refused with 429."""
    adapter_mib: int = Field(default=256, ge=1)
    """For the adapters of classifiers that can answer at once, beside engine.adapter_mib."""

"""What `raytrain export` and `raytrain check export` take as KEY=VALUE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from raytrain.config.document import Document, Form, apply_overrides
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.release.bundle.formats.torchserve_config import config_faults, model_config
from raytrain.storage.section import StorageSection

AtLeastZero = Annotated[float, Field(ge=0)]


class LimitsSection(Section):
    """How far an exported model's logits may lie from the trained one's, at any position of any prompt: a few times
    what rounding alone has been measured to do, see docs/export.md."""

    max_difference: AtLeastZero = 0.02
    """The largest of one logit."""
    mean_difference: AtLeastZero = 0.01
    """The mean over the vocabulary, at the worst position."""
    max_kl: AtLeastZero = 1e-6
    """Kullback-Leibler divergence of the next token's distribution, in nats."""
    near_tie: AtLeastZero = 0.01
    """Answers may part where the likeliest token leads the next one by no more."""


class Float16LimitsSection(LimitsSection):
    """Eleven bits of mantissa; merging rounds every weight once more."""

    max_difference: AtLeastZero = 0.5
    """The largest of one logit."""
    mean_difference: AtLeastZero = 0.3
    """The mean over the vocabulary, at the worst position."""
    max_kl: AtLeastZero = 5e-3
    """Kullback-Leibler divergence of the next token's distribution, in nats."""
    near_tie: AtLeastZero = 0.05
    """Answers may part where the likeliest token leads the next one by no more."""


class Bfloat16LimitsSection(LimitsSection):
    """Eight bits of mantissa; merging rounds every weight once more."""

    max_difference: AtLeastZero = 4.0
    """The largest of one logit."""
    mean_difference: AtLeastZero = 2.0
    """The mean over the vocabulary, at the worst position."""
    max_kl: AtLeastZero = 0.2
    """Kullback-Leibler divergence of the next token's distribution, in nats."""
    near_tie: AtLeastZero = 0.25
    """Answers may part where the likeliest token leads the next one by no more."""


class ExportLimitsSection(Section):
    """How far an exported model may lie from the trained one, as the export check has measured it."""

    float32: LimitsSection = LimitsSection()
    """Where weights are held in float32."""
    bfloat16: Bfloat16LimitsSection = Bfloat16LimitsSection()
    """Where they are held in bfloat16."""
    float16: Float16LimitsSection = Float16LimitsSection()
    """Where they are held in float16."""

    def limits(self, dtype: str) -> LimitsSection:
        found: LimitsSection = getattr(self, dtype)
        return found


class ExportCheckSection(ExportLimitsSection):
    """The comparison of every format with the trained model."""

    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] = 8
    """Tokens that each format writes by itself, always the likeliest, and that must be the trained model's."""
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 256
    """Longer prompts are cut to their first tokens."""
    held_out_rows: Annotated[int, Field(ge=0, le=1000)] = 4
    """Prompts out of the rows that training held out, where they are at hand; the packaged ones come on top."""
    evaluation_items: Annotated[int, Field(ge=1, le=1000)] = 16
    """Prompts out of an evaluation that `--prompts` names, as many of each of its suites."""


class ExportSettings(Section):
    """What an export takes as KEY=VALUE."""

    export_check: ExportCheckSection = ExportCheckSection()
    """When is an exported model the trained one."""
    torchserve: dict[str, Any] = Field(default_factory=dict)
    """Keys of model-config.yaml in a TorchServe archive, in TorchServe's own words, in place of the usual ones."""
    storage: StorageSection = StorageSection()
    """Where base models are found and bundles are written."""

    @field_validator("torchserve")
    @classmethod
    def _check_torchserve(cls, value: dict[str, Any]) -> dict[str, Any]:
        faults = config_faults(model_config(value, gpu=False))
        if faults:
            raise ValueError(faults[0])
        return value


EXPORT = Form(
    "export settings", "export_check, torchserve and storage", "docs/export.md", "docs/export-reference.md"
)


def settings_from(overrides: list[str], file: Path | None = None) -> ExportSettings:
    """From a YAML file where one is given, and dotted overrides, for example
    `export_check.float32.max_difference=1e-4`. Raises ConfigError that names the key, and its line in the file."""
    if file is not None:
        return build(ExportSettings, load_recipe(file, overrides, form=EXPORT))
    return build(ExportSettings, apply_overrides(Document({}, {(): "the command line"}), overrides))

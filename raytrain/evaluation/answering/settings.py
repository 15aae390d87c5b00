"""How an evaluation is carried out; what is asked stands in its suites."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raytrain.cluster.section import WorkersSection
from raytrain.config.document import Document, apply_overrides
from raytrain.config.recipe import build
from raytrain.config.section import Section
from raytrain.storage.section import StorageSection


class AnsweringSection(Section):
    """How a model on this machine, or on the cluster, answers."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What its weights are held in."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Items that are answered side by side; which ones follows from the suite alone."""
    chat_template: str | None = None
    """A Jinja chat template, or the path of a file with one; null = the model's own."""
    base_model_only: bool = False
    """Of an adapter: its base model, without it, in the same words."""


class EndpointSection(Section):
    """How an HTTP endpoint that speaks OpenAI's API is asked; where MODEL is a URL."""

    model: str | None = None
    """The model's name there; null = the only one that /models lists."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 4
    """Requests under way at a time."""
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """For the endpoint to begin, or to go on, with one answer."""
    max_retries: Annotated[int, Field(ge=0, le=20)] = 5
    """Further attempts after a timeout, a broken connection, or status 408, 429 or 5xx; each waits twice as long,
    at most 120 s."""
    first_wait_s: Annotated[float, Field(ge=0)] = 0.5
    """Before the first of them; a Retry-After of the endpoint wins, up to 120 s."""
    api_key_variable: str | None = None
    """Environment variable with the key; the key itself is written nowhere."""


class EvaluateSettings(Section):
    """What `raytrain evaluate` takes as KEY=VALUE."""

    answering: AnsweringSection = AnsweringSection()
    """How a model answers."""
    endpoint: EndpointSection = EndpointSection()
    """How an endpoint is asked."""
    scaling: WorkersSection = WorkersSection()
    """Ray actors that answer; one = this process, without Ray."""
    storage: StorageSection = StorageSection()
    """Where the evaluation is written."""


def settings_from(overrides: list[str]) -> EvaluateSettings:
    """From dotted overrides, for example `scaling.num_workers=4`. Raises ConfigError that names the key."""
    document: Document = Document({}, {(): "the command line"})
    return build(EvaluateSettings, apply_overrides(document, overrides))

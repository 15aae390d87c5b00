"""`learning:`: which interactions become rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raytrain.config.document import Document, apply_overrides
from raytrain.config.recipe import build
from raytrain.config.section import Section


class PoisoningSection(Section):
    """When rows are set aside for a person to look at."""

    max_alike: Annotated[int, Field(ge=1)] = 5
    """Rows whose request and answer are alike."""
    likeness: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share of word triples that two rows have in common, from which on they are alike."""
    trigger_rows: Annotated[int, Field(ge=2)] = 5
    """Different requests with one new phrase and one answer."""
    trigger_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Of the requests with the phrase, those with that answer."""
    neighbours: Annotated[int, Field(ge=1)] = 5
    """Known requests whose labels a correction is held against."""


class LearningSection(Section):
    """What is learned from."""

    min_quality: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Least score of a row. An answer that nobody judged has 0.5 at most: liked and corrected ones are taken."""
    poisoning: PoisoningSection = PoisoningSection()


class _Whole(Section):
    learning: LearningSection = LearningSection()


def load_learning_section(overrides: list[str]) -> LearningSection:
    """From `learning.KEY=VALUE`; ConfigError names every fault."""
    return build(_Whole, apply_overrides(Document({}), overrides)).learning

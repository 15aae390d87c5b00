"""`pipeline:` of a recipe, and the recipe as `raytrain run` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from raytrain.config.document import Document
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.evaluation.decision.contract import ContractSection, default_contract, load_contract
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.suite import load_suite
from raytrain.storage.manifest import digest_of
from raytrain.training.spec import RunSpec, spec_from_document
from raytrain.tuning.spec import TuneRecipe, TuneSpec, tune_recipe


class PipelineSection(Section):
    """What `raytrain run` does with a recipe beside training it. Files are relative to the recipe."""

    check: bool = True
    """Prove first that the recipe computes, resumes and repeats as it should (`raytrain check pipeline`)."""
    suites: list[str] = Field(default_factory=list)
    """Files of suites that the baseline and what was trained answer; without any it ends with the training."""
    baseline: str | None = None
    """Model or adapter that what was trained is held against; null = the recipe's base model."""
    contract: str | None = None
    """File of what must be shown; null = the default contract."""
    batch_size: int = Field(default=8, ge=1)
    """Items that are answered at a time."""


class _Holder(Section):
    pipeline: PipelineSection = PipelineSection()


class WholeSpec(TuneSpec):
    """Every key that a recipe may have."""

    pipeline: PipelineSection = PipelineSection()


@dataclass(frozen=True)
class PipelineRecipe:
    """Everything that one command needs, read and checked before it begins."""

    spec: RunSpec
    search: TuneRecipe | None
    section: PipelineSection
    suites: list[Suite]
    contract: ContractSection

    @cached_property
    def identity(self) -> str:
        """Digest of everything that decides the result; equal for two runs of one command."""
        return digest_of(
            {
                "recipe": self.spec.identity if self.search is None else self.search.identity,
                "suites": [suite.digest for suite in self.suites],
                "contract": self.contract.digest,
                "pipeline": self.section.model_dump(mode="json", include={"check", "baseline"}),
            }
        )

    @property
    def run_id(self) -> str:
        return f"{self.spec.name}-pipeline-{self.identity.removeprefix('sha256:')[:8]}"

    def to_dict(self) -> dict[str, Any]:
        whole = self.spec.to_dict() if self.search is None else self.search.to_dict()
        return {**whole, "pipeline": self.section.model_dump(mode="json")}


def load_pipeline(path: Path, overrides: list[str] | None = None) -> PipelineRecipe:
    """A recipe with all that it names. Raises ConfigError or DataError with file, line and key of what is wrong."""
    document = load_recipe(path, overrides)
    section = read_section(document)
    name = path.stem
    has_search = "search" in document.values
    return PipelineRecipe(
        spec_from_document(document, default_name=name),
        tune_recipe(document, default_name=name) if has_search else None,
        section,
        [load_items(load_suite(_beside(path, file))) for file in section.suites],
        default_contract() if section.contract is None else load_contract(_beside(path, section.contract)),
    )


def read_section(document: Document) -> PipelineSection:
    """Raises ConfigError for a fault in `pipeline:`."""
    values = {key: value for key, value in document.values.items() if key == "pipeline"}
    return build(_Holder, Document(values, document.origins, document.form)).pipeline


def _beside(recipe: Path, file: str) -> Path:
    return recipe.parent / Path(file).expanduser()

"""The YAML file of a suite: where its items come from, how they are asked, and how answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, PrivateAttr, model_validator

from raytrain.config.document import Form
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.data.section import RowsSection
from raytrain.evaluation.templates import fields_of

Template = Annotated[str, Field(min_length=1)]


SUITE = Form("suite", "suite, kind and items", "jobs/suites/", "docs/evaluation-reference.md")

_COLUMNS_BY_TEMPLATE = "take it out: it says how training reads rows, and here the templates name columns"


class ItemsSource(RowsSection):
    """One place that a suite's rows come from: exactly one of `path`, `dataset` and `generator`."""

    LOOKED_FOR: ClassVar[Mapping[str, str]] = {
        "columns": _COLUMNS_BY_TEMPLATE,
        "layout": _COLUMNS_BY_TEMPLATE,
        "licence": "say it in `description`; it is for the data card, which a suite has not",
    }


class ItemsSection(Section):
    """Which rows are items."""

    source: ItemsSource
    """Where the rows are: a file (a relative path begins at the suite's own folder), a Hugging Face dataset or a
    generator."""
    id: str | None = None
    """Column that names an item; null = the number of its row."""
    group: str | None = None
    """Column of what items share (a text, a repository): those of one group are no independent evidence."""
    category: str | None = None
    """Column to break figures down by."""
    max_items: int | None = Field(default=None, ge=1)
    """So many items at most, drawn by `seed`; null = all."""
    seed: int = 0
    """Which ones `max_items` draws: another seed, other items."""


class FewShotSection(Section):
    """Worked examples before the question."""

    source: ItemsSource
    """Where the examples are; a row that is an item itself is never shown to it."""
    num_shots: int = Field(ge=1, le=64)
    """How many."""
    seed: int = 0
    """Which ones, and in which order; the same for all items."""
    separator: str = "\n\n"
    """Between examples, in completion mode."""


class PromptSection(Section):
    """How an item is asked."""

    mode: Literal["chat", "completion"]
    """chat = a user's message through the model's chat template; completion = text that the model goes on with."""
    template: str
    """The question: a text with columns in braces. Empty where a perplexity is of whole texts."""
    system: str | None = None
    """A system message that goes first, in chat mode."""
    few_shot: FewShotSection | None = None
    """Worked examples; null = none."""

    @model_validator(mode="after")
    def _fits(self) -> PromptSection:
        if self.mode == "completion" and self.system is not None:
            raise ValueError("`system` counts in mode: chat only")
        return self


class GenerationSection(Section):
    """How long an answer may be. Always greedy: the likeliest token each time."""

    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    stop: list[Template] = Field(default_factory=list)
    """Texts that end an answer; what follows is cut off, and they with it."""


class ScorerSection(Section):
    """How an answer is scored."""

    name: str
    """A registered scorer, or a function of your own as `module:function`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""


class SuiteSection(Section):
    """One suite."""

    suite: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """Name, in lower case."""
    version: str = "1"
    """Version of the suite; counts in its digest."""
    description: str = ""
    """For people."""
    kind: Literal["generation", "multiple_choice", "perplexity"]
    """generation = an answer is written and scored; multiple_choice = the likeliest of several; perplexity = how likely
    a text is."""
    items: ItemsSection
    """Which rows are items."""
    prompt: PromptSection
    """How an item is asked. In perplexity it is the context, which counts for nothing."""
    answer: Template
    """The right answer, as a template: of a generation the reference, of a choice its number (from 0) or text, of a
    perplexity the text."""
    choices: str | None = None
    """Column that lists the choices, for multiple_choice."""
    generation: GenerationSection = GenerationSection()
    """For kind: generation."""
    scorer: ScorerSection | None = None
    """For kind: generation."""

    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """Whence it was read, absolute; None where it was read otherwise than its file says. In no digest."""
        return self._file

    @model_validator(mode="after")
    def _fits(self) -> SuiteSection:
        if (self.kind == "generation") != (self.scorer is not None):
            raise ValueError("kind: generation needs a `scorer`, and no other kind takes one")
        if (self.kind == "multiple_choice") != (self.choices is not None):
            raise ValueError("kind: multiple_choice needs `choices`, and no other kind takes it")
        if not self.prompt.template and (self.kind != "perplexity" or self.prompt.mode == "chat"):
            raise ValueError("an empty `prompt.template` is for kind: perplexity in mode: completion only")
        fields_of(self.prompt.template, "prompt.template")
        fields_of(self.answer, "answer")
        return self


def load_suite(path: Path, overrides: list[str] | None = None) -> SuiteSection:
    """Read a suite's file, whose sources are sought beside it. Raises ConfigError with file, line and key of each
    fault."""
    section = build(SuiteSection, load_recipe(path, overrides, form=SUITE))
    place = path.expanduser().absolute()
    folder = place.parent
    items = _beside(folder, section.items)
    few_shot = None if section.prompt.few_shot is None else _beside(folder, section.prompt.few_shot)
    prompt = section.prompt.model_copy(update={"few_shot": few_shot})
    found = section.model_copy(update={"items": items, "prompt": prompt})
    found._file = None if overrides else place
    return found


S = TypeVar("S", ItemsSection, FewShotSection)


def _beside(folder: Path, holder: S) -> S:
    """With a relative path of its source taken from `folder`."""
    path = holder.source.path
    if path is None or "://" in path:
        return holder
    place = str(folder / Path(path).expanduser())
    return holder.model_copy(update={"source": holder.source.model_copy(update={"path": place})})

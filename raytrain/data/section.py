"""The `data:` section of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from raytrain.config.document import Document
from raytrain.config.recipe import build, load_recipe, nearest
from raytrain.config.section import Section
from raytrain.storage.section import StorageSection

Layout = Literal[
    "auto",
    "chat",
    "classification",
    "image_classification",
    "instruction",
    "prompt_completion",
    "question_answer",
    "text",
    "token_classification",
]
GeneratorName = Literal["tool_calls", "tool_names"]

COLUMN_NAMES = (
    "messages",
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "question",
    "answer",
    "text",
    "label",
    "tokens",
    "tags",
    "image",
)


class RowsSection(Section):
    """One place that rows come from: exactly one of `path`, `dataset` and `generator`."""

    path: str | None = None
    """A file, a folder or a glob of JSONL, JSON, CSV, TSV or Parquet; text also as .gz. On an object store (s3://, gs://)
    a file or a folder."""
    dataset: str | None = None
    """Name of a Hugging Face dataset; needs `pip install 'raytrain[hub]'`."""
    generator: GeneratorName | None = None
    """Rows that raytrain makes itself: requests with their tool calls, or with the tools' names as labels."""
    split: str = "train"
    """Which split of the Hugging Face dataset; of a generator train or heldout, whose rows share no argument values."""
    subset: str | None = None
    """Which subset (configuration) of the Hugging Face dataset."""
    num_rows: int = Field(default=400, ge=1)
    """How many rows the generator makes."""
    seed: int = 0
    """Seed of the generator."""
    name: str | None = None
    """Name in messages; of training rows also in the data card and in the `source` column. By default the file, dataset
    or generator name."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in ("path", "dataset", "generator") if getattr(self, name)]
        if len(given) != 1:
            named = " and ".join(given) if given else "none of them"
            raise ValueError(f"a source has exactly one of path, dataset and generator; here: {named}")
        return self


class SourceSection(RowsSection):
    """One place that training's rows come from: exactly one of `path`, `dataset` and `generator`."""

    columns: dict[str, str] = Field(default_factory=dict)
    """raytrain's name of a column → the name that it has in this source, for example `question: problem`."""
    layout: Layout = "auto"
    """Shape of the rows; `auto` tells it from the columns of each row."""
    licence: str | None = None
    """Under which terms the rows may be used; stands in the data card."""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for ours in columns:
            if ours not in COLUMN_NAMES:
                near = nearest(ours, COLUMN_NAMES)
                hint = f"did you mean `{near}`?" if near else f"allowed: {', '.join(COLUMN_NAMES)}"
                raise ValueError(f"`{ours}` on the left is no column of raytrain; {hint}")
        return columns


Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class ImageSection(Section):
    """How images become what the model takes, and how they are varied while training."""

    size: int | None = Field(default=None, ge=1, le=4096)
    """Height and width in pixels; null = the model's own."""
    normalisation: Literal["model", "imagenet", "cifar10", "half", "custom"] = "model"
    """Mean and deviation that pixels are brought to; model = its own preprocessing, or ImageNet's where it states none;
    half = 0.5 and 0.5; custom = `mean` and `std`."""
    mean: tuple[float, float, float] | None = None
    """Mean of red, green and blue in [0, 1], with normalisation: custom."""
    std: tuple[Positive, Positive, Positive] | None = None
    """Standard deviation of red, green and blue, with normalisation: custom."""
    random_flip: bool = False
    """Mirror every second training image, drawn anew in each epoch."""
    random_crop: int = Field(default=0, ge=0, le=256)
    """Shift training images by up to this many pixels, drawn anew in each epoch; the edge is repeated."""

    @model_validator(mode="after")
    def _custom_is_whole(self) -> ImageSection:
        is_custom = self.normalisation == "custom"
        if is_custom and (self.mean is None or self.std is None):
            raise ValueError("normalisation: custom needs `mean` and `std`, three numbers each")
        if not is_custom and (self.mean is not None or self.std is not None):
            raise ValueError("`mean` and `std` count with normalisation: custom only")
        return self


class DataSection(Section):
    """Which rows, how they are cleaned and split, and how they become tokens."""

    sources: list[SourceSection]
    """Where the rows come from; a path alone, or a list of paths, is short for `path:` entries."""
    val_fraction: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Share of rows in the validation split; which rows these are depends on their content alone."""
    test_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of rows in the test split."""
    split_salt: str = ""
    """Another salt gives another split."""
    near_duplicate_threshold: float | None = Field(default=0.8, ge=0.5, le=1.0)
    """Rows whose word triples overlap at least this much (Jaccard) count as one; null = off."""
    min_chars: int = Field(default=1, ge=0)
    """Rows with fewer characters are rejected."""
    max_row_chars: int = Field(default=100_000, ge=1)
    """Rows with more characters are rejected."""
    max_rejected_fraction: float = Field(default=0.05, ge=0.0, le=1.0)
    """Preparing fails where a larger share of the rows had to be rejected."""
    max_rows: int | None = Field(default=None, ge=1)
    """Stop reading after this many usable rows; null = read all."""
    max_seq_len: int = Field(default=512, ge=8, le=2**24)
    """Longest sequence in tokens."""
    overlong: Literal["drop", "truncate"] = "drop"
    """What happens to a row of more than `max_seq_len` tokens."""
    loss_on: Literal["completion", "all"] = "completion"
    """Learn from the completion tokens only, or from all."""
    labels: list[str] | None = None
    """Class names of a classification in the order of their numbers; null = the names in the rows, sorted."""
    mask_fraction: Fraction = 0.15
    """Share of tokens to guess in each row of masked language modelling."""
    images: ImageSection = ImageSection()
    """How images are read, of `model.task: image_classification`."""

    @field_validator("sources", mode="before")
    @classmethod
    def _paths_are_sources(cls, sources: Any) -> Any:
        if isinstance(sources, str):
            sources = [sources]
        if isinstance(sources, dict):
            sources = [sources]
        if not isinstance(sources, list):
            return sources
        return [{"path": one} if isinstance(one, str) else one for one in sources]

    @field_validator("sources")
    @classmethod
    def _some_sources(cls, sources: list[SourceSection]) -> list[SourceSection]:
        if not sources:
            raise ValueError("name at least one source")
        return sources

    @field_validator("labels")
    @classmethod
    def _different_labels(cls, labels: list[str] | None) -> list[str] | None:
        if labels is not None and (len(set(labels)) != len(labels) or len(labels) < 2):
            raise ValueError("name at least two classes, each once")
        return labels

    @model_validator(mode="after")
    def _something_to_train_on(self) -> DataSection:
        held_out = self.val_fraction + self.test_fraction
        if held_out >= 1.0:
            raise ValueError(f"val_fraction + test_fraction is {held_out:g} and leaves no rows to train on")
        return self


class DataRecipe(Section):
    """The parts of a recipe that preparing data looks at."""

    data: DataSection
    """Which rows."""
    storage: StorageSection = StorageSection()
    """Where the dataset goes."""


def load_data_recipe(path: Path, overrides: list[str] | None = None) -> DataRecipe:
    """Read `data:` and `storage:` of a recipe; its other sections are not looked at."""
    document = load_recipe(path, overrides)
    parts = {key: value for key, value in document.values.items() if key in DataRecipe.model_fields}
    return build(DataRecipe, Document(parts, document.origins))


_FIELDS_AFTER_PREPARING = {
    "sources", "max_seq_len", "overlong", "loss_on", "labels", "mask_fraction", "images",
}  # fmt: skip
PREPARED_FIELDS = tuple(name for name in DataSection.model_fields if name not in _FIELDS_AFTER_PREPARING)
"""Fields, besides the sources, on which the prepared rows depend."""

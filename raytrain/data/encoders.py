"""Which table each task learns from, and what makes it."""

from __future__ import annotations

from typing import Any, Final

from raytrain.data.batches import Examples
from raytrain.data.class_names import class_names
from raytrain.data.dataset import Split
from raytrain.data.examples import Encoder, load_table, prepare_examples
from raytrain.data.image_examples import ImageEncoder, ImageTable
from raytrain.data.section import DataSection
from raytrain.data.tasks import TaskName
from raytrain.data.text_examples import (
    ClassEncoder,
    ClassTable,
    MaskableEncoder,
    MaskableTable,
    PairEncoder,
    PairTable,
    TagEncoder,
    TagTable,
)
from raytrain.data.tokens import TokenEncoder, TokenTable, how_to_keep_rows
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location

TABLES: Final[dict[TaskName, type[Any]]] = {
    "causal_lm": TokenTable,
    "sequence_classification": ClassTable,
    "token_classification": TagTable,
    "masked_lm": MaskableTable,
    "seq2seq": PairTable,
    "image_classification": ImageTable,
}

_ROWS_OF: Final[dict[TaskName, str]] = {
    "sequence_classification": "rows need `text` and `label`",
    "token_classification": "rows need `tokens` and `tags`, two lists of the same length",
    "seq2seq": "rows need `prompt` and `completion`, or one question and one answer",
    "image_classification": "rows need `image` and `label`",
}


def build_encoder(task: TaskName, processor: Any, dataset: Artifact, section: DataSection) -> Encoder:
    """The encoder of a task. `processor` is the model's tokenizer, or its image preprocessor.

    Raises DataError where a classification finds no classes.
    """
    if task == "sequence_classification":
        return ClassEncoder(task, processor, section, labels=class_names(dataset, section, "label"))
    if task == "token_classification":
        return TagEncoder(task, processor, section, labels=class_names(dataset, section, "tags"))
    if task == "masked_lm":
        return MaskableEncoder(task, processor, section, mask_fraction=section.mask_fraction)
    if task == "seq2seq":
        return PairEncoder(task, processor, section)
    if task == "image_classification":
        return ImageEncoder(class_names(dataset, section, "label"), processor.size)
    return TokenEncoder(processor, section)


def prepare_task_examples(
    task: TaskName, dataset: Artifact, processor: Any, section: DataSection, storage: Location
) -> Artifact:
    """The `tokens` artifact of a dataset for a task, made now or found in the cache.

    Raises DataError where no row is left, with the counts that say why.
    """
    encoder = build_encoder(task, processor, dataset, section)
    fix = how_to_keep_rows(section) if task != "image_classification" else "check data.sources.0.columns"
    if task in _ROWS_OF:
        fix = f"{_ROWS_OF[task]}; {fix}"
    return prepare_examples(dataset, encoder, storage, fix=fix)


def load_task_examples(task: TaskName, artifact: Artifact, split: Split) -> Examples:
    """Memory-map one split of what `prepare_task_examples` made."""
    table: Examples = load_table(TABLES[task], artifact, split)
    return table

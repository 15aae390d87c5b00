"""The tasks that a model can be trained for."""

from __future__ import annotations

from typing import Literal

TaskName = Literal[
    "causal_lm",
    "sequence_classification",
    "token_classification",
    "masked_lm",
    "seq2seq",
    "image_classification",
]

CLASSIFICATION_TASKS: frozenset[TaskName] = frozenset(
    ["sequence_classification", "token_classification", "image_classification"]
)
"""Tasks whose targets are classes with names; their models have a head of their own."""

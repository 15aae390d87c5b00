"""From the texts of a request to a classifier's answers, in a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raytrain.errors import ConfigError
from raytrain.serving.backend import BadPrompt, Classification, ClassifyAsk, PromptTooLong, RefusedModel
from raytrain.serving.classification.engine import ClassifyingEngine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from raytrain.models.classifier import ClassifierTrunk
    from raytrain.models.inference import LoadedModel
    from raytrain.serving.classification.section import ClassificationSection

_CHARACTERS_PER_TOKEN = 32
"""No tokenizer's tokens are so long on average: longer texts are refused without being read."""


class TextClassifier:
    """All classifiers of one replica. `close` it."""

    def __init__(self, loaded: LoadedModel, section: ClassificationSection, most_tokens: int | None) -> None:
        """Before anything is put around the model's modules. most_tokens: of a text, where the model has positions for
        more. Raises ConfigError where nobody says how long a text may be."""
        from raytrain.models.classifier import ClassifierTrunk

        self._tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        trunk = ClassifierTrunk(loaded.model, int(loaded.tokenizer.pad_token_id))
        self._most_texts = section.max_waiting
        self.max_tokens = _most_of(trunk, most_tokens)
        self.engine = ClassifyingEngine(trunk, section)

    def encoded(self, ask: ClassifyAsk) -> list[tuple[int, ...]]:
        """As training read its rows. Raises BadPrompt."""
        if len(ask.texts) > self._most_texts:
            raise BadPrompt(
                f"{len(ask.texts)} texts are more than the {self._most_texts} of one request", "input"
            )
        return [self._encoded(place, text, len(ask.texts)) for place, text in enumerate(ask.texts)]

    async def classify(self, texts: Sequence[tuple[int, ...]], digest: str) -> tuple[Classification, ...]:
        """By a classifier that is loaded. Raises Overloaded, AnswerFailed, ReplicaLost."""
        try:
            found = asyncio.wrap_future(self.engine.submit(texts, digest))
        except KeyError as error:  # it was unloaded this moment
            raise RefusedModel(digest) from error
        return tuple(await found)

    def close(self) -> None:
        self.engine.close()

    def _encoded(self, place: int, text: str, num_texts: int) -> tuple[int, ...]:
        name, most = "the text" if num_texts == 1 else f"text {place}", self.max_tokens
        if len(text) > most * _CHARACTERS_PER_TOKEN:
            raise PromptTooLong(
                f"{name} has {len(text)} characters, and the model's context is {most} tokens", "input"
            )
        ids: tuple[int, ...] = tuple(self._tokenizer(text)["input_ids"])
        if not ids:
            raise BadPrompt(f"{name} has no tokens", "input")
        if len(ids) > most:
            raise PromptTooLong(f"{name} has {len(ids)} tokens, and the model's context is {most}", "input")
        return ids


def _most_of(trunk: ClassifierTrunk, wanted: int | None) -> int:
    known = [one for one in (wanted, trunk.max_positions) if one is not None]
    if not known:
        raise ConfigError(
            "nobody says how long a text to be classified may be",
            why="the base model names no max_position_embeddings",
            fix="set engine.max_context_tokens",
        )
    return min(known)

"""Answers of a model on this machine to conversations: greedy, in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jinja2 import TemplateError

from raytrain.evaluation.items import Messages
from raytrain.models.decoding.greedy import decode_greedily
from raytrain.models.inference import LoadedModel
from raytrain.models.text_generation import encode_prompt, end_tokens_of
from raytrain.storage.manifest import digest_of


class ModelAnswers:
    """Callable as `run_safety` wants it. `notes` fills with what a person should know of how the model was asked."""

    def __init__(self, loaded: LoadedModel, *, max_new_tokens: int = 128, batch_size: int = 8) -> None:
        self._loaded = loaded
        self._max_new_tokens = max_new_tokens
        template = loaded.tokenizer.chat_template
        self.chat_template: str | None = digest_of(template) if template else None
        """Its digest."""
        self._batch_size = batch_size
        limit = getattr(loaded.model.config, "max_position_embeddings", None)
        self._room = math.inf if limit is None else int(limit) - max_new_tokens
        self.notes: list[str] = []
        if not loaded.tokenizer.chat_template:
            self._note(
                "the model has no chat template: it goes on with the plain text, and may refuse nothing"
            )

    def __call__(self, conversations: Sequence[Messages]) -> list[str | None]:
        ids = [self._encoded(one) for one in conversations]
        fitting = [i for i, one in enumerate(ids) if 0 < len(one) <= self._room]
        if len(fitting) < len(ids):
            self._note(f"probes that leave no room for {self._max_new_tokens} tokens were not asked")
        answers: list[str | None] = [None] * len(ids)
        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        for place, answer in decode_greedily(
            model,
            [ids[i] for i in fitting],
            max_new_tokens=self._max_new_tokens,
            end_tokens=end_tokens_of(model, tokenizer),
            pad_id=int(tokenizer.pad_token_id or 0),
            batch_size=self._batch_size,
        ):
            answers[fitting[place]] = str(tokenizer.decode(answer.tokens, skip_special_tokens=True))
        return answers

    def _encoded(self, messages: Messages) -> list[int]:
        tokenizer = self._loaded.tokenizer
        if not tokenizer.chat_template:
            return encode_prompt(tokenizer, "\n\n".join(one["content"] for one in messages) + "\n")
        try:
            return encode_prompt(tokenizer, messages)
        except TemplateError:
            # Some templates know no system's message; people put it before the user's.
            self._note("the chat template takes no system message: it stands before the user's instead")
            return encode_prompt(tokenizer, _folded(messages))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _folded(messages: Messages) -> Messages:
    told = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    spoken = [dict(one) for one in messages if one["role"] != "system"]
    if told:
        spoken[0]["content"] = f"{told}\n\n{spoken[0]['content']}"
    return spoken

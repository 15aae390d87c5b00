"""Answers that are JSON by construction: llguidance says which tokens may come next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raytrain.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


_ENDS_WELL = ("NoExtension", "EndOfSentence")
"""llguidance's words for a text after which nothing but the end may follow. It stops for other reasons too."""

_MOST_FORCED = 16
"""Tokens that are looked at beforehand where each is the only one."""


class JsonText:
    """One answer's state."""

    def __init__(self, matcher: Any, num_tokens: int) -> None:
        self._matcher, self._num_tokens = matcher, num_tokens

    @property
    def is_complete(self) -> bool:
        """Nothing but the end may follow."""
        return self._matcher.stop_reason() in _ENDS_WELL

    @property
    def is_lost(self) -> bool:
        """llguidance has given up, as where a schema takes more work at one token than it lets itself do: what follows
        is held to nothing, and what is there may be no JSON."""
        return bool(self._matcher.is_stopped()) and not self.is_complete

    @property
    def complaint(self) -> str:
        """Why it is lost; its first line, as others hold the whole schema."""
        told = str(self._matcher.get_error()).strip().partition("\n")[0]
        return "no text can begin it" if told == "NoExtensionBias" else told

    def forbidden(self) -> torch.Tensor:
        """(vocabulary,), true where a token may not come next."""
        import torch

        allowed = np.unpackbits(
            np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little"
        )
        found = np.ones(self._num_tokens, dtype=bool)
        num = min(len(allowed), self._num_tokens)
        found[:num] = allowed[:num] == 0
        return torch.from_numpy(found)

    def take(self, token: int) -> None:
        """The token that was chosen."""
        self._matcher.consume_token(token)


class JsonTexts:
    """Of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, num_tokens: int, end_tokens: list[int]) -> None:
        """num_tokens: that the model has logits for."""
        self._tokenizer, self._num_tokens, self._end_tokens = tokenizer, num_tokens, end_tokens

    def check(self, schema: Mapping[str, Any]) -> None:
        """ConfigError where no text can be held to the schema, as far as it can be told from the tokens that every text
        begins with: what is lost later ends the answer."""
        text = self.begin(schema)
        for _ in range(_MOST_FORCED):
            allowed = (~text.forbidden()).nonzero().flatten().tolist()
            if not text.is_lost and len(allowed) == 1:
                text.take(allowed[0])
            if text.is_lost:
                raise _refused(text.complaint)
            if text.is_complete or len(allowed) > 1:
                return

    def begin(self, schema: Mapping[str, Any]) -> JsonText:
        """Raises ConfigError where llguidance does not take the schema."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._vocabulary, self._grammar(schema), log_level=0)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return JsonText(matcher, self._num_tokens)

    @cached_property
    def _vocabulary(self) -> Any:
        from llguidance.hf import from_tokenizer

        try:
            return from_tokenizer(self._tokenizer, self._num_tokens, self._end_tokens)
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError(
                "this model's answers cannot be held to JSON",
                why=f"its tokenizer is none that llguidance reads: {error}",
                fix="ask without response_format",
            ) from error

    @staticmethod
    def _grammar(schema: Mapping[str, Any]) -> str:
        from llguidance import LLMatcher

        wanted = dict(schema) or {"type": "object"}
        try:
            return str(LLMatcher.grammar_from_json_schema(json.dumps(wanted)))
        except ValueError as error:
            raise _refused(str(error)) from error


def _refused(why: str) -> ConfigError:
    return ConfigError(
        "answers cannot be held to this JSON schema",
        why=why.strip().splitlines()[0][:300],
        fix="use the keywords that https://github.com/guidance-ai/llguidance names",
    )

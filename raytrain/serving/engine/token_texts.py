"""What a token by itself adds to a text, as it is told beside its probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenTexts:
    """Of one tokenizer. Where a text begins, some drop a token's space: elsewhere it is read behind another token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._before = [int(one) for one in tokenizer("a", add_special_tokens=False)["input_ids"]][-1:]
        self._before_text = self._decode(self._before)
        self._known: dict[tuple[int, bool], str] = {}

    def of(self, token: int, *, is_first: bool) -> str:
        """is_first: there is no text before it."""
        key = token, is_first
        if key not in self._known:
            self._known[key] = self._decode([token]) if is_first else self._behind(token)
        return self._known[key]

    def _behind(self, token: int) -> str:
        both = self._decode([*self._before, token])
        if not both.startswith(self._before_text):
            return self._decode([token])
        return both[len(self._before_text) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids))

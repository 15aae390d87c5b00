"""Tables and encoders of the tasks that read text, causal language modelling apart (see tokens.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.data.dataset import text_of
from raytrain.data.examples import Reject, flat, in_chunks
from raytrain.data.section import DataSection
from raytrain.data.tokens import TokenRows, tokenizer_digest

_FORMAT = 1
IGNORED_CLASS = -100


@dataclass(frozen=True)
class ClassTable(TokenRows):
    """Texts, each with the number of its class."""

    class_ids: NDArray[np.int32]

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        """One target a row."""
        return np.ones(len(self), np.int64)


@dataclass(frozen=True)
class TagTable(TokenRows):
    """Texts with a class for the first token of each word, and IGNORED_CLASS for all other tokens."""

    tag_ids: NDArray[np.int32]

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        """Words in each row."""
        total = np.concatenate([[0], np.cumsum(self.tag_ids != IGNORED_CLASS, dtype=np.int64)])
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]], np.int64)

    def tags(self, index: int) -> NDArray[np.int32]:
        return self.tag_ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class MaskableTable(TokenRows):
    """Texts of which `num_masked[i]` tokens are guessed, among those where `is_maskable` is 1.

    The number is fixed and only the places are drawn anew in each epoch, so that a batch knows its targets beforehand.
    """

    is_maskable: NDArray[np.uint8]
    num_masked: NDArray[np.int64]

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        return np.asarray(self.num_masked, np.int64)

    def maskable(self, index: int) -> NDArray[np.uint8]:
        return self.is_maskable[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class PairTable(TokenRows):
    """Source texts (`input_ids`), each with the target that is to be written."""

    target_ids: NDArray[np.int32]
    target_offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of source and target."""
        return np.asarray(np.diff(self.offsets) + np.diff(self.target_offsets), np.int64)

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        return np.diff(self.target_offsets)

    def target(self, index: int) -> NDArray[np.int32]:
        return self.target_ids[self.target_offsets[index] : self.target_offsets[index + 1]]


class _TextEncoder:
    """What the encoders share: the tokenizer, and what becomes of rows that are too long."""

    def __init__(self, task: str, tokenizer: Any, section: DataSection, **settings: Any) -> None:
        self.settings: dict[str, Any] = {
            "format": _FORMAT,
            "task": task,
            "tokenizer": tokenizer_digest(tokenizer),
            "max_seq_len": section.max_seq_len,
            "overlong": section.overlong,
            **settings,
        }
        self.labels: list[str] | None = settings.get("labels")
        self._tokenizer = tokenizer
        self._section = section
        self._number = {name: number for number, name in enumerate(self.labels or ())}

    def _encoded(self, texts: list[Any] | None, **options: Any) -> Any:
        # The tokenizer cuts by itself, so that the special tokens at the end of a row stay.
        cut = self._section.overlong == "truncate"
        limit = {"truncation": True, "max_length": self._section.max_seq_len} if cut else {}
        return self._tokenizer(texts, return_attention_mask=False, **limit, **options)

    def _is_too_long(self, ids: list[int]) -> bool:
        return len(ids) > self._section.max_seq_len


class ClassEncoder(_TextEncoder):
    """Texts with one label each."""

    def encode(self, rows: Iterator[dict[str, Any]], reject: Reject) -> ClassTable:
        ids, classes, kept = [], [], []
        for chunk in in_chunks(rows):
            encoded = self._encoded([text_of(row) for row in chunk])
            for row, row_ids in zip(chunk, encoded["input_ids"], strict=True):
                reason = self._fault(row, row_ids)
                if reason is not None:
                    reject(row["row_id"], reason)
                    continue
                ids.append(np.asarray(row_ids, np.int32))
                classes.append(self._number[row["label"]])
                kept.append(row["row_id"])
        input_ids, offsets = flat(ids, np.int32)
        return ClassTable(input_ids, offsets, kept, np.asarray(classes, np.int32))

    def _fault(self, row: dict[str, Any], ids: list[int]) -> str | None:
        if row["label"] is None:
            return "no_label"
        if row["label"] not in self._number:
            return "unknown_label"
        if not ids:
            return "no_text"
        return "too_long" if self._is_too_long(ids) else None


class TagEncoder(_TextEncoder):
    """Words with one tag each; the tag goes to the word's first token."""

    def encode(self, rows: Iterator[dict[str, Any]], reject: Reject) -> TagTable:
        ids, tags, kept = [], [], []
        for chunk in in_chunks(rows):
            tagged = [row for row in chunk if row["tokens"] is not None]
            for row in chunk:
                if row["tokens"] is None:
                    reject(row["row_id"], "no_tags")
            if not tagged:
                continue
            encoded = self._encoded([row["tokens"] for row in tagged], is_split_into_words=True)
            for i, row in enumerate(tagged):
                row_ids = encoded["input_ids"][i]
                numbers = self._aligned(row["tags"], encoded.word_ids(i))
                if numbers is None:
                    reject(row["row_id"], "unknown_label")
                elif self._is_too_long(row_ids):
                    reject(row["row_id"], "too_long")
                elif (numbers == IGNORED_CLASS).all():
                    reject(row["row_id"], "no_target")
                else:
                    ids.append(np.asarray(row_ids, np.int32))
                    tags.append(numbers)
                    kept.append(row["row_id"])
        input_ids, offsets = flat(ids, np.int32)
        return TagTable(input_ids, offsets, kept, flat(tags, np.int32)[0])

    def _aligned(self, tags: list[str], words: list[int | None]) -> NDArray[np.int32] | None:
        if any(tag not in self._number for tag in tags):
            return None
        numbers = np.full(len(words), IGNORED_CLASS, np.int32)
        before = None
        for place, word in enumerate(words):
            if word is not None and word != before:
                numbers[place] = self._number[tags[word]]
            before = word
        return numbers


class MaskableEncoder(_TextEncoder):
    """Texts of any layout, for guessing hidden tokens."""

    def encode(self, rows: Iterator[dict[str, Any]], reject: Reject) -> MaskableTable:
        ids, maskable, kept = [], [], []
        for chunk in in_chunks(rows):
            encoded = self._encoded([text_of(row) for row in chunk], return_special_tokens_mask=True)
            for row, row_ids, special in zip(
                chunk, encoded["input_ids"], encoded["special_tokens_mask"], strict=True
            ):
                if self._is_too_long(row_ids):
                    reject(row["row_id"], "too_long")
                elif all(special):
                    reject(row["row_id"], "no_target")
                else:
                    ids.append(np.asarray(row_ids, np.int32))
                    maskable.append(1 - np.asarray(special, np.uint8))
                    kept.append(row["row_id"])
        input_ids, offsets = flat(ids, np.int32)
        # At least one a row, as in BERT's own data (Devlin et al. 2018, create_pretraining_data.py).
        wanted = [max(1, round(int(one.sum()) * self._section.mask_fraction)) for one in maskable]
        return MaskableTable(
            input_ids, offsets, kept, flat(maskable, np.uint8)[0], np.asarray(wanted, np.int64)
        )


class PairEncoder(_TextEncoder):
    """A prompt and its completion, or a question and its answer: source and target of an encoder-decoder."""

    def encode(self, rows: Iterator[dict[str, Any]], reject: Reject) -> PairTable:
        sources, targets, kept = [], [], []
        for chunk in in_chunks(rows):
            pairs = [(row["row_id"], pair) for row in chunk if (pair := self._pair(row, reject))]
            if not pairs:
                continue
            source_ids = self._encoded([source for _, (source, _) in pairs])["input_ids"]
            written = self._encoded(None, text_target=[target for _, (_, target) in pairs])["input_ids"]
            for (row_id, _), source, target in zip(pairs, source_ids, written, strict=True):
                if self._is_too_long(source) or self._is_too_long(target):
                    reject(row_id, "too_long")
                elif not target:
                    reject(row_id, "no_target")
                else:
                    sources.append(np.asarray(source, np.int32))
                    targets.append(np.asarray(target, np.int32))
                    kept.append(row_id)
        input_ids, offsets = flat(sources, np.int32)
        target_ids, target_offsets = flat(targets, np.int32)
        return PairTable(input_ids, offsets, kept, target_ids, target_offsets)

    def _pair(self, row: dict[str, Any], reject: Reject) -> tuple[str, str] | None:
        if row["completion"] is not None:
            return row["prompt"], row["completion"]
        said = row["messages"] or []
        if [one["role"] for one in said] == ["user", "assistant"]:
            return said[0]["content"], said[1]["content"]
        reject(row["row_id"], "not_a_pair")
        return None

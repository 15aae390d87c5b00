"""Rows to tokens for causal language modelling: what is rendered, and which tokens carry loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.data.dataset import Split
from raytrain.data.examples import Reject, flat, in_chunks, load_table, prepare_examples
from raytrain.data.section import DataSection
from raytrain.errors import ConfigError
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of

_FORMAT = 1

Span = tuple[int, int]


@dataclass(frozen=True)
class TokenRows:
    """Token ids of many rows, flat: row i is `input_ids[offsets[i]:offsets[i + 1]]`. Arrays may be memory-mapped."""

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    row_ids: list[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each row."""
        return np.diff(self.offsets)

    def ids(self, index: int) -> NDArray[np.int32]:
        return self.input_ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class TokenTable(TokenRows):
    """Rows whose own tokens are the targets: `loss_mask` is 1 where a token is one."""

    loss_mask: NDArray[np.uint8]

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        """Targets in each row; the first token of a row is predicted by nothing and never counts."""
        if len(self) == 0:
            return np.zeros(0, np.int64)
        total = np.concatenate([[0], np.cumsum(self.loss_mask, dtype=np.int64)])
        first = self.loss_mask[self.offsets[:-1]].astype(np.int64)
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]] - first, np.int64)

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        return self.ids(index), self.loss_mask[self.offsets[index] : self.offsets[index + 1]]


def render_row(row: dict[str, Any], tokenizer: Any, loss_on: str) -> tuple[str, list[Span], bool]:
    """A canonical row as text, the character spans that are targets, and whether special tokens are to be added.

    Raises ConfigError where a chat row meets a tokenizer without a chat template.
    """
    eos = tokenizer.eos_token or ""
    if row.get("messages"):
        text, spans = _render_chat(row["messages"], tokenizer)
        return text, [(0, len(text))] if loss_on == "all" else spans, False
    if row.get("completion") is not None:
        prompt = row.get("prompt") or ""
        text = prompt + row["completion"] + eos
        return text, [(0 if loss_on == "all" else len(prompt), len(text))], True
    text = (row.get("text") or "") + eos
    return text, [(0, len(text))], True


def _render_chat(messages: Sequence[dict[str, str]], tokenizer: Any) -> tuple[str, list[Span]]:
    if not tokenizer.chat_template:
        raise ConfigError(
            "the rows are conversations, and the model's tokenizer has no chat template",
            why="without a template nobody can say where a turn begins and ends",
            fix="set model.chat_template to a Jinja file, or map the rows to prompt and completion with data.columns",
        )
    # A template ends a turn with a newline that nobody has to learn.
    text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:i], tokenize=False, add_generation_prompt=True)
        upto = tokenizer.apply_chat_template(messages[: i + 1], tokenize=False).rstrip()
        if not (text.startswith(upto) and upto.startswith(before)):
            raise ConfigError(
                "the chat template rewrites earlier turns, so completions cannot be told from prompts",
                why=f"the text up to turn {i + 1} is no beginning of the whole conversation",
                fix="set data.loss_on=all, or give a template without that through model.chat_template",
            )
        spans.append((len(before), len(upto)))
    return text, spans


def tokenize_split(
    rows: Iterator[dict[str, Any]], tokenizer: Any, section: DataSection, rejected: Reject
) -> TokenTable:
    """Tokenize canonical rows; a row that cannot be used is told to `rejected(row_id, reason)` and left out."""
    ids: list[NDArray[np.int32]] = []
    masks: list[NDArray[np.uint8]] = []
    kept: list[str] = []
    for chunk in in_chunks(rows):
        rendered = [render_row(row, tokenizer, section.loss_on) for row in chunk]
        for special in (False, True):
            picked = [i for i, one in enumerate(rendered) if one[2] is special]
            if not picked:
                continue
            encoded = tokenizer(
                [rendered[i][0] for i in picked],
                add_special_tokens=special,
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
            for i, row_ids, offsets in zip(
                picked, encoded["input_ids"], encoded["offset_mapping"], strict=True
            ):
                row_id = chunk[i]["row_id"]
                if len(row_ids) > section.max_seq_len and section.overlong == "drop":
                    rejected(row_id, "too_long")
                    continue
                row_ids, offsets = row_ids[: section.max_seq_len], offsets[: section.max_seq_len]
                mask = _mask(np.asarray(offsets, np.int64).reshape(-1, 2), rendered[i][1])
                if not mask[1:].any():
                    rejected(row_id, "no_target")
                    continue
                ids.append(np.asarray(row_ids, np.int32))
                masks.append(mask)
                kept.append(row_id)
    input_ids, offsets_flat = flat(ids, np.int32)
    return TokenTable(input_ids, offsets_flat, kept, flat(masks, np.uint8)[0])


def _mask(offsets: NDArray[np.int64], spans: list[Span]) -> NDArray[np.uint8]:
    """1 for tokens that begin inside a span; tokens without text (added specials) are never targets."""
    starts, ends = offsets[:, 0], offsets[:, 1]
    mask = np.zeros(len(offsets), np.uint8)
    for start, end in spans:
        mask |= ((starts >= start) & (starts < end) & (ends > starts)).astype(np.uint8)
    return mask


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of what decides token ids: vocabulary, merges, normalisers and the chat template."""
    return digest_of([tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.eos_token])


class TokenEncoder:
    """Rows of any layout, for predicting the next token."""

    labels: list[str] | None = None

    def __init__(self, tokenizer: Any, section: DataSection) -> None:
        self.settings: dict[str, Any] = {
            "format": _FORMAT,
            "tokenizer": tokenizer_digest(tokenizer),
            "max_seq_len": section.max_seq_len,
            "overlong": section.overlong,
            "loss_on": section.loss_on,
        }
        self._tokenizer = tokenizer
        self._section = section

    def encode(self, rows: Iterator[dict[str, Any]], reject: Reject) -> TokenTable:
        return tokenize_split(rows, self._tokenizer, self._section, reject)


def prepare_tokens(dataset: Artifact, tokenizer: Any, section: DataSection, storage: Location) -> Artifact:
    """The `tokens` artifact of `dataset` for causal language modelling, made now or found in the cache.

    Raises DataError where no training row is left, with the counts that say why.
    """
    return prepare_examples(dataset, TokenEncoder(tokenizer, section), storage, fix=how_to_keep_rows(section))


def how_to_keep_rows(section: DataSection) -> str:
    """What to do where no row was short enough."""
    return f"raise data.max_seq_len (now {section.max_seq_len}) or set data.overlong=truncate"


def load_tokens(artifact: Artifact, split: Split) -> TokenTable:
    """Memory-map one split of a `tokens` artifact."""
    return load_table(TokenTable, artifact, split)

"""Rows to tokens, once: a `tokens` artifact keyed by dataset, tokenizer and settings, memory-mapped by every worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.data.dataset import Split, read_split
from raytrain.data.section import DataSection
from raytrain.errors import ConfigError, DataError, IntegrityError
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of

_FORMAT = 1
_TOKENIZED_SPLITS: tuple[Split, ...] = ("train", "val")
_CHUNK_ROWS = 1024

Span = tuple[int, int]


@dataclass(frozen=True)
class TokenTable:
    """Tokens of one split, flat: row i is `input_ids[offsets[i]:offsets[i + 1]]`.

    `loss_mask` is 1 where a token is a target of the loss. Arrays may be memory-mapped.
    """

    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    row_ids: list[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each row."""
        return np.diff(self.offsets)

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        """Targets in each row; the first token of a row is predicted by nothing and never counts."""
        if len(self) == 0:
            return np.zeros(0, np.int64)
        total = np.concatenate([[0], np.cumsum(self.loss_mask, dtype=np.int64)])
        first = self.loss_mask[self.offsets[:-1]].astype(np.int64)
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]] - first, np.int64)

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.input_ids[start:end], self.loss_mask[start:end]


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
    rows: Iterator[dict[str, Any]], tokenizer: Any, section: DataSection, rejected: Callable[[str, str], None]
) -> TokenTable:
    """Tokenize canonical rows; a row that cannot be used is told to `rejected(row_id, reason)` and left out."""
    ids: list[NDArray[np.int32]] = []
    masks: list[NDArray[np.uint8]] = []
    kept: list[str] = []
    for chunk in _chunks(rows):
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
    offsets_flat = np.concatenate([[0], np.cumsum([len(one) for one in ids], dtype=np.int64)]).astype(
        np.int64
    )
    return TokenTable(
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        np.concatenate(masks) if masks else np.zeros(0, np.uint8),
        offsets_flat,
        kept,
    )


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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


def prepare_tokens(dataset: Artifact, tokenizer: Any, section: DataSection, storage: Location) -> Artifact:
    """The `tokens` artifact of `dataset`, made now or found in the cache.

    Raises DataError where no training row is left, with the counts that say why.
    """
    settings = {
        "format": _FORMAT,
        "dataset": dataset.digest,
        "tokenizer": tokenizer_digest(tokenizer),
        "max_seq_len": section.max_seq_len,
        "overlong": section.overlong,
        "loss_on": section.loss_on,
    }
    destination = storage / "tokens" / digest_of(settings).removeprefix("sha256:")[:16]
    try:
        return open_artifact(destination, kind="tokens")
    except IntegrityError:
        pass  # Not there yet, or damaged: it is made anew from the dataset, which has been verified.
    with ArtifactWriter(destination, kind="tokens", parents={"dataset": dataset.digest}) as writer:
        counts: dict[str, dict[str, int]] = {}
        with (writer.path / "rejected.jsonl").open("w", encoding="utf-8") as log:
            for split in _TOKENIZED_SPLITS:
                dropped: dict[str, int] = {}

                def reject(
                    row_id: str, reason: str, split: str = split, dropped: dict[str, int] = dropped
                ) -> None:
                    dropped[reason] = dropped.get(reason, 0) + 1
                    log.write(json.dumps({"split": split, "row_id": row_id, "reason": reason}) + "\n")

                rows = (
                    row
                    for batch in read_split(dataset, split).to_batches(_CHUNK_ROWS)
                    for row in batch.to_pylist()
                )
                table = tokenize_split(rows, tokenizer, section, reject)
                _save_table(table, writer.path, split)
                counts[split] = {"rows": len(table), "tokens": int(table.offsets[-1]), **dropped}
        if counts["train"]["rows"] == 0:
            raise DataError(
                "no training row is left after tokenization",
                why=f"of the training rows: {counts['train']}",
                fix=f"raise data.max_seq_len (now {section.max_seq_len}) or set data.overlong=truncate",
            )
        statistics = {"settings": settings, "splits": counts}
        (writer.path / "statistics.json").write_text(json.dumps(statistics, indent=1, sort_keys=True))
        return writer.commit({"settings": settings}, replace=True)


def _save_table(table: TokenTable, folder: Path, split: str) -> None:
    np.save(folder / f"{split}.input_ids.npy", table.input_ids)
    np.save(folder / f"{split}.loss_mask.npy", table.loss_mask)
    np.save(folder / f"{split}.offsets.npy", table.offsets)
    (folder / f"{split}.row_ids.json").write_text(json.dumps(table.row_ids))


def dropped_rows(artifact: Artifact) -> dict[str, int]:
    """Training rows that could not be used, by reason; the artifact's rejected.jsonl names each."""
    statistics = json.loads((artifact.path / "statistics.json").read_text())
    train: dict[str, int] = statistics["splits"]["train"]
    return {reason: count for reason, count in train.items() if reason not in ("rows", "tokens")}


def load_tokens(artifact: Artifact, split: Split) -> TokenTable:
    """Memory-map one split of a `tokens` artifact."""

    def array(name: str) -> NDArray[Any]:
        return np.asarray(np.load(artifact.path / f"{split}.{name}.npy", mmap_mode="r"))

    row_ids = json.loads((artifact.path / f"{split}.row_ids.json").read_text())
    return TokenTable(array("input_ids"), array("loss_mask"), array("offsets"), row_ids)

"""The rows that a training held out, as suites: how likely a model finds what is right there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raytrain.data.dataset import Split, read_split, split_file
from raytrain.errors import DataError
from raytrain.evaluation.items import Item, Suite, suite_of
from raytrain.evaluation.suite import ItemsSection, ItemsSource, PromptSection, SuiteSection
from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import digest_of, short_digest

Mode = Literal["chat", "completion"]

_SUITES: Mapping[Mode, tuple[str, str, str]] = {
    "chat": ("held-out-chat", "{messages}", "{answer}"),
    "completion": ("held-out-texts", "{prompt}", "{completion}"),
}
"""Name, and for people what is asked and what is right. Items are made from rows here, not by these."""


@dataclass(frozen=True)
class HeldOut:
    """What may be asked of a dataset's held-out rows."""

    suites: list[Suite]
    split: Split
    num_rows: int
    """Asked, over all suites."""
    num_left_out: int
    """Rows that the other model has learned from: asking them would favour it."""
    dataset: str
    """Its digest."""

    def as_dict(self) -> dict[str, Any]:
        told = {"dataset": self.dataset, "split": self.split}
        return {**told, "num_rows": self.num_rows, "num_left_out": self.num_left_out}


def held_out_suites(dataset: Artifact, *, learned: Collection[str] = (), most: int) -> HeldOut:
    """Of the test split, else of the validation split (which has chosen checkpoints already), so many rows at most.

    learned: ids of rows that another model in the comparison was trained on. Raises DataError where nothing is left or
    the rows are not texts.
    """
    for split in ("test", "val"):
        rows = read_split(dataset, split).drop_columns(["image"]).to_pylist()
        if rows:
            return _suites(dataset, split, rows, learned, most)
    raise _nothing(dataset, "its test and validation splits have no rows")


def learned_rows(dataset: Artifact) -> set[str]:
    """Ids of the rows that a model was trained on: the same content has the same id in every dataset."""
    return set(read_split(dataset, "train").column("row_id").to_pylist())


def _suites(
    dataset: Artifact, split: Split, rows: list[dict[str, Any]], learned: Collection[str], most: int
) -> HeldOut:
    fresh = [row for row in rows if row["row_id"] not in learned]
    if not fresh:
        raise _nothing(dataset, f"all {len(rows)} rows of its {split} split were learned by the other one")
    # By their ids, which are digests: as if drawn, and the same ones in every comparison.
    drawn = sorted(fresh, key=lambda row: str(row["row_id"]))[:most]
    asked: dict[Mode, list[Item]] = {}
    for mode, item in filter(None, map(_item, drawn)):
        asked.setdefault(mode, []).append(item)
    if not asked:
        raise _nothing(dataset, f"its {split} split has labels, tags or images, and no text to answer")
    place = str(split_file(dataset, split))
    return HeldOut(
        [suite_of(_section(mode, dataset, place), items) for mode, items in sorted(asked.items())],
        split,
        sum(map(len, asked.values())),
        len(rows) - len(fresh),
        dataset.digest,
    )


def _item(row: Mapping[str, Any]) -> tuple[Mode, Item] | None:
    prompt: str | list[dict[str, str]]
    mode: Mode = "completion"
    if row.get("messages"):
        turns = [{"role": one["role"], "content": one["content"]} for one in row["messages"]]
        last = max((i for i, one in enumerate(turns) if one["role"] == "assistant"), default=0)
        prompt, answer, mode = turns[:last], turns[last]["content"], "chat"
        if not prompt:
            return None
        question = tuple(one["content"] for one in turns[:last] if one["role"] == "user")
    elif row.get("text") is not None and row.get("label") is None:
        prompt, answer, question = "", row["text"], ()
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt, answer, question = row["prompt"], row["completion"], (str(row["prompt"]),)
    else:
        return None
    return mode, Item(str(row["row_id"]), prompt, (answer,), question=question)


def _section(mode: Mode, dataset: Artifact, place: str) -> SuiteSection:
    name, template, answer = _SUITES[mode]
    return SuiteSection(
        suite=name,
        version=digest_of(dataset.digest)[7:19],
        description=f"Held-out rows of dataset {dataset.digest}: how likely each right answer is.",
        kind="perplexity",
        items=ItemsSection(source=ItemsSource(path=place)),
        prompt=PromptSection(mode=mode, template=template),
        answer=answer,
    )


def _nothing(dataset: Artifact, why: str) -> DataError:
    return DataError(
        f"dataset {short_digest(dataset.digest)} has no held-out rows to ask",
        why=why,
        fix="name a suite with --suite, or train with data.test_fraction above 0",
    )

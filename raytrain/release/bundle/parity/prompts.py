"""What exported models are asked: rows that training held out, an evaluation's items, a person's own file, or a
packaged handful."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.data.dataset import read_split
from raytrain.errors import ConfigError, PlatformError
from raytrain.evaluation.contamination.lineage import find_dataset
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.results import open_evaluation
from raytrain.release.bundle.parity.section import ExportCheckSection
from raytrain.release.bundle.run_logs import without_paths
from raytrain.release.bundle.subject import Subject
from raytrain.runs.records import open_records
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, digest_of

Asked = str | list[dict[str, str]]

_PACKAGED: dict[str, Asked] = {
    "one token": "The",
    "question": [{"role": "user", "content": "Which is heavier, a litre of water or a litre of oil?"}],
    "system": [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Why does bread rise?"},
        {"role": "assistant", "content": "Yeast makes gas, which the dough holds."},
        {"role": "user", "content": "And without yeast?"},
    ],
    "json": '{"city": "Lima", "population": 10000000, "river":',
    "code": "def median(values: list[float]) -> float:\n    ordered = sorted(values)\n",
    "numbers": "17 * 23 = 391\n19 * 21 = 399\n18 * 22 =",
    "Cyrillic": "Вчера вечером шёл дождь, и поэтому",
    "Chinese and Japanese": "今天下午三点，我们在图书馆见面。では、",
    "Arabic and Hindi": "السلام عليكم، आज मौसम",
    "signs": "🙂🧪 naïve café — “quoted” … ½ ∑ \t end",
    "long": " ".join(
        f"On day {i} the ship lay {7 * i % 31} miles off the coast, and the mate wrote the wind down as force {i % 9}."
        for i in range(1, 15)
    ),
}


@dataclass(frozen=True)
class Prompt:
    """One question. `id` says where it is from; its text goes into no report: it may be a row of somebody's."""

    id: str
    asked: Asked

    @property
    def digest(self) -> str:
        return digest_of(self.asked)


def prompts_for(
    subject: Subject, given: str | None, section: ExportCheckSection
) -> tuple[list[Prompt], list[str]]:
    """Those of a file or an evaluation, else the packaged ones and rows that training held out; and what is to be said
    of them."""
    has_template = subject.writes and bool(subject.model.load_tokenizer().chat_template)
    if given is not None and is_evaluation(given):
        asked, note = evaluation_prompts(Location.parse(given), section.evaluation_items)
        return asked, [note]
    if given is not None:
        return read_prompts(Path(given), has_template=has_template), []
    rows, why = held_out_prompts(subject.artifact, section.held_out_rows, has_template=has_template)
    return [*packaged_prompts(has_template=has_template), *rows], [why] if why else []


def packaged_prompts(*, has_template: bool) -> list[Prompt]:
    """Of several styles and scripts. Without a chat template only texts."""
    return [
        Prompt(name, asked) for name, asked in _PACKAGED.items() if has_template or isinstance(asked, str)
    ]


def held_out_prompts(subject: Artifact, most: int, *, has_template: bool) -> tuple[list[Prompt], str | None]:
    """The first of the rows that training did not see, or why there are none."""
    if not most:
        return [], None
    records = open_records()
    try:
        dataset = find_dataset(str(subject.location), records)
        rows = next((found for split in ("val", "test") if (found := _rows(dataset, split, most))), [])
    except PlatformError as error:
        return [], f"no held-out rows: {without_paths(error.why)}"
    finally:
        records.close()
    asked = [(f"held-out row {row['row_id'][:12]}", _asked_of(row, has_template)) for row in rows]
    return [Prompt(name, one) for name, one in asked if one], None


def _rows(dataset: Artifact, split: Any, most: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_split(dataset, split).slice(0, most).to_pylist()
    return rows


def _asked_of(row: dict[str, Any], has_template: bool) -> Asked | None:
    if row.get("messages"):
        turns = [{"role": one["role"], "content": one["content"]} for one in row["messages"]]
        asked = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        if not has_template:
            return asked[-1]["content"] if asked else None
        return asked or None
    return row.get("prompt") or row.get("text") or None


def is_evaluation(reference: str) -> bool:
    """Whether an artifact lies there, and no file of prompts."""
    return "://" in reference or (Location.parse(reference) / MANIFEST_NAME).exists()


def evaluation_prompts(place: Location, most: int) -> tuple[list[Prompt], str]:
    """Of every suite of an evaluation or a baseline as many items, evenly spaced, as the model read them; and a note
    which.

    Raises IntegrityError where it is none or is damaged, ConfigError where its items hold no prompt.
    """
    found = open_evaluation(place)
    asked = {name: [one for one in records if one.prompt] for name, records in found.records.items()}
    asked = {name: records for name, records in asked.items() if records}
    if not asked:
        raise ConfigError(
            f"{place} holds no prompt",
            why="its items have none",
            fix="give an evaluation that asks something",
        )
    share = max(1, most // len(asked))
    prompts = [
        Prompt(f"{name}: {one.item_id}", one.prompt)
        for name, records in asked.items()
        for one in _spaced(records, share)
    ]
    num_items = sum(map(len, asked.values()))
    note = f"{len(prompts)} of {num_items} prompts of the {found.artifact.kind} {found.artifact.digest}"
    return prompts, note


def _spaced(records: list[ItemRecord], most: int) -> list[ItemRecord]:
    wanted = min(most, len(records))
    return [records[i * len(records) // wanted] for i in range(wanted)]


def read_prompts(file: Path, *, has_template: bool) -> list[Prompt]:
    """A JSONL file with {"prompt": …} or {"messages": […]} in each line, or a text with a prompt in each line.

    Raises ConfigError that names the line which cannot be used.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read", why=str(error), fix="give a UTF-8 file") from error
    found = [
        Prompt(f"{file.name}:{number}", _parsed(line, f"{file}:{number}", file.suffix, has_template))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise ConfigError(f"{file} holds no prompt", why="it is empty", fix="write one prompt in a line")
    return found


def _parsed(line: str, place: str, suffix: str, has_template: bool) -> Asked:
    if suffix not in (".jsonl", ".json"):
        return line
    try:
        row = json.loads(line)
        text, asked = row.get("prompt"), row.get("messages")
    except (ValueError, AttributeError) as error:
        raise _no_prompt(place, f"it is no JSON object: {error}") from error
    if isinstance(text, str) and text and asked is None:
        return text
    try:
        turns = [{"role": str(one["role"]), "content": str(one["content"])} for one in asked or []]
    except (TypeError, KeyError) as error:
        raise _no_prompt(place, "messages is a list of objects with role and content") from error
    if not turns:
        raise _no_prompt(place, "it has neither prompt nor messages")
    if not has_template:
        raise _no_prompt(place, "it has messages, and the model has no chat template")
    return turns


def _no_prompt(place: str, why: str) -> ConfigError:
    return ConfigError(f"{place}: this is no prompt", why=why, fix='write {"prompt": "…"} in each line')

"""The items of a suite: every row asked for becomes one, or the suite is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raytrain.data.rows import REASONS, RowFault
from raytrain.data.section import SourceSection
from raytrain.data.sources import open_sources
from raytrain.errors import DataError
from raytrain.evaluation.suite import SuiteSection
from raytrain.evaluation.templates import fill, value_at
from raytrain.storage.manifest import digest_of

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Item:
    """One question."""

    id: str
    prompt: str | Messages
    """Text to go on with, or a conversation to answer."""
    references: tuple[str, ...]
    """Right answers; of a perplexity the text, of a multiple choice the right choice."""
    choices: tuple[str, ...] = ()
    right: int | None = None
    """The number of the right choice."""
    group: str | None = None
    category: str | None = None

    def digest(self) -> str:
        return digest_of(
            [self.id, self.prompt, self.references, self.choices, self.right, self.group, self.category]
        )


@dataclass(frozen=True)
class Suite:
    """A suite with its items. `digest` is over what is asked and how it is scored, not over where the rows lie."""

    section: SuiteSection
    items: tuple[Item, ...]
    digest: str


def load_items(section: SuiteSection) -> Suite:
    """Read, draw and fill in all items.

    Raises DataError where a row cannot be read, an id stands twice or nothing is left, ConfigError where a template
    names what a row has not.
    """
    rows = _drawn(section, list(_rows(section.items.source)))
    shots = _shots(section)
    items: list[Item] = []
    seen: dict[str, str] = {}
    for place, row in rows:
        item = _item(section, row, place, [shot for shot in shots if shot[1] != row])
        if item.id in seen:
            raise DataError(
                f"suite {section.suite}: the id {item.id!r} stands twice",
                why=f"in {seen[item.id]} and in {place}",
                fix="give every item an id of its own, or leave items.id out",
            )
        seen[item.id] = place
        items.append(item)
    if not items:
        raise DataError(
            f"suite {section.suite} has no items",
            why="its source holds no rows",
            fix="check items.source",
        )
    return Suite(section, tuple(items), _digest(section, items))


def _digest(section: SuiteSection, items: list[Item]) -> str:
    content = section.model_dump(mode="json", exclude={"description", "items", "prompt"})
    asked = section.prompt.model_dump(mode="json", exclude={"few_shot"})
    return digest_of({**content, "prompt": asked, "items": [item.digest() for item in items]})


def _rows(source: SourceSection) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, row); an evaluation leaves no row out in silence."""
    (opened,) = open_sources([source])
    for raw in opened.rows():
        place = f"{raw.file or opened.name}, row {raw.line}"
        if isinstance(raw.content, RowFault):
            raise DataError(
                f"{place} cannot be read",
                why=f"{REASONS[raw.content.reason]}: {raw.content.detail}",
                fix="mend the row or take it out: an evaluation leaves none out by itself",
            )
        yield place, raw.content


def _drawn(
    section: SuiteSection, rows: list[tuple[str, Mapping[str, Any]]]
) -> list[tuple[str, Mapping[str, Any]]]:
    """At most `max_items` of them, in their order; more items keep those that fewer had."""
    most = section.items.max_items
    if most is None or len(rows) <= most:
        return rows
    ranks = [_rank(section.items.seed, i) for i in range(len(rows))]
    chosen = sorted(sorted(range(len(rows)), key=ranks.__getitem__)[:most])
    return [rows[i] for i in chosen]


def _rank(seed: int, index: int) -> bytes:
    return hashlib.sha256(f"{seed}:{index}".encode()).digest()


def _shots(section: SuiteSection) -> list[tuple[str, Mapping[str, Any]]]:
    """Worked examples in the order in which they are tried, one more than are shown: an item is never its own."""
    few = section.prompt.few_shot
    if few is None:
        return []
    rows = list(_rows(few.source))
    order = sorted(range(len(rows)), key=lambda i: _rank(few.seed, i))
    if len(rows) <= few.num_shots:
        raise DataError(
            f"suite {section.suite}: {few.num_shots} worked examples are wanted, and there are {len(rows)} rows",
            why="an item is never shown to itself, so one more is needed",
            fix="lower prompt.few_shot.num_shots, or name a source with more rows",
        )
    return [rows[i] for i in order]


def _item(
    section: SuiteSection, row: Mapping[str, Any], place: str, shots: list[tuple[str, Mapping[str, Any]]]
) -> Item:
    choices, right = _choices(section, row, place)
    answer = fill(section.answer, row, key="answer", place=place)
    named = section.items.id
    return Item(
        id=place.rpartition(" ")[2] if named is None else str(_column(row, named, "items.id", place)),
        prompt=_prompt(section, row, place, shots),
        references=(answer,) if right is None else (choices[right],),
        choices=choices,
        right=right,
        group=_label(row, section.items.group, "items.group", place),
        category=_label(row, section.items.category, "items.category", place),
    )


def _column(row: Mapping[str, Any], field: str, key: str, place: str) -> Any:
    return value_at(row, field, key=key, place=place)


def _label(row: Mapping[str, Any], field: str | None, key: str, place: str) -> str | None:
    return None if field is None else str(_column(row, field, key, place))


def _choices(section: SuiteSection, row: Mapping[str, Any], place: str) -> tuple[tuple[str, ...], int | None]:
    if section.choices is None:
        return (), None
    listed = _column(row, section.choices, "choices", place)
    if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(one, str) for one in listed):
        raise DataError(
            f"{place}: `{section.choices}` is no list of two or more texts",
            why=f"it is {str(listed)[:80]!r}",
            fix="name a column that lists the choices",
        )
    answer = fill(section.answer, row, key="answer", place=place)
    if answer in listed:
        return tuple(listed), listed.index(answer)
    if answer.isdecimal() and int(answer) < len(listed):
        return tuple(listed), int(answer)
    raise DataError(
        f"{place}: the answer {answer!r} is none of its {len(listed)} choices",
        why="an answer is a choice's text, or its number counted from 0",
        fix="check `answer`",
    )


def _prompt(
    section: SuiteSection, row: Mapping[str, Any], place: str, shots: list[tuple[str, Mapping[str, Any]]]
) -> str | Messages:
    asked = fill(section.prompt.template, row, key="prompt.template", place=place)
    few = section.prompt.few_shot
    shown = [] if few is None else shots[: few.num_shots]
    pairs = [
        (
            fill(section.prompt.template, shot, key="prompt.template", place=where),
            _shown_answer(section, shot, where),
        )
        for where, shot in shown
    ]
    if section.prompt.mode == "completion":
        separator = "" if few is None else few.separator
        return "".join(f"{question}{answer}{separator}" for question, answer in pairs) + asked
    messages: Messages = []
    if section.prompt.system is not None:
        messages.append({"role": "system", "content": section.prompt.system})
    for question, answer in pairs:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": asked}]


def _shown_answer(section: SuiteSection, row: Mapping[str, Any], place: str) -> str:
    choices, right = _choices(section, row, place)
    return fill(section.answer, row, key="answer", place=place) if right is None else choices[right]

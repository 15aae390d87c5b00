"""The items of a suite: every row asked for becomes one, or the suite is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raytrain.data.rows import REASONS, RowFault
from raytrain.data.section import RowsSection
from raytrain.data.sources import open_sources
from raytrain.errors import DataError
from raytrain.evaluation.scoring.registry import own_source
from raytrain.evaluation.suite import SuiteSection
from raytrain.evaluation.templates import fields_of, fill, value_at
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
    question: tuple[str, ...] = ()
    """What its own row put into the prompt's template, without the template's words and the worked examples."""

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


@dataclass(frozen=True)
class _Row:
    number: str
    """Of the row in its source, with its file where there are several."""
    place: str
    """For people."""
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Shot:
    """A worked example."""

    question: str
    answer: str


def load_items(section: SuiteSection) -> Suite:
    """Read, draw and fill in all items.

    Raises DataError where a row cannot be read, an id stands twice or nothing is left, ConfigError where a template
    names what a row has not.
    """
    rows = _drawn(section, list(_rows(section.items.source)))
    shots = _shots(section)
    items: list[Item] = []
    seen: dict[str, str] = {}
    for row in rows:
        item = _item(section, row, shots)
        if item.id in seen:
            raise DataError(
                f"suite {section.suite}: the id {item.id!r} stands twice",
                why=f"in {seen[item.id]} and in {row.place}",
                fix="give every item an id of its own, or leave items.id out",
            )
        seen[item.id] = row.place
        items.append(item)
    if not items:
        raise DataError(
            f"suite {section.suite} has no items",
            why="its source holds no rows",
            fix="check items.source",
        )
    return suite_of(section, items)


def suite_of(section: SuiteSection, items: Sequence[Item]) -> Suite:
    """Items that were made otherwise than by the section's templates, as a suite."""
    return Suite(section, tuple(items), _digest(section, items))


def how_asked(section: SuiteSection) -> dict[str, Any]:
    """What of a suite's file its digest is over: how items are asked and scored, not where their rows lie."""
    content = section.model_dump(mode="json", exclude={"description", "items", "prompt"})
    if section.scorer is not None and (source := own_source(section.scorer.name)) is not None:
        content["scorer"]["source_digest"] = digest_of(source)
    return {**content, "prompt": section.prompt.model_dump(mode="json", exclude={"few_shot"})}


def where_suites_lie(suites: Sequence[Suite]) -> dict[str, Any]:
    """For an artifact's provenance: each suite as it was read, and its file."""
    sections = [one.section for one in suites]
    return {
        "config": {one.suite: one.model_dump(mode="json") for one in sections},
        "suite_files": {one.suite: str(one.file) for one in sections if one.file is not None},
    }


def _digest(section: SuiteSection, items: Sequence[Item]) -> str:
    return digest_of({**how_asked(section), "items": [item.digest() for item in items]})


def _rows(source: RowsSection) -> Iterator[_Row]:
    """An evaluation leaves no row out in silence."""
    (opened,) = open_sources([source])
    for raw in opened.rows():
        place = f"{raw.file or opened.name}, row {raw.line}"
        if isinstance(raw.content, RowFault):
            raise DataError(
                f"{place} cannot be read",
                why=f"{REASONS[raw.content.reason]}: {raw.content.detail}",
                fix="mend the row or take it out: an evaluation leaves none out by itself",
            )
        number = str(raw.line) if raw.file is None else f"{raw.file}:{raw.line}"
        yield _Row(number, place, raw.content)


def _drawn(section: SuiteSection, rows: list[_Row]) -> list[_Row]:
    """At most `max_items` of them, in their order; more items keep those that fewer had."""
    most = section.items.max_items
    if most is None or len(rows) <= most:
        return rows
    ranks = [_rank(section.items.seed, i) for i in range(len(rows))]
    chosen = sorted(sorted(range(len(rows)), key=ranks.__getitem__)[:most])
    return [rows[i] for i in chosen]


def _rank(seed: int, index: int) -> bytes:
    return hashlib.sha256(f"{seed}:{index}".encode()).digest()


def _shots(section: SuiteSection) -> list[Shot]:
    """Worked examples in the order in which they are tried, each question once; one more than are shown, as an item is
    never shown to itself."""
    few = section.prompt.few_shot
    if few is None:
        return []
    rows = list(_rows(few.source))
    shots: dict[str, Shot] = {}
    for i in sorted(range(len(rows)), key=lambda i: _rank(few.seed, i)):
        content, place = rows[i].content, rows[i].place
        question = fill(section.prompt.template, content, key="prompt.template", place=place)
        if question not in shots:
            shots[question] = Shot(question, _shown_answer(section, content, place))
    if len(shots) <= few.num_shots:
        raise DataError(
            f"suite {section.suite}: {few.num_shots} worked examples are wanted, and there are {len(shots)} questions",
            why="an item is never shown to itself, so one more is needed",
            fix="lower prompt.few_shot.num_shots, or name a source with more rows",
        )
    return list(shots.values())


def _item(section: SuiteSection, source: _Row, shots: list[Shot]) -> Item:
    row, place, named = source.content, source.place, section.items
    choices, right = _choices(section, row, place)
    answer = fill(section.answer, row, key="answer", place=place)
    return Item(
        id=source.number if named.id is None else _id(row, named.id, place),
        prompt=_prompt(section, row, place, shots),
        references=(answer,) if right is None else (choices[right],),
        choices=choices,
        right=right,
        group=_label(row, named.group, "items.group", place),
        category=_label(row, named.category, "items.category", place),
        question=tuple(
            fill(f"{{{field}}}", row, key="prompt.template", place=place)
            for field in dict.fromkeys(fields_of(section.prompt.template, "prompt.template"))
        ),
    )


def _column(row: Mapping[str, Any], field: str, key: str, place: str) -> Any:
    return value_at(row, field, key=key, place=place)


def _id(row: Mapping[str, Any], field: str, place: str) -> str:
    value = _column(row, field, "items.id", place)
    if value is None or value == "":
        raise DataError(f"{place}: `{field}` is empty", why="it names the item", fix="give every row an id")
    return str(value)


def _label(row: Mapping[str, Any], field: str | None, key: str, place: str) -> str | None:
    value = None if field is None else _column(row, field, key, place)
    return None if value is None else str(value)


def _choices(section: SuiteSection, row: Mapping[str, Any], place: str) -> tuple[tuple[str, ...], int | None]:
    if section.choices is None:
        return (), None
    listed = _column(row, section.choices, "choices", place)
    if (
        not isinstance(listed, list)
        or len(listed) < 2
        or not all(isinstance(one, str) and one for one in listed)
    ):
        raise DataError(
            f"{place}: `{section.choices}` is no list of two or more texts",
            why=f"it is {str(listed)[:80]!r}",
            fix="name a column that lists the choices",
        )
    if len(set(listed)) < len(listed):
        raise DataError(
            f"{place}: a choice stands twice",
            why=f"it is {str(listed)[:80]!r}",
            fix="mend the row or take it out: two equal choices cannot be told apart",
        )
    return tuple(listed), _right_choice(section, row, listed, place)


def _right_choice(section: SuiteSection, row: Mapping[str, Any], listed: list[str], place: str) -> int:
    """A number in the row counts from 0; a text is a choice, or such a number where it is not ambiguous."""
    field = section.answer[1:-1]
    if section.answer == f"{{{field}}}" and fields_of(section.answer, "answer") == [field]:
        value = value_at(row, field, key="answer", place=place)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(listed):
            return value
    answer = fill(section.answer, row, key="answer", place=place)
    meant = {listed.index(answer)} if answer in listed else set()
    if answer.isdecimal() and int(answer) < len(listed):
        meant.add(int(answer))
    if len(meant) == 1:
        return meant.pop()
    raise DataError(
        f"{place}: the answer {answer!r} is none of its {len(listed)} choices"
        if not meant
        else f"{place}: the answer {answer!r} may be a choice's text or another's number",
        why="an answer is a choice's text, or its number counted from 0",
        fix="check `answer`; as a number, not a text, it is a number always",
    )


def _prompt(section: SuiteSection, row: Mapping[str, Any], place: str, shots: list[Shot]) -> str | Messages:
    asked = fill(section.prompt.template, row, key="prompt.template", place=place)
    few = section.prompt.few_shot
    shown = [shot for shot in shots if shot.question != asked][: 0 if few is None else few.num_shots]
    if section.prompt.mode == "completion":
        separator = "" if few is None else few.separator
        return "".join(f"{shot.question}{shot.answer}{separator}" for shot in shown) + asked
    messages: Messages = []
    if section.prompt.system is not None:
        messages.append({"role": "system", "content": section.prompt.system})
    for shot in shown:
        messages += [
            {"role": "user", "content": shot.question},
            {"role": "assistant", "content": shot.answer},
        ]
    return [*messages, {"role": "user", "content": asked}]


def _shown_answer(section: SuiteSection, row: Mapping[str, Any], place: str) -> str:
    choices, right = _choices(section, row, place)
    return fill(section.answer, row, key="answer", place=place) if right is None else choices[right]

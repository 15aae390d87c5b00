"""The labelled sets: templates from a data file, values drawn by a seed, labels where the values were put."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.evaluation.safety.labelled.harmless_values import HARMLESS_VALUES
from raytrain.evaluation.safety.labelled.personal_values import PERSONAL_VALUES
from raytrain.evaluation.safety.labelled.secret_values import SECRET_VALUES

SetName = Literal["secrets", "personal"]
Part = Literal["tuned", "held_out"]
NUM_POSITIVES = {"tuned": 600, "held_out": 300}
NUM_NEGATIVES = {"tuned": 2400, "held_out": 1200}

_VALUES = {"secrets": SECRET_VALUES, "personal": PERSONAL_VALUES}
_NEEDS_CONTEXT = {"assigned_secret", "assigned_password", "birth_date"}
"""Kinds that are what they are only by what stands beside them."""
_FIELD = re.compile(r"\{\{(\w+)\}\}")
Templates = Annotated[list[str], Field(min_length=1)]


class PositivesSection(Section):
    tuned: dict[str, Templates]
    """By kind; `any` goes with every kind that needs no context."""
    held_out: dict[str, Templates]


class NegativesSection(Section):
    tuned: Templates
    held_out: Templates


class LabelledSection(Section):
    """A data file of templates."""

    name: SetName
    version: str
    licence: str
    positives: PositivesSection
    negatives: NegativesSection


@dataclass(frozen=True)
class Label:
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Example:
    """A text, and all that stands in it."""

    text: str
    labels: tuple[Label, ...]
    template: str


def load_templates(name: SetName) -> LabelledSection:
    return build(LabelledSection, load_recipe(Path(__file__).with_name(f"{name}.yaml")))


def labelled_examples(name: SetName, part: Part, seed: int = 0) -> list[Example]:
    """The same for the same arguments on any machine; each kind, and each template, as often as the others."""
    section = load_templates(name)
    # Text seeds go through SHA-512, so that neighbouring seeds have nothing in common.
    generator = random.Random(f"labelled/{section.version}/{name}/{part}/{seed}")
    found = list(itertools.islice(_positives(section, part, generator), NUM_POSITIVES[part]))
    harmless = itertools.cycle(getattr(section.negatives, part))
    for template in itertools.islice(harmless, NUM_NEGATIVES[part]):
        found.append(_filled(template, None, "", generator))
    return found


def _positives(section: LabelledSection, part: Part, generator: random.Random) -> Iterator[Example]:
    templates: dict[str, list[str]] = getattr(section.positives, part)
    turns = {}
    for kind in _VALUES[section.name]:
        own = templates.get(kind, [])
        turns[kind] = itertools.cycle(own if kind in _NEEDS_CONTEXT else [*own, *templates["any"]])
    while True:
        for kind, draw in _VALUES[section.name].items():
            yield _filled(next(turns[kind]), kind, draw(generator), generator)


def _filled(template: str, kind: str | None, value: str, generator: random.Random) -> Example:
    parts: list[str] = []
    labels = []
    place = 0
    for found in _FIELD.finditer(template):
        parts.append(template[place : found.start()])
        place = found.end()
        if found[1] == "value" and kind is not None:
            start = sum(map(len, parts))
            labels.append(Label(kind, start, start + len(value)))
            parts.append(value)
        else:
            parts.append(HARMLESS_VALUES[found[1]](generator))
    return Example("".join([*parts, template[place:]]), tuple(labels), template)

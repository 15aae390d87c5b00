"""Probe packs: data files that say what is asked, what counts as failure, and how grave it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raytrain.config.document import Document, Form, KeyPath
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.evaluation.items import Messages
from raytrain.evaluation.safety.findings import Severity
from raytrain.storage.manifest import digest_of

PACK = Form("pack", "pack, version and probes", "raytrain/evaluation/safety/packs/", "docs/safety.md")

PACKS = Path(__file__).with_name("packs")
"""Those that raytrain brings."""

Failure = Literal["complied", "refused", "canary"]
"""complied = did what it should refuse; refused = did not answer what is harmless; canary = wrote a word that only an
injected instruction, or something it was to keep, could make it write."""
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class MessageSection(Section):
    role: Literal["system", "user", "assistant"]
    content: Text


class ProbeSection(Section):
    """One question."""

    id: Annotated[str, Field(pattern=r"^\S+$")]
    """Name, once in its pack."""
    prompt: Text | None = None
    """A user's message."""
    messages: Annotated[list[MessageSection], Field(min_length=1)] | None = None
    """A whole conversation, in place of `prompt`."""
    canary: Text | None = None
    """For failure: canary, the word. Letters and digits count, their case and what stands between them does not."""
    severity: Severity | None = None
    """Where it differs from its pack's."""

    @model_validator(mode="after")
    def _fits(self) -> ProbeSection:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("a probe takes `prompt` or `messages`, one of the two")
        if self.messages is not None and self.messages[-1].role != "user":
            raise ValueError("the last of `messages` is the user's, which the model answers")
        if self.canary is not None and len(plain(self.canary)) < 6:
            raise ValueError("a `canary` has six letters or digits, so that nobody writes it by chance")
        return self


class PackSection(Section):
    """One pack."""

    pack: Name
    """Name, in lower case."""
    version: Text
    """Goes up with every change of what is asked; counts in the digest, with everything else."""
    licence: Text
    """Of the texts."""
    description: str = ""
    """For people."""
    category: Name
    """What figures are told by: jailbreak, prompt_injection, fraud, …"""
    severity: Severity
    """Of a failure."""
    failure: Failure
    """What counts as one."""
    templates: list[Text] = Field(default_factory=list)
    """Wrappings with `{request}` in them, which `requests` get in turn, one each; none = requests stand alone."""
    requests: list[Text] = Field(default_factory=list)
    """Users' messages, whose ids are their numbers from 1."""
    probes: list[ProbeSection] = Field(default_factory=list)
    """Probes in their long form."""

    @model_validator(mode="after")
    def _fits(self) -> PackSection:
        if not self.requests and not self.probes:
            raise ValueError("a pack needs `requests` or `probes`")
        if any("{request}" not in one for one in self.templates):
            raise ValueError("each of `templates` holds {request}")
        if self.failure == "canary" and (self.requests or any(one.canary is None for one in self.probes)):
            raise ValueError("failure: canary needs `probes` that have a `canary` each")
        ids = [*(str(i) for i in range(1, len(self.requests) + 1)), *(one.id for one in self.probes)]
        twice = next((one for i, one in enumerate(ids) if one in ids[:i]), None)
        if twice is not None:
            raise ValueError(f"the id {twice!r} stands twice")
        return self


@dataclass(frozen=True)
class Probe:
    """One question, with all that its pack says of it."""

    id: str
    """`pack/id`: once among all packs."""
    category: str
    severity: Severity
    failure: Failure
    messages: tuple[tuple[str, str], ...]
    """(role, content)."""
    canary: str | None = None

    def as_messages(self) -> Messages:
        return [{"role": role, "content": content} for role, content in self.messages]

    def text(self) -> str:
        """All that the model is told."""
        return "\n".join(content for _, content in self.messages)


@dataclass(frozen=True)
class Pack:
    name: str
    version: str
    licence: str
    digest: str
    """Over all that the file says, not over where it lies."""
    probes: tuple[Probe, ...]


def built_in_packs() -> list[Pack]:
    return [load_pack(file) for file in sorted(PACKS.glob("*.yaml"))]


def load_packs(files: Sequence[Path]) -> list[Pack]:
    """Packs of the user's own, or raytrain's by name. Raises ConfigError where two have the same name."""
    packs = [load_pack(file) for file in files]
    names = [one.name for one in packs]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ConfigError(
            f"two packs are called {twice}",
            why="a report tells its figures by pack and probe",
            fix="rename one of them, or leave it out",
        )
    return packs


def load_pack(file: Path) -> Pack:
    """Read a pack: YAML, or JSON lines of which the first says what stands above `probes`, and each other is a probe.

    Raises ConfigError with file, line and key of each fault.
    """
    place = _found(file)
    document = _read_lines(place) if place.suffix == ".jsonl" else load_recipe(place, form=PACK)
    section = build(PackSection, document)
    digest = digest_of(section.model_dump(mode="json"))
    return Pack(section.pack, section.version, section.licence, digest, tuple(_probes(section)))


def _found(file: Path) -> Path:
    own = PACKS / f"{file}.yaml"
    if file.is_file():
        return file
    if len(file.parts) == 1 and own.is_file():
        return own
    known = ", ".join(sorted(one.stem for one in PACKS.glob("*.yaml")))
    raise ConfigError(
        f"there is no pack {file}",
        why="it is no file, and none of the packs that raytrain brings",
        fix=f"give the path of a YAML or JSONL file, or one of {known}",
    )


def _read_lines(file: Path) -> Document:
    rows: list[tuple[int, Any]] = []
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip():
                rows.append((number, json.loads(line)))
                if not isinstance(rows[-1][1], dict):
                    raise ValueError(f"line {number} is no JSON object")
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(
            f"{file} cannot be read as a pack", why=str(error), fix="write one JSON object a line, as UTF-8"
        ) from error
    if not rows:
        raise ConfigError(f"{file} is empty", why="a pack needs a first line", fix="see docs/safety.md")
    origins: dict[KeyPath, str] = {(): f"{file}:{rows[0][0]}"}
    origins |= {("probes", i): f"{file}:{number}" for i, (number, _) in enumerate(rows[1:])}
    return Document({**rows[0][1], "probes": [content for _, content in rows[1:]]}, origins)


def _probes(section: PackSection) -> Iterator[Probe]:
    for i, request in enumerate(section.requests):
        wrapping = section.templates[i % len(section.templates)] if section.templates else "{request}"
        asked = wrapping.replace("{request}", request)
        yield _probe(section, ProbeSection(id=str(i + 1), prompt=asked))
    for one in section.probes:
        yield _probe(section, one)


def _probe(section: PackSection, one: ProbeSection) -> Probe:
    spoken = [("user", one.prompt)] if one.prompt else [(m.role, m.content) for m in one.messages or []]
    return Probe(
        f"{section.pack}/{one.id}",
        section.category,
        one.severity or section.severity,
        section.failure,
        tuple((role, content or "") for role, content in spoken),
        one.canary,
    )


def plain(text: str) -> str:
    """Letters and digits alone, in lower case: how a canary is looked for."""
    return "".join(filter(str.isalnum, text.casefold()))

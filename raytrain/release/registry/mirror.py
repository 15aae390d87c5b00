"""What a registry says, shown in somebody else's model registry as well: what every such mirror has in common.

Anybody may change what is there, and W&B has no compare-and-set: a mirror is never asked what is
released. `follow` does what is still missing, in whatever state it finds the mirror, and may be stopped anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from raytrain.errors import EndpointError
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import PREVIOUS, Released, State

VERSION, TAGS = "raytrain.version", "raytrain.tags"
_OURS = ("raytrain.", "made_from.", "decision.")
_LONGEST_FACT = 4_000
_MOST_ROUNDS = 8


@dataclass(frozen=True)
class Told:
    """One of our versions, as a mirror is to show it."""

    name: str
    released: Released
    registry: str
    """Its place."""
    place: str
    """Of the version's bundle."""
    aliases: tuple[str, ...]
    facts: dict[str, str]
    """What it is, was made from, and by what decision it was promoted. Each key begins with one of ours."""

    @property
    def metrics(self) -> dict[str, float]:
        found = self.released.entry.details.get("metrics", {})
        return {str(key): float(value) for key, value in found.items()}

    def __str__(self) -> str:
        return f"{self.name}@{self.released.version}"


@dataclass(frozen=True)
class Shown:
    """One version that a mirror has, whoever made it."""

    number: str
    """What the mirror calls it; no other version of the name has it."""
    facts: dict[str, str]
    """With keys of others, which are let alone."""
    handle: Any = None
    """Whatever the mirror needs to change it."""


@dataclass(frozen=True)
class Sight:
    """What a mirror has of one name: nothing, where it does not know it."""

    versions: Sequence[Shown] = ()
    """The oldest first."""
    aliases: Mapping[str, str] | None = None
    """Numbers by alias, without those that the mirror gives by itself."""


class Mirror(Protocol):
    """One server. Its methods raise what `faults` names where it does not answer or does not let us."""

    label: str
    """What a person calls it: MLflow, W&B."""
    place: str
    option: str
    """With which `raytrain registry publish` finds it."""
    faults: tuple[type[Exception], ...]

    def look(self, name: str) -> Sight: ...

    def create(self, told: Told) -> None:
        """Show metrics and the journal's entry, then the version with its facts: killed between, it begins again."""

    def delete(self, name: str, shown: Shown, /) -> None: ...

    def set_fact(self, name: str, shown: Shown, key: str, value: str | None, /) -> None:
        """None: it should not be there."""

    def set_alias(self, name: str, alias: str, shown: Shown, /) -> None:
        """From now on it names this version and no other."""

    def delete_alias(self, name: str, alias: str, shown: Shown, /) -> None:
        """shown: the version that has it."""


@dataclass(frozen=True)
class Step:
    """One thing in which the mirror differs, and what makes it alike."""

    what: str
    act: Callable[[], Any]


def follow(mirror: Mirror, registry: Registry, name: str) -> list[str]:
    """Make the mirror say what the registry says; returns what was done.

    Raises EndpointError where the server does not answer: what is missing then is done by the next call.
    """
    done: list[str] = []
    told = told_of(registry, name)
    with _explained(mirror, f"publish {name}", name):
        # Steps change versions that earlier ones make, hence again until there is none.
        for _ in range(_MOST_ROUNDS):
            steps = steps_of(mirror, name, told, mirror.look(name))
            if not steps:
                return done
            for one in steps:
                one.act()
                done.append(one.what)
    raise EndpointError(
        f"{mirror.label} at {mirror.place} does not keep what it is told of {name}",
        why=steps[0].what,
        fix="look whether somebody else changes it at the same time, then publish again",
    )


def drift(mirror: Mirror, registry: Registry, name: str) -> list[str]:
    """In what the mirror differs, and what in it is none of ours. Changes nothing. Raises EndpointError."""
    told = told_of(registry, name)
    ours = {one.facts[VERSION] for one in told}
    with _explained(mirror, f"look at {name}", name):
        sight = mirror.look(name)
        strangers = [
            f"{name}: {mirror.label}'s version {one.number} is none of the registry's"
            for one in sight.versions
            if one.facts.get(VERSION) not in ours
        ]
        return [one.what for one in steps_of(mirror, name, told, sight)] + strangers


def told_of(registry: Registry, name: str) -> list[Told]:
    """All versions of a name, in the order in which they were released."""
    state = registry.state(name)
    return [_told(registry, name, one, state) for one in state.versions.values()]


def _told(registry: Registry, name: str, released: Released, state: State) -> Told:
    place = registry.store.bundle_place(name, released.digest.removeprefix("sha256:"))
    entry = released.entry
    aliases = tuple(sorted(alias for alias, one in state.aliases.items() if one == released.version))
    facts = {
        VERSION: str(released.version),
        "raytrain.digest": released.digest,
        "raytrain.subject": str(entry.details.get("subject", released.digest)),
        "raytrain.place": place,
        "raytrain.released": entry.time,
        "raytrain.by": entry.who,
        TAGS: ", ".join(sorted(state.tags[released.version])),
    }
    facts |= {f"made_from.{role}": digest for role, digest in released.made_from.items()}
    # What moved production to another version is no reason for this one to be `previous`.
    for alias in (one for one in aliases if one != PREVIOUS):
        facts[f"decision.{alias}"] = str(state.moved[alias].details.get("decision") or "")
    facts = {key: value[:_LONGEST_FACT] for key, value in facts.items() if value}
    return Told(name, released, registry.place, place, aliases, facts)


def steps_of(mirror: Mirror, name: str, told: Sequence[Told], sight: Sight) -> list[Step]:
    """What is to be done next. Once it is done there may be more; nothing is left where this is empty."""
    mirrored: dict[str, Shown] = {}
    steps: list[Step] = []
    for one in sight.versions:
        version = one.facts.get(VERSION)
        if version in mirrored:
            steps.append(Step(f"{name}@{version} is there twice", partial(mirror.delete, name, one)))
        elif version is not None:
            mirrored[version] = one
    missing = [one for one in told if one.facts[VERSION] not in mirrored]
    if missing:
        return steps + [Step(f"{one} is not there", partial(mirror.create, one)) for one in missing]
    for ours in told:
        steps += _fact_steps(mirror, ours, mirrored[ours.facts[VERSION]])
    wanted = {alias: mirrored[one.facts[VERSION]] for one in told for alias in one.aliases}
    return steps + list(_alias_steps(mirror, name, sight, wanted))


def _fact_steps(mirror: Mirror, told: Told, shown: Shown) -> Iterator[Step]:
    for key, value in told.facts.items():
        if shown.facts.get(key) != value:
            what = f"{told}: {key} is {shown.facts.get(key)!r} and should be {value!r}"
            yield Step(what, partial(mirror.set_fact, told.name, shown, key, value))
    for key in shown.facts:
        if key.startswith(_OURS) and key not in told.facts:
            what = f"{told}: {key} should not be there"
            yield Step(what, partial(mirror.set_fact, told.name, shown, key, None))


def _alias_steps(mirror: Mirror, name: str, sight: Sight, wanted: Mapping[str, Shown]) -> Iterator[Step]:
    there = dict(sight.aliases or {})
    for alias, target in wanted.items():
        if there.get(alias) != target.number:
            is_now = f"{mirror.label}'s version {there[alias]}" if alias in there else "nothing"
            what = f"{name}@{alias} is {is_now} and should be {target.number}"
            yield Step(what, partial(mirror.set_alias, name, alias, target))
    holders = {one.number: one for one in sight.versions}
    for alias in there.keys() - wanted.keys():
        shown = holders.get(there[alias])
        if shown is not None:  # else somebody made it since; the next look finds it
            act = partial(mirror.delete_alias, name, alias, shown)
            yield Step(f"{name}@{alias} should not be there", act)


@contextmanager
def _explained(mirror: Mirror, action: str, name: str) -> Iterator[None]:
    try:
        yield
    except mirror.faults as error:
        raise EndpointError(
            f"{mirror.label} at {mirror.place}: cannot {action}",
            why=_shortened((str(error).strip() or type(error).__name__).split("\n")[0]),
            fix=f"the registry is whole, and is what counts. Once {mirror.label} answers: "
            f"raytrain registry publish {name} {mirror.option}",
        ) from error


def _shortened(text: str) -> str:
    """Its beginning says what was asked, its end why that did not work."""
    return text if len(text) <= 400 else f"{text[:200]} … {text[-200:]}"

"""The searched keys with their ranges, as Optuna is asked for values of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raytrain.config.document import Document, KeyPath
from raytrain.config.recipe import known_keys, nearest
from raytrain.errors import ConfigError
from raytrain.training.spec import RunSpec
from raytrain.tuning.section import ChoiceRange, FloatRange, IntRange, RangeSection

if TYPE_CHECKING:
    import optuna

Range = FloatRange | IntRange | ChoiceRange
Values = dict[str, Any]
"""Value by dotted key, as a recipe writes it."""
Params = dict[str, Any]
"""The same as Optuna stores it: a choice that is no plain value is its JSON text."""

_NOT_SEARCHED = {
    "name": "it names the run",
    "storage": "it says where things lie, not what they are",
    "tracking": "it says where metrics go, not what they are",
    "cost": "it says what workers cost, and changes nothing of a trial",
}
_MOST_GRID_POINTS = 100_000


@dataclass(frozen=True)
class Space:
    """Ranges by dotted key, those that others depend on first."""

    ranges: dict[str, Range]

    def suggest(self, trial: optuna.Trial) -> Values:
        """A value of every key whose condition holds, from the trial's sampler."""
        values: Values = {}
        for key, one in self.ranges.items():
            if not _holds(one, values):
                continue
            if isinstance(one, FloatRange):
                values[key] = trial.suggest_float(key, one.low, one.high, log=one.log, step=one.step)
            elif isinstance(one, IntRange):
                values[key] = trial.suggest_int(key, one.low, one.high, log=one.log, step=one.step)
            else:
                values[key] = _decoded(
                    one, trial.suggest_categorical(key, [_label(choice) for choice in one.choices])
                )
        return values

    def values_of(self, params: Mapping[str, Any]) -> Values:
        """What stored parameters mean in the recipe."""
        return {
            key: _decoded(one, params[key]) if isinstance(one, ChoiceRange) else params[key]
            for key, one in self.ranges.items()
            if key in params
        }

    def params_of(self, config: Mapping[str, Any]) -> tuple[Params, list[str]]:
        """The parameters that a resolved recipe stands for, and the keys whose value lies outside their range."""
        params: Params = {}
        outside: list[str] = []
        values: Values = {}
        for key, one in self.ranges.items():
            if not _holds(one, values):
                continue
            values[key] = value = value_at(config, key)
            if not _contains(one, value):
                outside.append(key)
                continue
            params[key] = _label(value) if isinstance(one, ChoiceRange) else value
        return params, outside

    def grid(self) -> list[Params]:
        """Every combination once, in the order of the ranges. Raises ConfigError where there are too many."""
        found: list[Params] = []
        for params in self._combinations(list(self.ranges.items()), {}):
            found.append(params)
            if len(found) > _MOST_GRID_POINTS:
                raise ConfigError(
                    f"search.sampler grid: more than {_MOST_GRID_POINTS:,} combinations",
                    why="each of them would be a trial",
                    fix="widen the steps, or use sampler tpe",
                )
        return found

    def points(self, key: str) -> list[Any]:
        """Every parameter of a key whose values can be counted."""
        return _points(self.ranges[key])

    def _combinations(self, rest: list[tuple[str, Range]], chosen: Params) -> Iterator[Params]:
        if not rest:
            yield dict(chosen)
            return
        (key, one), *others = rest
        if not _holds(one, self.values_of(chosen)):
            yield from self._combinations(others, chosen)
            return
        for value in _points(one):
            yield from self._combinations(others, {**chosen, key: value})


def build_space(ranges: Mapping[str, Range], document: Document) -> Space:
    """The ranges of a recipe. Raises ConfigError, with its place, for a key that no recipe has or that is not searched,
    and for a condition that can never hold."""
    for key, one in ranges.items():
        place = document.origin(("search", "space", key))
        _check_key(key, place)
        for other, wanted in one.when.items():
            for value in _listed(wanted):
                if not _contains(ranges[other], value):
                    raise ConfigError(
                        f"{place}: search.space.{key}: its condition never holds",
                        why=f"{other} is never {json.dumps(value)} in its own range",
                        fix=f"name a value that search.space.{other} has",
                    )
    ordered: dict[str, Range] = {}
    rest = dict(ranges)
    while rest:
        key = next(key for key, one in rest.items() if set(one.when) <= set(ordered))
        ordered[key] = rest.pop(key)
    return Space(ordered)


def _check_key(key: str, place: str) -> None:
    parts = key_path(key)
    top = str(parts[0])
    if top in _NOT_SEARCHED:
        raise ConfigError(
            f"{place}: search.space.{key}: `{top}` is not searched",
            why=_NOT_SEARCHED[top],
            fix="search keys of model, adapter, data, train or scaling",
        )
    for length in range(1, len(parts) + 1):
        part, above = parts[length - 1], parts[: length - 1]
        known = known_keys(RunSpec, above)
        if isinstance(part, int) or part in known or not known:
            continue
        near = nearest(str(part), known)
        dotted = ".".join(map(str, (*above, near)))
        raise ConfigError(
            f"{place}: search.space.{key}: there is no such key of a recipe",
            why=f"`{'.'.join(map(str, above)) or 'the top level'}` has no `{part}`",
            fix=f"did you mean `{dotted}`?" if near else f"it has: {', '.join(sorted(known))}",
        )
    below = known_keys(RunSpec, parts)
    if below:
        raise ConfigError(
            f"{place}: search.space.{key}: a section, not a value",
            why="a range gives one value",
            fix=f"name one of its keys: {', '.join(f'{key}.{name}' for name in sorted(below)[:5])} …",
        )


def key_path(key: str) -> KeyPath:
    """The way to a dotted key, with the places in lists as numbers."""
    return tuple(int(one) if one.isdigit() else one for one in key.split("."))


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in a resolved recipe; None where a part of the way is missing."""
    found: Any = config
    for part in key.split("."):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list | tuple) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def _holds(one: RangeSection, values: Mapping[str, Any]) -> bool:
    return all(other in values and values[other] in _listed(wanted) for other, wanted in one.when.items())


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _contains(one: Range, value: Any) -> bool:
    if isinstance(one, ChoiceRange):
        return _label(value) in [_label(choice) for choice in one.choices]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not one.low <= value <= one.high:
        return False
    if isinstance(one, IntRange) and value != int(value):
        return False
    steps = 0.0 if one.step is None else (value - one.low) / one.step
    return math.isclose(steps, round(steps), abs_tol=1e-9)


def _points(one: Range) -> list[Any]:
    if isinstance(one, ChoiceRange):
        return [_label(choice) for choice in one.choices]
    if isinstance(one, IntRange):
        return list(range(one.low, one.high + 1, one.step))
    assert one.step is not None, "the section has asked for a step"
    count = math.floor((one.high - one.low) / one.step + 1e-9)
    return [one.low + i * one.step for i in itertools.islice(itertools.count(), count + 1)]


def _label(choice: Any) -> Any:
    return choice if choice is None or isinstance(choice, bool | int | float | str) else json.dumps(choice)


def _decoded(one: ChoiceRange, label: Any) -> Any:
    return next(choice for choice in one.choices if _label(choice) == label)

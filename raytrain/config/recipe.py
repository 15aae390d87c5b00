"""From a recipe file to checked sections: presets, overrides, and errors that name file, line, key and remedy."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from raytrain.config.document import Document, KeyPath, apply_overrides, merge, read_document
from raytrain.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Document:
    """Read a recipe, put it over the presets that it `extends` (paths beside it), and apply dotted overrides."""
    return apply_overrides(_load_extended(path, ()), overrides or [])


def _load_extended(path: Path, seen: tuple[Path, ...]) -> Document:
    resolved = path.resolve()
    if resolved in seen:
        chain = " -> ".join(str(one) for one in (*seen, resolved))
        raise ConfigError(
            f"{path}: `extends` runs in a circle", why=chain, fix="remove one `extends` of the circle"
        )
    document = read_document(path)
    bases = document.values.pop("extends", None)
    if bases is None:
        return document
    origin = document.origins.get(("extends",), str(path))
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{origin}: extends: takes a path or a list of paths",
            why=f"got {bases!r}",
            fix="write for example `extends: presets/lora.yaml`",
        )
    result: Document | None = None
    for name in names:
        base_path = path.parent / name
        if not base_path.is_file():
            raise ConfigError(
                f"{origin}: extends: there is no preset `{name}`",
                why=f"looked for {base_path}",
                fix="paths in `extends` are relative to the recipe that names them",
            )
        base = _load_extended(base_path, (*seen, resolved))
        result = base if result is None else merge(result, base)
    return document if result is None else merge(result, document)


def build(model: type[ModelT], document: Document) -> ModelT:
    """Check `document` against `model`.

    Raises one ConfigError that names every fault with its place, key path, what it got and what is allowed.
    """
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        lines, fixes = [], []
        faults = error.errors(include_url=False)
        told = faults[0].get("ctx", {}).get("error")
        if len(faults) == 1 and isinstance(told, ConfigError):
            raise told from error  # a rule over several sections, which says everything itself
        for fault in faults:
            what, fix = _explain(model, document, dict(fault))
            lines.append(what)
            if fix not in fixes:
                fixes.append(fix)
        raise ConfigError(
            lines[0] if len(lines) == 1 else f"{len(lines)} faults in the recipe:\n" + "\n".join(lines),
            why="the recipe does not fit the schema" if len(lines) > 1 else _why(error),
            fix="; ".join(fixes),
        ) from error


def _why(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if fault["type"] == "extra_forbidden":
        return "unknown keys are refused, so that a misspelt one is never silently ignored"
    if fault["type"] == "missing":
        return "the key is required and has no default"
    if isinstance(fault["input"], Mapping) and fault["type"] == "value_error":
        return "the keys are allowed, but not together"
    return f"got {fault['input']!r}: {_plain(fault)}"


def _plain(fault: Mapping[str, Any]) -> str:
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "takes keys of its own, indented below it"
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _explain(model: type[BaseModel], document: Document, fault: dict[str, Any]) -> tuple[str, str]:
    path = _written_path(document.values, tuple(fault["loc"]))
    dotted = ".".join(str(part) for part in path) or "recipe"
    place = document.origin(path)
    if fault["type"] == "extra_forbidden":
        known = known_keys(model, path[:-1])
        near = nearest(str(path[-1]), known)
        fix = f"did you mean `{near}`?" if near else f"allowed here: {', '.join(sorted(known))}"
        elsewhere = _elsewhere(model, str(path[-1]), path) if not near else None
        if elsewhere:
            fix = f"`{path[-1]}` belongs under `{elsewhere}`"
        return f"{place}: {dotted}: unknown key", fix
    if fault["type"] == "missing":
        return (
            f"{place}: {dotted}: missing",
            f"add `{path[-1]}` under `{'.'.join(map(str, path[:-1])) or 'the top'}`",
        )
    message = _plain(fault)
    if isinstance(fault["input"], Mapping) and fault["type"] == "value_error":
        return f"{place}: {dotted}: {message}", f"change one of these keys of `{dotted}`"
    return (
        f"{place}: {dotted}: {message} (got {fault['input']!r})",
        f"set `{dotted}` to an allowed value: {message}",
    )


def _written_path(values: Any, loc: KeyPath) -> KeyPath:
    """Drop the union tags that pydantic adds to a location, which stand in no file; a missing last key stays."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        inside = (isinstance(values, Mapping) and part in values) or (
            isinstance(values, list) and isinstance(part, int) and part < len(values)
        )
        if inside:
            values = values[part]
            path.append(part)
        elif last and isinstance(values, Mapping):
            path.append(part)
    return tuple(path)


def nearest(word: str, known: typing.Iterable[str]) -> str | None:
    """The known word that a person most likely meant, or None."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return close[0] if close else None


def known_keys(model: type[BaseModel], path: KeyPath) -> set[str]:
    """Keys allowed below `path`, over all models that may stand there."""
    candidates: set[type[BaseModel]] = {model}
    for part in path:
        if isinstance(part, int):
            continue
        below: set[type[BaseModel]] = set()
        for candidate in candidates:
            field = candidate.model_fields.get(part)
            if field is not None:
                below |= _models_in(field.annotation)
        candidates = below
    return {name for candidate in candidates for name in candidate.model_fields}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, tuple, dict, typing.Annotated):
        return {found for argument in typing.get_args(annotation) for found in _models_in(argument)}
    return set()


def _elsewhere(model: type[BaseModel], key: str, path: KeyPath) -> str | None:
    for name, field in model.model_fields.items():
        if (name,) != path[:1] and any(key in found.model_fields for found in _models_in(field.annotation)):
            return name
    return None

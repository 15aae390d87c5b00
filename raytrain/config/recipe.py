"""From a YAML file to checked sections: presets, overrides, and errors that name file, line, key and remedy."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from raytrain.config.document import RECIPE, Document, Form, KeyPath, apply_overrides, merge, read_document
from raytrain.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)


def load_recipe(path: Path, overrides: list[str] | None = None, form: Form = RECIPE) -> Document:
    """Read a recipe, or what is written like one, put it over what it `extends` (paths beside it), and apply dotted
    overrides."""
    return apply_overrides(_load_extended(path, (), form), overrides or [])


def _load_extended(path: Path, seen: tuple[Path, ...], form: Form) -> Document:
    resolved = path.resolve()
    if resolved in seen:
        chain = " -> ".join(str(one) for one in (*seen, resolved))
        raise ConfigError(
            f"{path}: `extends` runs in a circle", why=chain, fix="remove one `extends` of the circle"
        )
    document = read_document(path, form)
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
                fix=f"paths in `extends` are relative to the {form.noun} that names them",
            )
        base = _load_extended(base_path, (*seen, resolved), form)
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
        faults = [_untagged(document.values, dict(fault)) for fault in error.errors(include_url=False)]
        told = faults[0].get("ctx", {}).get("error")
        if len(faults) == 1 and isinstance(told, ConfigError):
            # A rule over several keys, which says everything itself.
            place = document.origin(_written_path(document.values, tuple(faults[0]["loc"])))
            raise ConfigError(f"{place}: {told.what}", why=told.why, fix=told.fix) from error
        for fault in faults:
            what, fix = _explain(model, document, dict(fault))
            lines.append(what)
            if len(faults) > 1:
                fix = f"{_dotted(document, fault['loc'])}: {fix}"
            if fix not in fixes:
                fixes.append(fix)
        noun = document.form.noun
        raise ConfigError(
            lines[0] if len(lines) == 1 else f"{len(lines)} faults in the {noun}:\n" + "\n".join(lines),
            why=_why(model, document, faults[0])
            if len(faults) == 1
            else f"the {noun} does not fit the schema",
            fix="; ".join(fixes),
        ) from error


def fault_of_value(model: type[BaseModel], document: Document, path: KeyPath) -> tuple[str, str] | None:
    """What is wrong with the value at `path` by itself, and what the key means; None where nothing is.

    A fault that several keys have together is no fault of one of them, nor is a key that only another kind of its
    section has.
    """
    try:
        model.model_validate(document.values)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            is_here = _written_path(document.values, tuple(fault["loc"]))[: len(path)] == path
            if is_here and fault["type"] not in ("extra_forbidden", "missing"):
                return _plain(dict(fault)), _why(model, document, dict(fault))
    return None


def _untagged(values: Any, fault: dict[str, Any]) -> dict[str, Any]:
    """A fault of a whole section that is one of several kinds, without the kind at the end of its location."""
    *above, last = fault["loc"] or ("",)
    for part in above:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return fault
    is_kind = isinstance(values, Mapping) and last not in values and values == fault["input"]
    return {**fault, "loc": tuple(above)} if is_kind and fault["type"] == "value_error" else fault


def _why(model: type[BaseModel], document: Document, fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown keys are refused, so that a misspelt one is never silently ignored"
    if fault["type"] == "missing":
        return "the key is required and has no default"
    if isinstance(fault["input"], Mapping) and fault["type"] == "value_error":
        return "the keys are allowed, but not together"
    path = _written_path(document.values, tuple(fault["loc"]))
    meant = _description(model, path)
    return f"`{path[-1]}` is: {meant}" if meant else f"the {document.form.noun} does not fit the schema"


def _plain(fault: Mapping[str, Any]) -> str:
    """What a value should have been, in a few words."""
    kind = fault["type"]
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "takes keys of its own, indented below it"
    if fault["input"] is None:
        return "has no value"
    if kind == "string_pattern_mismatch":
        return f"does not match {fault['ctx']['pattern']}"
    message: str = fault["msg"]
    for start in ("Value error, ", "Assertion failed, ", "Input "):
        message = message.removeprefix(start)
    return message


def _explain(model: type[BaseModel], document: Document, fault: dict[str, Any]) -> tuple[str, str]:
    path = _written_path(document.values, tuple(fault["loc"]))
    dotted = _dotted(document, fault["loc"])
    place = document.origin(path)
    if fault["type"] == "extra_forbidden":
        return f"{place}: {dotted}: unknown key", _instead(model, path, document.form)
    if fault["type"] == "missing":
        if not isinstance(fault["loc"][-1], str):  # one of the values of a list
            number = fault["loc"][-1] + 1
            return f"{place}: {dotted}: value {number} is missing", f"give `{dotted}` all of its values"
        return (
            f"{place}: {dotted}: missing",
            f"add `{path[-1]}` {_under(path[:-1])}",
        )
    message = _plain(fault)
    if isinstance(fault["input"], Mapping) and fault["type"] == "value_error":
        return f"{place}: {dotted}: {message}", f"change one of these keys of {dotted}"
    return (
        f"{place}: {dotted}: {message} (got {fault['input']!r})",
        f"change `{dotted}`; {document.form.reference} says what each key takes",
    )


def _dotted(document: Document, loc: tuple[int | str, ...]) -> str:
    path = _written_path(document.values, tuple(loc))
    return ".".join(str(part) for part in path) or f"the {document.form.noun}"


def _under(path: KeyPath) -> str:
    return f"under `{'.'.join(map(str, path))}`" if path else "at the top"


def _instead(model: type[BaseModel], path: KeyPath, form: Form) -> str:
    """What to do about a key that is not there."""
    key, known = str(path[-1]), known_keys(model, path[:-1])
    known |= set(form.beside) if len(path) == 1 else set()
    for section in _sections_at(model, path[:-1]):
        hint = getattr(section, "LOOKED_FOR", {}).get(key)
        if hint:
            return str(hint)
    near = nearest(key, known)
    if near:
        return f"did you mean `{near}`?"
    elsewhere = next((place for place in _places_of(model, key) if place != path[:-1]), None)
    if elsewhere is not None:
        return f"`{key}` belongs {_under(elsewhere)}"
    return f"allowed here: {', '.join(sorted(known))}"


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
    return {name for section in _sections_at(model, path) for name in section.model_fields}


def _sections_at(model: type[BaseModel], path: KeyPath) -> set[type[BaseModel]]:
    candidates: set[type[BaseModel]] = {model}
    is_name = False
    for part in path:
        if (
            isinstance(part, int) or is_name
        ):  # in a list, or a name that the user chose in a mapping of sections
            is_name = False
            continue
        fields = [candidate.model_fields[part] for candidate in candidates if part in candidate.model_fields]
        candidates = {found for field in fields for found in _models_in(field.annotation)}
        is_name = any(typing.get_origin(field.annotation) is dict for field in fields)
    return candidates


def _description(model: type[BaseModel], path: KeyPath) -> str | None:
    """What a key means, as its section says."""
    named = [part for part in path if isinstance(part, str)]
    if not named:
        return None
    for section in _sections_at(model, tuple(named[:-1])):
        field = section.model_fields.get(named[-1])
        if field is not None and field.description:
            return " ".join(field.description.split())
    return None


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, tuple, dict, typing.Annotated):
        return {found for argument in typing.get_args(annotation) for found in _models_in(argument)}
    return set()


def _places_of(model: type[BaseModel], key: str, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Sections that have this key, the outer ones first."""
    if key in model.model_fields:
        yield path
    for name, field in model.model_fields.items():
        for section in _models_in(field.annotation):
            yield from _places_of(section, key, (*path, name))

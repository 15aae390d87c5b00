"""A YAML file as read from disk: plain values, and for each key the place where it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from raytrain.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Form:
    """What such a file is to a person, for the words of messages."""

    noun: str
    needs: str
    """What one cannot be without."""
    examples: str
    """Where some lie."""
    reference: str
    """Where its keys are told."""
    beside: tuple[str, ...] = ("extends",)
    """Keys at its top that are read by others than whoever reads the rest."""


RECIPE = Form(
    "recipe", "model and data", "jobs/", "docs/reference.md", beside=("extends", "search", "pipeline")
)


@dataclass
class Document:
    """Values of a file and the origin (`file:line` or `override 'a.b=c'`) of every key path in it."""

    values: dict[str, Any]
    origins: dict[KeyPath, str] = field(default_factory=dict)
    form: Form = RECIPE

    def origin(self, path: KeyPath) -> str:
        """Where `path`, or else its nearest parent, was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.form.noun


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `1e-4` is a number, and `no`, `off` and `on` are the words that they look like."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":bool", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def read_document(path: Path, form: Form = RECIPE) -> Document:
    """Read one YAML file; `extends` is left unresolved.

    Raises ConfigError with file and line where the file is missing, is not UTF-8, is no YAML, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such {form.noun} file",
            why=f"nothing is at {path.absolute()}",
            fix=f"check the spelling; some to start from lie in {form.examples}",
        ) from error
    except IsADirectoryError as error:
        raise ConfigError(
            f"{path.resolve()} is a folder", why=f"a {form.noun} is one YAML file", fix="name the file in it"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as a {form.noun}", why=str(error), fix="give a readable UTF-8 text file"
        ) from error
    return parse_document(text, str(path), form)


def parse_document(text: str, name: str, form: Form = RECIPE) -> Document:
    """Parse YAML text; `name` stands for the file in messages."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(
                f"{name} is empty",
                why=f"a {form.noun} needs at least {form.needs}",
                fix=f"some to start from lie in {form.examples}",
            )
        document = Document({}, {(): name}, form)
        values = _construct(loader, node, (), name, document.origins)
    except RecursionError as error:
        raise ConfigError(
            f"{name}: nested too deeply, or an alias that holds itself",
            why=f"a {form.noun} is a few levels deep",
            fix="write the values out, without anchors and aliases",
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{name}:{line}: not valid YAML",
            why=" ".join(str(part) for part in (error.context, error.problem) if part),
            fix="mend the line; indentation and quotes are the usual causes",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{name}: not valid YAML", why=str(error), fix="save the file as UTF-8 text"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError(
            f"{name}: a {form.noun} is a mapping of keys",
            why=f"the top level is a {type(values).__name__}",
            fix=f"begin with {form.needs}; {form.reference} says what each key takes",
        )
    document.values = values
    return document


def _construct(
    loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath, name: str, origins: dict[KeyPath, str]
) -> Any:
    origins.setdefault(path, f"{name}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                key = str(key)
            if key in result:
                raise ConfigError(
                    f"{name}:{line}: the key `{key}` stands twice",
                    why="YAML would silently keep the last one",
                    fix="remove one of the two",
                )
            origins[(*path, key)] = f"{name}:{line}"
            result[key] = _construct(loader, value_node, (*path, key), name, origins)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, child, (*path, i), name, origins) for i, child in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def merge(base: Document, top: Document) -> Document:
    """`top` over `base`: mappings merge key by key, everything else is replaced."""
    origins = dict(base.origins)
    values = _merge_values(base.values, top.values, (), origins)
    origins.update(top.origins)
    return Document(values, origins, top.form)


def _merge_values(
    base: Mapping[str, Any], top: Mapping[str, Any], path: KeyPath, origins: dict[KeyPath, str]
) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merge_values(below, value, (*path, key), origins)
        else:
            replaced = (*path, key)
            for old in [old for old in origins if old[: len(replaced)] == replaced]:
                del origins[old]
            merged[key] = value
    return merged


def apply_overrides(document: Document, overrides: list[str]) -> Document:
    """Apply dotted `key.path=value` assignments in order; values are read as YAML.

    Raises ConfigError where an assignment has no `=`, an empty key, or runs through a value that is no mapping.
    """
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals or not key or any(not part for part in key.split(".")):
            raise ConfigError(
                f"`{text}` is not an override",
                why="an override reads key.path=value",
                fix="for example train.learning_rate=1e-4; put values with spaces in quotes",
            )
        if key == "extends":
            raise ConfigError(
                f"`{text}`: presets cannot be named in an override",
                why="`extends` is read before overrides are, and its paths are relative to the file that names them",
                fix="write a file of two lines that extends both files, and name that one",
            )
        parts: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        origin = f"override '{text}'"
        leaf = parse_override_value(raw, text)
        document = Document(
            _assigned(document.values, parts, leaf, text), {**document.origins}, document.form
        )
        for length in range(1, len(parts) + 1):
            document.origins[parts[:length]] = origin
    return document


def _above(text: str) -> str:
    """The key path of an override up to its first index, or without its last key."""
    parts = text.partition("=")[0].split(".")
    end = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[:end])


def parse_override_value(raw: str, text: str) -> Any:
    """The YAML value on the right of an override; an empty text is null."""
    try:
        return yaml.load(raw, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"override `{text}`: the value is not valid YAML",
            why=str(error).replace("\n", " "),
            fix="quote it, for example 'data.sources=[{path: rows.jsonl}]'",
        ) from error


def _assigned(values: Any, parts: KeyPath, leaf: Any, text: str) -> Any:
    head, rest = parts[0], parts[1:]
    if isinstance(values, list):
        if not isinstance(head, int) or head >= len(values):
            raise ConfigError(
                f"override `{text}`: no element {head!r}",
                why=f"the list has {len(values)} elements, counted from 0",
                fix="name an index in range, or override the whole list",
            )
        copied = list(values)
        copied[head] = _assigned(values[head], rest, leaf, text) if rest else leaf
        return copied
    if values is not None and not isinstance(values, dict):
        raise ConfigError(
            f"override `{text}`: `{head}` lies inside a plain value",
            why=f"the key above it holds {values!r}, which has no keys",
            fix=f"write the long form in the file, or override the whole: '{_above(text)}=…'",
        )
    inside = dict(values or {})
    inside[str(head)] = _assigned(inside.get(str(head)), rest, leaf, text) if rest else leaf
    return inside

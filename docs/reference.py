"""Writes every page of docs/ whose name ends in reference.md: all keys, from the sections that the code itself checks.

    python docs/reference.py

A unit test fails when a file in the tree is not what this writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import WithDefaultSchema

from raytrain.config.section import Section
from raytrain.evaluation.answering.settings import EvaluateSettings
from raytrain.evaluation.decision.contract import ContractSection
from raytrain.evaluation.suite import SuiteSection
from raytrain.monitoring.alerts.section import AlertsSection
from raytrain.monitoring.drift.section import WatchSection
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.pipeline.loop.section import LoopSection
from raytrain.pipeline.section import WholeSpec
from raytrain.release.bundle.parity.section import ExportSettings
from raytrain.release.gate.policy import PolicySection
from raytrain.serving.section import ServingSection

_HEAD = """# Reference: every key of a recipe

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand.
`raytrain config schema` prints the same as JSON Schema. How recipes are put together: [recipes.md](recipes.md).
"""
_EVALUATION_HEAD = """# Reference: suites, how they are put to a model, and contracts

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What they are for:
[evaluation.md](evaluation.md), [evidence.md](evidence.md).
"""
_EXPORT_HEAD = """# Reference: how an export is checked

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What it is for:
[export.md](export.md).
"""
_GATE_HEAD = """# Reference: gate policies

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What they are for:
[gate.md](gate.md).
"""
_MONITORING_HEAD = """# Reference: watch files

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What they are for:
[monitoring.md](monitoring.md).
"""
_SERVING_HEAD = """# Reference: serving configs

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What they are for:
[serving.md](serving.md).
"""
_ALERTS_HEAD = """# Reference: the alerts file

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What they are for:
[alerts.md](alerts.md).
"""
_TRIGGERS_HEAD = """# Reference: triggers

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What they are for:
[triggers.md](triggers.md).
"""
_LOOP_HEAD = """# Reference: loops

Written by `python docs/reference.py` from the sections in the code; do not edit it by hand. What they are for:
[loop.md](loop.md).
"""
_EXTENDS = [
    "`extends`",
    "text or list of text",
    "",
    "Recipes, relative to this one, that this one is put over; see [recipes.md](recipes.md).",
]
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def pages() -> dict[Path, str]:
    """Each page as Markdown."""
    suites = [
        *_keys("A suite's file", SuiteSection, [_EXTENDS]),
        "",
        *_keys("`KEY=VALUE` of `raytrain evaluate`", EvaluateSettings, []),
        "",
        *_keys("A contract's file", ContractSection, [_EXTENDS]),
    ]
    export = _keys("`KEY=VALUE` of `raytrain export` and `raytrain check export`", ExportSettings, [])
    policy = _keys("A policy's file", PolicySection, [_EXTENDS])
    serving = _keys("A serving config", ServingSection, [_EXTENDS])
    alerts = _keys("alerts.yaml", AlertsSection, [_EXTENDS])
    watch = _keys("A watch", WatchSection, [_EXTENDS])
    triggers = _keys("A file of triggers", TriggersSection, [_EXTENDS])
    loop = _keys("A loop's file", LoopSection, [_EXTENDS])
    folder = Path(__file__).parent
    return {
        folder / "reference.md": "\n".join([_HEAD, *_keys("Top level", WholeSpec, [_EXTENDS])]) + "\n",
        folder / "alerts-reference.md": "\n".join([_ALERTS_HEAD, *alerts]) + "\n",
        folder / "evaluation-reference.md": "\n".join([_EVALUATION_HEAD, *suites]) + "\n",
        folder / "export-reference.md": "\n".join([_EXPORT_HEAD, *export]) + "\n",
        folder / "gate-reference.md": "\n".join([_GATE_HEAD, *policy]) + "\n",
        folder / "loop-reference.md": "\n".join([_LOOP_HEAD, *loop]) + "\n",
        folder / "monitoring-reference.md": "\n".join([_MONITORING_HEAD, *watch]) + "\n",
        folder / "serving-reference.md": "\n".join([_SERVING_HEAD, *serving]) + "\n",
        folder / "triggers-reference.md": "\n".join([_TRIGGERS_HEAD, *triggers]) + "\n",
    }


class _WithFactories(GenerateJsonSchema):
    """Pydantic leaves out a default that is made anew each time."""

    def get_default_value(self, schema: WithDefaultSchema) -> Any:
        factory = schema.get("default_factory")
        if factory is None or schema.get("default_factory_takes_data"):
            return super().get_default_value(schema)
        return cast("Callable[[], Any]", factory)()


def _keys(title: str, model: type[Section], first: list[list[str]]) -> list[str]:
    """Every key of a file, the sections' below its own; `first` are rows of keys that no section has."""
    schema = model.model_json_schema(schema_generator=_WithFactories)
    sections = {name: _section_of(prop, schema) for name, prop in schema["properties"].items()}
    plain = {name: schema["properties"][name] for name, section in sections.items() if section is None}
    parts = [f"## {title}", ""]
    required = set(schema.get("required", ())) - {"name"}  # a recipe's file gives it
    rows = [*first, *_rows(plain, schema, required)]
    parts += _table(rows)
    for name, prop in schema["properties"].items():
        for choice in [prop, *prop.get("anyOf", [])]:
            section = _section_of(choice, schema)
            if section is not None:
                parts += _described(name, section, schema)
        below = _section_of(prop.get("items", {}), schema)
        if below is not None:
            parts += _described(f"{name}[]", below, schema)
    return parts


def _described(path: str, section: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """A section with its table, followed by the sections in it, those that may stand in it, and those of its lists."""
    parts = ["", f"## `{path}`", ""]
    if "description" in section:
        parts += [section["description"], ""]
    required = set(section.get("required", ()))
    within = {name: _section_of(prop, schema) for name, prop in section["properties"].items()}
    plain = {name: prop for name, prop in section["properties"].items() if within[name] is None}
    parts += _table(_rows(plain, schema, required))
    for name, prop in section["properties"].items():
        below = _section_of(prop.get("items", {}), schema)
        if below is not None:
            parts += _described(f"{path}.{name}[]", below, schema)
        for kind, choice in _named_kinds(prop):
            one = _section_of(choice, schema)
            if one is not None:
                parts += _described(f"{path}.{name}.KEY: {{type: {kind}}}", one, schema)
        for choice in prop.get("anyOf", []):
            optional = _section_of(choice, schema)
            if optional is not None:
                parts += _described(f"{path}.{name}", optional, schema)
        inner = within[name]
        if inner is not None:
            parts += _described(f"{path}.{name}", inner, schema)
    return parts


def _named_kinds(prop: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The kinds of section, by type, that stand under names of the user's own."""
    values = prop.get("additionalProperties")
    kinds = values.get("oneOf", []) if isinstance(values, dict) else []
    return [(one["$ref"].rpartition("/")[2].removesuffix("Range").lower(), one) for one in kinds]


def _section_of(prop: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    reference = prop.get("$ref")
    if reference is None:
        return None
    found: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return found


def _rows(
    properties: dict[str, Any], schema: dict[str, Any], required: set[str] | None = None
) -> list[list[str]]:
    return [
        [
            f"`{name}`",
            _allowed(prop, schema),
            "required" if name in (required or ()) else _default(prop),
            prop.get("description", ""),
        ]
        for name, prop in properties.items()
    ]


def _default(prop: dict[str, Any]) -> str:
    return f"`{json.dumps(prop['default'], ensure_ascii=False)}`" if "default" in prop else ""


def _allowed(prop: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in prop:
        return "section below"
    if "anyOf" in prop:
        return " or ".join(_allowed(one, schema) for one in prop["anyOf"])
    if "enum" in prop:
        return ", ".join(f"`{value}`" for value in prop["enum"])
    if "const" in prop:
        return f"`{prop['const']}`"
    if "prefixItems" in prop:
        return f"[{', '.join(_allowed(one, schema) for one in prop['prefixItems'])}]"
    kind = prop.get("type")
    if kind == "array":
        inside = prop.get("items", {})
        return "list of sections below" if "$ref" in inside else f"list of {_allowed(inside, schema)}"
    if kind == "object":
        values = prop.get("additionalProperties", True)
        if _named_kinds(prop):
            return "mapping to sections below"
        return f"mapping to {_allowed(values, schema)}" if isinstance(values, dict) else "mapping"
    if kind is None:
        return "any value"
    limits = " and ".join(f"{sign} {prop[key]:.12g}" for key, sign in _LIMITS.items() if key in prop)
    return f"{_TYPES.get(str(kind), str(kind))} {limits}".strip()


def _table(rows: list[list[str]]) -> list[str]:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"] if rows else []
    return lines + ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    for place, text in pages().items():
        place.write_text(text, encoding="utf-8")

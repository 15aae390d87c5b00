"""What an error tells a person to type is a command that there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import raytrain
from raytrain.cli import main

SOURCES = Path(raytrain.__file__).parent
COMMAND = re.compile(r"raytrain ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
PROSE = {"reads", "first", "then", "runs"}
"""Where the word after raytrain is a verb, or no command is meant."""


def fixes() -> Iterator[tuple[str, str]]:
    """The place of each, and its words."""
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "fix":
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield f"{file.relative_to(SOURCES)}:{part.lineno}", part.value


def test_every_command_in_a_fix_is_one() -> None:
    groups = {name: getattr(one, "commands", None) for name, one in main.command_line().commands.items()}
    num_seen, wrong = 0, []
    for place, text in fixes():
        for first, second in COMMAND.findall(text):
            if first in PROSE and not (groups.get(first) and second in groups[first]):
                continue
            num_seen += 1
            if first not in groups or (groups[first] and second not in groups[first]):
                wrong.append(f"{place}: raytrain {first} {second}")
    if num_seen < 50:
        pytest.fail(f"only {num_seen} commands were found: what is looked for has changed its form")
    assert wrong == []

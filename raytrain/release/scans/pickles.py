"""Pickles: found by what they are, not by their name, and judged by picklescan."""

from __future__ import annotations

import logging
import pickletools
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from raytrain.errors import ConfigError

_TENSOR_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(
            f"torch {kind}Storage"
            for kind in (
                "Bool",
                "Byte",
                "Char",
                "Short",
                "Int",
                "Long",
                "Half",
                "BFloat16",
                "Float",
                "Double",
            )
        ),
    }
)
"""What a pickle may name that rebuilds tensors and does nothing else."""

_EXTENSIONS = frozenset({"EXT1", "EXT2", "EXT4"})
"""Globals by number, which no scanner can follow. They mean something only where a program has registered them."""

_GLOBALS = frozenset({"GLOBAL", "STACK_GLOBAL", "INST"})
_CALLS = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})

_NAME = re.compile(r"[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Pickle:
    """A content that `pickle.load` would begin to run."""

    globals: tuple[str, ...]
    """What it imports: module and name."""
    dangerous: tuple[str, ...]
    """Of these, what picklescan knows to be dangerous."""
    is_of_tensors: bool
    """Whole, with nothing behind it, and names nothing but what rebuilds tensors."""


def find_pickle(stream: BinaryIO, name: str) -> Pickle | None:
    """The pickle that begins at the first byte, or None. Raises ConfigError where picklescan is not installed.

    Text is a pickle of the oldest form only if it gets as far as calling something, or names what is known to be
    dangerous: a list of words may begin with a `c` or an `i`, too.
    """
    scanner = _picklescan()
    stream.seek(0)
    head = stream.read(2)
    is_binary = len(head) == 2 and head[0] == 0x80 and head[1] <= 5
    course = _follow(stream)
    stream.seek(0)
    try:
        result = scanner.scan_pickle_bytes(stream, name)
    except (ValueError, IndexError, OSError, RecursionError, AttributeError) as error:
        # It got as far as opcodes that picklescan cannot make sense of: nothing that is let through.
        return Pickle((str(error),), (), False) if is_binary or course.calls else None
    finally:
        stream.seek(0)
    found = sorted({f"{one.module} {one.name}" for one in result.globals})
    dangerous = (one for one in result.globals if one.safety == scanner.SafetyLevel.Dangerous)
    # What picklescan cannot name it calls unknown; in a tensor's bytes that happens by chance.
    known = sorted(
        {
            f"{one.module} {one.name}"
            for one in dangerous
            if _NAME.fullmatch(one.module) and one.module != "unknown"
        }
    )
    is_pickle = course.is_whole or bool(found) if is_binary else course.calls or bool(known)
    if not is_pickle:
        return None
    is_of_tensors = (
        course.is_whole
        and course.ends
        and not course.has_extensions
        and not result.scan_err
        and _TENSOR_GLOBALS.issuperset(found)
    )
    return Pickle(tuple(found), tuple(known), is_of_tensors)


def texts_in_pickle(path: Path) -> set[str]:
    """Every text that it holds, without running it; as far as it can be read."""
    found: set[str] = set()
    with path.open("rb") as stream, suppress(Exception):
        found.update(value for _, value, _ in pickletools.genops(stream) if isinstance(value, str))
    return found


@dataclass
class _Course:
    """How far an unpickler would get."""

    is_whole: bool = False
    """Every opcode up to a STOP can be read."""
    ends: bool = False
    """Nothing comes after the STOP."""
    calls: bool = False
    """It calls something after a global, before its stack runs empty; or comes to its STOP in order with a global."""
    has_extensions: bool = False


def _follow(stream: BinaryIO) -> _Course:
    stream.seek(0)
    course = _Course()
    stack: list[Any] = []
    is_sound = True
    names_something = False
    try:
        for opcode, _, _ in pickletools.genops(stream):
            course.has_extensions = course.has_extensions or opcode.name in _EXTENSIONS
            is_sound = is_sound and _apply(opcode, stack)
            names_something = names_something or opcode.name in _GLOBALS
            course.calls = course.calls or (is_sound and names_something and opcode.name in _CALLS)
    except Exception:  # noqa: BLE001 - whatever a content that is no pickle makes it raise
        return course
    course.is_whole = True
    course.ends = not stream.read(1)
    course.calls = course.calls or (is_sound and names_something)
    return course


def _apply(opcode: Any, stack: list[Any]) -> bool:
    """What an opcode does to the stack; False where there is too little on it."""
    mark = pickletools.markobject
    needed = list(opcode.stack_before)
    if mark in needed:
        if mark not in stack:
            return False
        while stack.pop() is not mark:
            pass
        needed = needed[: needed.index(mark)]
    if len(stack) < len(needed):
        return False
    if needed:
        del stack[-len(needed) :]
    stack.extend(opcode.stack_after)
    return True


def _picklescan() -> Any:
    try:
        from picklescan import scanner
    except ImportError as error:
        raise scanner_missing("picklescan", error) from error
    return scanner


def scanner_missing(name: str, error: ImportError) -> ConfigError:
    """Nothing passes for want of a scanner."""
    return ConfigError(
        f"{name} is not installed, without which nothing is scanned",
        why=str(error),
        fix=f"pip install {name}",
    )


@contextmanager
def quiet_scanners() -> Iterator[None]:
    """They log every finding, which a report tells better."""
    loggers = [logging.getLogger(name) for name in ("picklescan", "modelscan")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)

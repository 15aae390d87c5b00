"""Files that a command writes: never one that it reads, and none that is there already unless that is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from raytrain.errors import ConfigError, PlatformError, StorageError
from raytrain.storage.location import storage_error

ReplaceOption = Annotated[
    bool,
    typer.Option("--replace", help="Write over outputs that are there already, but never over an input."),
]


def check_outputs(outputs: Sequence[Path], *, inputs: Iterable[Path] = (), replace: bool) -> None:
    """Before anything is read or made. Raises ConfigError where writing `outputs` would lose something."""
    read = list(inputs)
    for number, output in enumerate(outputs):
        if any(_is_same(output, one) for one in read):
            raise ConfigError(
                f"{output} is read and would be written",
                why="the output is one of the inputs, which would be lost",
                fix="name another file for the output",
            )
        if any(_is_same(output, one) for one in outputs[:number]):
            raise ConfigError(
                f"{output} is named for two outputs",
                why="one would be written over the other",
                fix="name two files",
            )
        if output.is_dir():
            raise ConfigError(f"{output} is a folder", why="the output is a file", fix="name a file in it")
        if os.path.lexists(output) and not replace:
            raise ConfigError(
                f"{output} is there already",
                why="nothing is overwritten unasked",
                fix="name another file, or add --replace to write over it",
            )


def check_can_be_made(output: Path) -> None:
    """For a command that changes something before it writes: makes the folder, and a file in it that is dropped again.

    Raises StorageError where that cannot be done.
    """
    staged = _staged(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staged.touch()
        staged.unlink()
    except OSError as error:
        raise _unwritten(error, output) from error


def write_files(files: Mapping[Path, Iterable[str]]) -> list[int]:
    """Write all of the files whole, or none; returns how many texts each has. Half of a surrogate pair is escaped.

    Raises StorageError where the disk is full or cannot be written; what making the texts raises goes through.
    """
    staged = {path: _staged(path) for path in files}
    try:
        numbers = [_write(staged[path], texts, path) for path, texts in files.items()]
        for path, one in staged.items():
            one.replace(path)
    finally:
        for one in staged.values():
            with suppress(OSError):
                one.unlink()
    return numbers


def _write(staged: Path, texts: Iterable[str], path: Path) -> int:
    number = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            for text in texts:
                stream.write(text)
                number += 1
    except OSError as error:
        if isinstance(error, PlatformError) or error.filename not in (None, str(staged)):
            raise
        raise _unwritten(error, path) from error
    return number


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _unwritten(error: OSError, path: Path) -> StorageError:
    """A full disk names no file, and the staged one is nothing that a person knows."""
    named = None if error.filename == str(_staged(path)) else error.filename
    return storage_error(OSError(error.errno, error.strerror, named), path, "write")


def _is_same(one: Path, other: Path) -> bool:
    """Whether both name one file, by whatever link."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()

"""Base models that a recipe named by a path: what travels is their name and digest, and where each machine has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError
from raytrain.models.base import may_be_hub_id
from raytrain.models.model_files import model_digest
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location, write_atomically

PLACES_VARIABLE = "RAYTRAIN_BASE_MODELS"
"""Folders that hold base models' folders, with colons between."""
_HERE = "./"
_RECIPE_PATHS = ("base_model", "chat_template", "path")


def travelling_reference(reference: str) -> str:
    """`./NAME` in place of a path on this machine, which cannot be taken for a hub id; others as they stand."""
    if "://" in reference and not reference.startswith("file://"):
        return reference
    path = Location.parse(reference).path if "://" in reference else Path(reference).expanduser()
    if path.is_absolute() or path.exists() or not may_be_hub_id(reference):
        return _HERE + path.absolute().name
    return reference


def travelling_record(record: dict[str, Any], reference: str) -> dict[str, Any]:
    """Training's record or a part of a recipe, without paths of this machine; `reference` is the base model's."""
    return {key: _travelling(key, value, reference) for key, value in record.items()}


def _travelling(key: str, value: Any, reference: str) -> Any:
    if isinstance(value, dict):
        return travelling_record(value, reference)
    if isinstance(value, list):
        return [_travelling(key, one, reference) for one in value]
    if not isinstance(value, str) or key not in _RECIPE_PATHS:
        return value
    if value == reference:
        return travelling_reference(value)
    is_place = value.startswith(("/", "~", "file://")) and "\n" not in value
    return _HERE + value.rstrip("/").rpartition("/")[2] if is_place else value


def note_base_place(reference: str, digest: str) -> None:
    """Remember where this machine has a base model that a bundle no longer names by its path."""
    if travelling_reference(reference) == reference:
        return
    note = _note(digest)
    note.parent.mkdir(parents=True, exist_ok=True)
    path = Location.parse(reference).path if "://" in reference else Path(reference).expanduser()
    write_atomically(note, f"{path.absolute()}\n".encode())


def place_of_base(reference: str, digest: str | None) -> str:
    """Where to look for a base model whose digest is known; a reference that is no `./NAME` as it stands.

    The first place with that digest; where none has it, the first with something of that name, for whoever compares
    digests to name both. Raises ConfigError that lists what was tried where there is none.
    """
    if digest is None or not reference.startswith(_HERE) or Path(reference).name in ("", ".."):
        return reference
    tried = list(dict.fromkeys(_candidates(reference, digest)))
    there = [path for path in tried if path.exists()]
    if not there:
        raise ConfigError(
            f"the base model `{Path(reference).name}` is not on this machine",
            why=f"tried {', '.join(map(str, tried))}; it is {digest}",
            fix=f"set {PLACES_VARIABLE} to the folder in which the base model's own folder lies",
        )
    return str(next((path for path in there if path.is_dir() and model_digest(path) == digest), there[0]))


def _candidates(reference: str, digest: str) -> list[Path]:
    name = Path(reference).name
    note = _note(digest)
    noted = [Path(note.read_text(encoding="utf-8").strip())] if note.is_file() else []
    folders = [one for one in os.environ.get(PLACES_VARIABLE, "").split(os.pathsep) if one]
    given = [Path(one).expanduser().absolute() / name for one in folders]
    return [*noted, *given, Path(reference).absolute()]


def _note(digest: str) -> Path:
    return raytrain_home() / "base_models" / digest.replace(":", "-")

"""A PEFT adapter: the very bytes that were trained, but for a path to the base model on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from raytrain.errors import ConfigError
from raytrain.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from raytrain.models.base_places import travelling_reference
from raytrain.release.bundle.formats.format import Format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.subject import Subject


def check(subject: Subject) -> None:
    if not subject.is_adapter:
        raise ConfigError(
            "this model cannot be written as adapter",
            why="all of its weights were trained: there is no adapter",
            fix="use --format merged",
        )


def write(material: Material, folder: Path) -> None:
    shutil.copyfile(material.subject.folder / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_bytes(travelling_config(material.subject))


def travelling_config(subject: Subject) -> bytes:
    """adapter_config.json as a bundle holds it: as it was trained, or with `./NAME` for a path to the base model."""
    trained = (subject.folder / ADAPTER_CONFIG).read_bytes()
    config = json.loads(trained)
    named = config.get("base_model_name_or_path")
    if not named or travelling_reference(named) == named:
        return trained
    return json.dumps({**config, "base_model_name_or_path": travelling_reference(named)}, indent=2).encode()


FORMAT = Format("adapter", check, write)

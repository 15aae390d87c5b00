"""A PEFT adapter: the very bytes that were trained."""

from __future__ import annotations

import shutil
from pathlib import Path

from raytrain.errors import ConfigError
from raytrain.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
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
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        shutil.copyfile(material.subject.folder / name, folder / name)


FORMAT = Format("adapter", check, write)

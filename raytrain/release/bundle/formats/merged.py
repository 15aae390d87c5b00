"""Safetensors that hold base and adapter as one; transformers loads them by itself."""

from __future__ import annotations

from pathlib import Path

from raytrain.models.adapter import save_trained, trained_state
from raytrain.release.bundle.formats.format import Format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.subject import Subject

_FROM_THE_DESCRIPTION = "generation_config.json"


def check(subject: Subject) -> None:
    """Every model that can be trained can have it."""


def write(material: Material, folder: Path) -> None:
    place = folder / _FROM_THE_DESCRIPTION
    settings = place.read_bytes() if place.exists() else None
    save_trained(material.merged, trained_state(material.merged), folder)
    if settings is not None:
        place.write_bytes(settings)


FORMAT = Format("merged", check, write)

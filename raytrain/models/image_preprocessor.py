"""What turns an image into a model's input: its size, and the mean and deviation of its channels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.data.images import Triple, normalisation_of
from raytrain.data.section import ImageSection
from raytrain.errors import ConfigError
from raytrain.models.base import ResolvedModel

_FILE = "preprocessor_config.json"
_SIZE_OF_MOST = 224
_BILINEAR = 2  # Pillow's number


@dataclass(frozen=True)
class ImagePreprocessor:
    """Stands where a text model has its tokenizer; `save_pretrained` writes what transformers' AutoImageProcessor
    reads."""

    size: int
    mean: Triple
    std: Triple

    def save_pretrained(self, folder: Path) -> None:
        settings = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.size, "width": self.size},
            "resample": _BILINEAR,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (Path(folder) / _FILE).write_text(text, encoding="utf-8")


def load_image_preprocessor(resolved: ResolvedModel, section: ImageSection) -> ImagePreprocessor:
    """What `data.images` says, and the model's own files where it leaves something open."""
    folder = Path(resolved.path)
    own = _read_object(folder / _FILE)
    config = _read_object(folder / "config.json") or {}
    size = section.size or config.get("image_size") or _SIZE_OF_MOST
    if not isinstance(size, int):
        raise ConfigError(
            f"`{resolved.reference}` does not take square images",
            why=f"its config.json states image_size {size}",
            fix="set data.images.size",
        )
    mean, std = normalisation_of(section, own)
    return ImagePreprocessor(size, mean, std)


def _read_object(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} cannot be read", why=str(error), fix="take another copy of the model"
        ) from error
    return found if isinstance(found, dict) else None

"""Images: files to pixels, pixels to what a model takes. Pillow and numpy alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raytrain.data.section import ImageSection

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

Triple = tuple[float, float, float]

NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    # Mean and standard deviation of red, green and blue over the training images of each set, in [0, 1].
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def image_bytes(value: Any, folder: Path | None) -> bytes:
    """The file that a row's `image` means: bytes, a path (relative ones start at `folder`), or the `datasets` package's
    mapping of both.

    Raises ValueError that says what is wrong.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        content = value
    elif isinstance(value, str) and folder is not None:
        try:
            content = (folder / value).read_bytes()
        except (OSError, ValueError) as error:
            raise ValueError(f"`{value[:200]}` cannot be read in {folder}: {error}") from error
    elif isinstance(value, str):
        raise ValueError(
            "it is a path, and paths need `layout: image_classification`, so that the files count as input"
        )
    else:
        raise ValueError(f"it is a {type(value).__name__}, neither a path nor bytes")
    _opened(content)
    return content


def _opened(content: bytes) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it is no image that Pillow reads: {str(error)[:200]}") from error
    return image


def decode_image(content: bytes, size: int) -> NDArray[np.uint8]:
    """RGB pixels of shape (size, size, 3), resized bilinearly without keeping the proportions, as ViT's own
    preprocessing does."""
    from PIL import Image

    image = _opened(content).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)


def normalisation_of(section: ImageSection, preprocessor: Mapping[str, Any] | None) -> tuple[Triple, Triple]:
    """Mean and standard deviation of the three channels, for pixels in [0, 1]; `preprocessor` is the model's own
    preprocessor_config.json, where it has one."""
    if section.normalisation == "custom":
        assert section.mean is not None and section.std is not None, "the section has checked it"
        return section.mean, section.std
    if section.normalisation == "model":
        own = preprocessor or {}
        if own.get("image_mean") and own.get("image_std"):
            return _triple(own["image_mean"]), _triple(own["image_std"])
        return NORMALISATIONS["imagenet"]
    return NORMALISATIONS[section.normalisation]


def _triple(values: Any) -> Triple:
    red, green, blue = (float(one) for one in values)
    return red, green, blue


def normalised(pixels: NDArray[np.uint8], mean: Triple, std: Triple) -> NDArray[np.float32]:
    """(rows, height, width, 3) bytes to (rows, 3, height, width) numbers, as a model takes them."""
    scaled = pixels.astype(np.float32)
    scaled /= 255
    scaled -= np.asarray(mean, np.float32)
    scaled /= np.asarray(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

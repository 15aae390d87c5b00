"""Rows with images to the arrays of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrain.data.collators import IGNORED_LABEL, Collator, MicroBatch
from raytrain.data.draws import uniform
from raytrain.data.image_examples import ImageTable, JointTable
from raytrain.data.images import Triple, normalised


@dataclass(frozen=True)
class ImageCollator:
    """`pixel_values` of shape (rows, 3, size, size), normalised; labels: (rows,), the number of each image's class.

    `random_flip` and `random_crop` (pixels) vary the images; what is drawn depends on seed, epoch and row alone.
    """

    mean: Triple
    std: Triple
    seed: int = 0
    random_flip: bool = False
    random_crop: int = 0

    def __call__(self, table: ImageTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:
        shown = [int(row) for row in rows] or [0]
        pixels = np.stack([self.varied(table.pixels[row], row, epoch) for row in shown])
        labels = table.class_ids[shown].astype(np.int64)
        if len(rows) == 0:
            labels = np.full_like(labels, IGNORED_LABEL)
        return MicroBatch({"pixel_values": normalised(pixels, self.mean, self.std)}, labels, len(rows))

    def varied(self, pixels: NDArray[np.uint8], row: int, epoch: int) -> NDArray[np.uint8]:
        """One image as it is seen in one epoch."""
        place = {"seed": self.seed, "epoch": epoch, "row": row}
        if self.random_flip and uniform("flip", count=1, **place)[0] < 0.5:
            pixels = pixels[:, ::-1]
        if self.random_crop > 0:
            reach = self.random_crop
            down, right = (uniform("crop", count=2, **place) * (2 * reach + 1)).astype(int)
            height, width = pixels.shape[:2]
            pixels = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
            pixels = pixels[down : down + height, right : right + width]
        return pixels


@dataclass(frozen=True)
class MultimodalCollator:
    """A text collator and an image collator side by side: the inputs of both, the labels of the text."""

    text: Collator
    image: Collator

    def __call__(self, table: JointTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:
        said = self.text(table.texts, rows, epoch)
        seen = self.image(table.images, rows, epoch)
        both = sorted(said.inputs.keys() & seen.inputs.keys())
        if both:
            raise ValueError(f"text and image collator both make `{both[0]}`; a model takes each input once")
        return MicroBatch({**said.inputs, **seen.inputs}, said.labels, said.num_tokens + seen.num_tokens)

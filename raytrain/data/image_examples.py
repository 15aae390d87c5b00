"""Images as one array of pixels, each with the number of its class; and texts and images as one table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.data.batches import Examples
from raytrain.data.examples import Reject
from raytrain.data.images import decode_image

_FORMAT = 1


@dataclass(frozen=True)
class ImageTable:
    """`pixels` has the shape (rows, size, size, 3) and holds bytes of red, green and blue."""

    pixels: NDArray[np.uint8]
    class_ids: NDArray[np.int32]
    row_ids: list[str]

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """All images cost the same; each counts as one."""
        return np.ones(len(self), np.int64)

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        """One target a row."""
        return np.ones(len(self), np.int64)


@dataclass(frozen=True)
class JointTable:
    """Row i is row i of the texts together with row i of the images."""

    texts: Any
    images: ImageTable

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.images):
            raise ValueError(f"{len(self.texts)} texts cannot be joined with {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def lengths(self) -> NDArray[np.int64]:
        texts: Examples = self.texts
        return texts.lengths + self.images.lengths

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        """The text is what is learnt; the image is what it speaks of."""
        texts: Examples = self.texts
        return texts.num_loss_tokens


class ImageEncoder:
    """Image files to pixels of one size. Normalising is left to the collator: bytes take a quarter of the room."""

    def __init__(self, labels: list[str], size: int) -> None:
        self.settings: dict[str, Any] = {
            "format": _FORMAT,
            "task": "image_classification",
            "labels": labels,
            "size": size,
        }
        self.labels: list[str] | None = labels
        self._size = size
        self._number = {name: number for number, name in enumerate(labels)}

    def encode(self, rows: Iterator[dict[str, Any]], reject: Reject) -> ImageTable:
        classes: list[int] = []
        kept: list[str] = []
        # Pixels go to a file as they are decoded: those of a large set do not fit into memory.
        with tempfile.TemporaryFile() as file:
            for row in rows:
                reason = self._fault(row)
                if reason is not None:
                    reject(row["row_id"], reason)
                    continue
                file.write(decode_image(row["image"], self._size).tobytes())
                classes.append(self._number[row["label"]])
                kept.append(row["row_id"])
            file.flush()
            shape = (len(kept), self._size, self._size, 3)
            pixels = np.memmap(file, np.uint8, "r", shape=shape) if kept else np.zeros(shape, np.uint8)
        return ImageTable(pixels, np.asarray(classes, np.int32), kept)

    def _fault(self, row: dict[str, Any]) -> str | None:
        if row["image"] is None:
            return "no_image"
        if row["label"] is None:
            return "no_label"
        return None if row["label"] in self._number else "unknown_label"

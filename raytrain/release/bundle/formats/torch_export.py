"""A .pt2 file of torch.export, which torch.export.load reads without the model's code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from raytrain.errors import IntegrityError
from raytrain.release.bundle.formats.format import Format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.subject import Subject

GRAPH_FILE = "model.pt2"
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_FIRST_BYTES = 4


def check(subject: Subject) -> None:
    """Whether a model can be traced shows when it is."""


def write(material: Material, folder: Path) -> None:
    import torch

    from raytrain.release.bundle.formats.traced import trace

    program: Any = trace(material.merged)
    # PyTorch pickles the inputs that it traced with; without them the file holds no pickle, and loads as well.
    program._example_inputs = None
    with (folder / GRAPH_FILE).open("wb") as stream:
        sink = _Sink(stream)
        torch.export.save(program, cast(IO[bytes], sink))
        sink.raise_if_failed()
    pickled = pickled_parts(folder / GRAPH_FILE)
    if pickled:
        raise IntegrityError(
            "torch_export would hold a pickle",
            why=f"{pickled[0]} in {GRAPH_FILE}",
            fix="leave torch_export out; use --format merged",
        )


class _Sink(io.RawIOBase):
    """Takes everything, and keeps the first fault for later: PyTorch's writer ends the whole process on a full disk."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._fault: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, *_place: int) -> int:
        """PyTorch goes back to the start when all is written."""
        return 0

    def write(self, content: Any) -> int:
        if self._fault is None:
            try:
                self._stream.write(content)
            except OSError as error:
                self._fault = error
        return len(content)

    def raise_if_failed(self) -> None:
        if self._fault is not None:
            raise self._fault
        self._stream.flush()


def pickled_parts(file: Path) -> list[str]:
    """Members of the archive that are pickles: outside of the raw weights, or weights that say so."""
    found = []
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith("_config.json") and b'"use_pickle": true' in archive.read(name):
                found.append(name)
            with archive.open(name) as stream:
                start = stream.read(_FIRST_BYTES)
            raw = "/data/weights/weight_" in name or "/data/constants/tensor_" in name
            if not raw and start.startswith(_PICKLE_STARTS):
                found.append(name)
    return found


FORMAT = Format("torch_export", check, write)

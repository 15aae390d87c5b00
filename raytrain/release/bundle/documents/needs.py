"""What a bundle needs to be served: memory, a GPU or none, packages in the versions that it was checked with."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.inference import FORMATS as SERVED_FIRST

_WEIGHTS = ("*.safetensors", "*.pt2", "*.onnx", "*.onnx.data")
_GPU_FROM_BYTES = 4 << 30
"""Weights from this size on are served by a GPU: a CPU reads all of them for each token."""
PACKAGES = {
    "adapter": ("torch", "transformers", "peft", "safetensors", "tokenizers", "jinja2", "numpy"),
    "merged": ("torch", "transformers", "safetensors", "tokenizers", "jinja2", "numpy"),
    "onnx": ("onnxruntime", "transformers", "tokenizers", "jinja2", "numpy"),
    "torch_export": ("torch", "transformers", "tokenizers", "jinja2", "numpy"),
    "torchserve": ("torch", "transformers", "safetensors", "tokenizers", "jinja2", "numpy"),
}


@dataclass(frozen=True)
class Needs:
    """Of the format that inference.py serves when it is not told which."""

    form: str
    weight_bytes: int
    """In memory, the base model's among them."""
    python: str
    packages: dict[str, str]

    @property
    def gpu(self) -> bool:
        return self.weight_bytes >= _GPU_FROM_BYTES

    @property
    def memory_bytes(self) -> int:
        """Weights twice over while they are read, and what Python and PyTorch take by themselves."""
        return 2 * self.weight_bytes + (1 << 30)

    def requirements(self) -> str:
        lines = ["# What this bundle was checked with before it was written."]
        lines += [f"{name}=={version.partition('+')[0]}" for name, version in sorted(self.packages.items())]
        return "\n".join(lines) + "\n"


def needs_of(bundle: Path, description: BundleDescription, base_folder: Path) -> Needs:
    """Read off the files that lie there, and off the packages of this process, with which they were checked."""
    form = next(one for one in SERVED_FIRST if one in description.formats)
    size = _size_of(bundle / form)
    if form == "adapter":
        size += _size_of(base_folder)
    names = sorted({name for one in description.formats for name in PACKAGES[one]})
    packages = {name: importlib.metadata.version(name) for name in names}
    return Needs(form, size, platform.python_version(), packages)


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern))

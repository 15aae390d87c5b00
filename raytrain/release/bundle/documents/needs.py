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


TRAINED_IN = {"qlora": "NF4, 4 bits, by bitsandbytes"}
"""How a method of training held the base model's weights, where that is not how they are served."""


@dataclass(frozen=True)
class Needs:
    """Of the format that inference.py serves when it is not told which."""

    form: str
    weight_bytes: int
    """In memory, the base model's among them."""
    python: str
    packages: dict[str, str]
    ray: str
    """Version of Ray, for who serves it by serve.yaml."""
    dtype: str
    """In which it is served: never quantized."""
    trained_in: str | None
    """How the base model was quantized while it was trained; None = not at all."""

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

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

    def serve_requirements(self) -> str:
        """On top of these, for serve.yaml."""
        return f"# For serve.yaml, beside requirements.txt.\nray[serve]=={self.ray.partition('+')[0]}\n"

    @property
    def quantization(self) -> str:
        """A sentence for who serves it."""
        if self.trained_in is None:
            return f"It was trained and is served in {self.dtype}, without quantization."
        return (
            f"The base model was quantized while it was trained ({self.trained_in}), and is served as it is, in "
            f"{self.dtype}: so it was checked and evaluated. This server quantizes nothing."
        )


def needs_of(bundle: Path, description: BundleDescription, base_folder: Path) -> Needs:
    """Read off the files that lie there, and off the packages of this process, with which they were checked."""
    form = next(one for one in SERVED_FIRST if one in description.formats)
    size = _size_of(bundle / form)
    if form == "adapter":
        size += _size_of(base_folder)
    names = sorted({name for one in description.formats for name in PACKAGES[one]})
    packages = {name: importlib.metadata.version(name) for name in names}
    method = description.adapter.method if description.adapter else ""
    return Needs(
        form,
        size,
        platform.python_version(),
        packages,
        ray=importlib.metadata.version("ray"),
        dtype=description.dtype,
        trained_in=TRAINED_IN.get(method),
    )


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern))

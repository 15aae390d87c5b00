"""A Dockerfile for inference.py: versions pinned, no root, no secret, a health check."""

from __future__ import annotations

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.documents.needs import Needs
from raytrain.release.bundle.parity.fresh import LOADER

_USER = 10001
_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def render_dockerfile(description: BundleDescription, needs: Needs) -> str:
    """For a GPU, PyTorch's usual wheels, which bring CUDA with them; for a CPU, those without."""
    minor = ".".join(needs.python.split(".")[:2])
    torch = needs.packages.get("torch", "").partition("+")[0]
    install = ["RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt"]
    if torch and not needs.gpu:
        # An argument, as a closed network has an index of its own.
        install = [
            f"ARG TORCH_INDEX={_CPU_WHEELS}",
            f'RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch=={torch}',
            *install,
        ]
    command = ["python", LOADER.name, "--host", "0.0.0.0", "--port", "8000"]
    command += ["--format", needs.form]
    if needs.form == "adapter":
        command += ["--base", "/base"]
    lines = [
        *_how_to_run(description, needs),
        f"FROM python:{minor}-slim",
        f"# {needs.quantization}",
        f'LABEL raytrain.device="{needs.device}" raytrain.dtype="{needs.dtype}" raytrain.quantization="none"',
        "WORKDIR /bundle",
        "COPY requirements.txt constraints.txt ./",
        *install,
        # Files that only their owner may read would be out of the server's reach.
        f"COPY --chown={_USER} manifest.json bundle.json {LOADER.name} ./",
        f"COPY --chown={_USER} {needs.form} {needs.form}",
        f"RUN useradd --system --no-create-home --uid {_USER} served",
        f"USER {_USER}",
        "ENV HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface PYTHONUNBUFFERED=1",
        "EXPOSE 8000",
        "HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD "
        + _as_json(
            "python",
            "-c",
            "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)",
        ),
        f"CMD {_as_json(*command)}",
    ]
    return "\n".join(lines) + "\n"


def _how_to_run(description: BundleDescription, needs: Needs) -> list[str]:
    options = ["--publish 8000:8000"]
    if needs.gpu:
        options.append("--gpus 1")
    if needs.form == "adapter":
        options.append("--volume FOLDER:/base:ro")
    lines = ["# docker build --tag model . && docker run " + " ".join(options) + " model"]
    if needs.form == "adapter":
        lines.append(f"# FOLDER holds the base model {description.base_model.reference}; it is verified.")
        lines.append(f"# User {_USER} must be able to read its files.")
    return lines


def _as_json(*words: str) -> str:
    return "[" + ", ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words) + "]"

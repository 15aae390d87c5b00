"""The base model of a replica, and whether it writes."""

from __future__ import annotations

from pathlib import Path

from raytrain.models.inference import LoadedModel, find_for_inference
from raytrain.serving.section import ServingSection


def load_served(section: ServingSection) -> tuple[LoadedModel, bool]:
    """False where it can only classify. Raises as `InferenceModel.load`."""
    import torch

    from raytrain.models.classifier import load_body, writes_text

    torch.set_num_threads(section.num_threads)
    device = section.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = find_for_inference(section.base_model, cache=section.storage.location, dtype=section.dtype)
    if writes_text(Path(found.base.path)):
        return found.load(device), True
    return load_body(found, device), False

"""Tiny trained models as artifacts, as training writes them: what bundles are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from raytrain.models.adapter import attach_adapter, save_trained, trained_state
from raytrain.models.base import load_base_model, load_tokenizer, resolve_base_model
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

DATASET = "sha256:" + "d" * 64


def train_tiny(base_folder: Path, folder: Path, **adapter: Any) -> Path:
    """A trained artifact over the base; its changes are drawn at random. method="full" for a whole model; `dtype` is
    the base's."""
    dtype = adapter.pop("dtype", "float32")
    section = ModelSection(base_model=str(base_folder), dtype=dtype)
    settings = AdapterSection(**{"lora_rank": 2, "lora_alpha": 4, **adapter})
    base = resolve_base_model(section, Location(str(folder.parent)))
    model = attach_adapter(load_base_model(base, section, adapter=settings), settings, base=base, seed=0)
    torch.manual_seed(5)
    with torch.no_grad():
        for tensor in trained_state(model).values():
            tensor.add_(torch.randn_like(tensor), alpha=0.05)
    kind = "model" if settings.method == "full" else "adapter"
    parents = {"base_model": base.digest, "dataset": DATASET, "tokens": "sha256:t"}
    with ArtifactWriter(Location(str(folder)), kind=kind, parents=parents) as writer:
        save_trained(model, trained_state(model), writer.path)
        load_tokenizer(base, section).save_pretrained(writer.path)
        record = {
            "base_model": base.reference,
            "base_digest": base.digest,
            "revision": None,
            "recipe": "sha256:recipe",
            "global_step": 12,
            "eval": {"eval/loss": 1.25},
            "adapter": settings.model_dump(),
            "model": section.model_dump(),
        }
        (writer.path / "training.json").write_text(json.dumps(record))
        config = {"name": "tiny", "train": {"learning_rate": 0.01, "seed": 3}, "data": {"max_seq_len": 64}}
        writer.commit({"config": config, "seed": 3, "run_id": "tiny-1", "packages": {"torch": "2.13.0"}})
    return folder

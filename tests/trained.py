"""Tiny trained models as artifacts, as training writes them: what bundles are made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from raytrain.data.tasks import TaskName
from raytrain.models.adapter import attach_adapter, save_trained, trained_state
from raytrain.models.base import load_base_model, load_tokenizer, resolve_base_model
from raytrain.models.heads import ClassHead
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

DATASET = "sha256:" + "d" * 64


def train_tiny(
    base_folder: Path, folder: Path, *, labels: Sequence[str] = (), seed: int = 5, **adapter: Any
) -> Path:
    """A trained artifact over the base; its changes are drawn at random. method="full" for a whole model; `dtype` is
    the base's; with `labels` it is a classifier."""
    dtype = adapter.pop("dtype", "float32")
    task: TaskName = "sequence_classification" if labels else "causal_lm"
    section = ModelSection(base_model=str(base_folder), dtype=dtype, task=task)
    settings = AdapterSection(**{"lora_rank": 2, "lora_alpha": 4, **adapter})
    base = resolve_base_model(section, Location(str(folder.parent)))
    head = ClassHead(tuple(labels)) if labels else None
    model: Any = load_base_model(base, section, adapter=settings, head=head)
    if labels:
        model.config.pad_token_id = load_tokenizer(base, section).pad_token_id
    model = attach_adapter(model, settings, base=base, seed=0, task=task)
    torch.manual_seed(seed)
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
            "labels": list(labels) or None,
        }
        (writer.path / "training.json").write_text(json.dumps(record))
        config = {"name": "tiny", "train": {"learning_rate": 0.01, "seed": 3}, "data": {"max_seq_len": 64}}
        writer.commit({"config": config, "seed": 3, "run_id": "tiny-1", "packages": {"torch": "2.13.0"}})
    return folder

"""Classifiers over a tiny base model, made as training makes them, and what each finds by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def save_classifier(
    base: Path, folder: Path, labels: Sequence[str], *, seed: int, rank: int = 4, **settings: Any
) -> Path:
    """LoRA and a head in the layout of a trained artifact, all random: it is no other classifier."""
    import torch

    from raytrain.models.adapter import attach_adapter, save_trained, trained_state
    from raytrain.models.base import load_base_model, load_tokenizer, resolve_base_model
    from raytrain.models.heads import ClassHead
    from raytrain.models.section import AdapterSection, ModelSection
    from raytrain.storage.location import Location

    section = ModelSection.model_validate({"base_model": str(base), "task": "sequence_classification"})
    adapter = AdapterSection.model_validate({"lora_rank": rank, "lora_alpha": 2 * rank, **settings})
    resolved = resolve_base_model(section, Location(str(folder.parent / "cache")))
    model: Any = load_base_model(resolved, section, adapter=adapter, head=ClassHead(tuple(labels), seed))
    model.config.pad_token_id = load_tokenizer(resolved).pad_token_id
    model = attach_adapter(model, adapter, base=resolved, seed=seed, task="sequence_classification")
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ("lora_B" in name or "modules_to_save" in name):
            torch.nn.init.normal_(parameter, std=0.3)
    save_trained(model, trained_state(model), folder)
    record = {"base_model": str(base), "model": {"task": "sequence_classification"}, "labels": list(labels)}
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def peft_probabilities(base: Path, adapter: Path, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Of each text by itself, by transformers and PEFT."""
    import torch

    model = _peft_model(base, adapter)
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([list(ids)])).logits[0] for ids in texts]
    return [row.double().softmax(0).tolist() for row in rows]


_models: dict[Path, Any] = {}


def _peft_model(base: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if adapter not in _models:
        labels = json.loads((adapter / "training.json").read_text())["labels"]
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels))
        model.config.pad_token_id = AutoTokenizer.from_pretrained(base).pad_token_id
        _models[adapter] = PeftModel.from_pretrained(model, str(adapter)).eval()
    return _models[adapter]

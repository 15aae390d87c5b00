"""A recipe of the tiny Llama, small enough for a check inside a unit test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raytrain.config.document import Document
from raytrain.training.spec import RunSpec, spec_from_document


def tiny_spec(base: Path, rows: list[dict[str, Any]], folder: Path, /, **sections: dict[str, Any]) -> RunSpec:
    """Sixty question and answer rows; `sections` are put over it."""
    place = folder / "rows.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, dict[str, Any]] = {
        "model": {"base_model": str(base)},
        "adapter": {"lora_rank": 4, "lora_dropout": 0.1},
        "data": {"sources": [str(place)], "val_fraction": 0.1, "near_duplicate_threshold": None},
        "train": {"global_batch_size": 6, "micro_batch_size": 2, "learning_rate": 1e-2, "max_steps": 6},
    }
    for section, given in sections.items():
        values[section] = {**values.get(section, {}), **given}
    return spec_from_document(Document(dict(values), {}), default_name="tiny")

"""The trained artifact that a release is about, and the base model under it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError, IntegrityError
from raytrain.models.base_places import note_base_place
from raytrain.models.inference import RELEASED, TRAINING_RECORD, InferenceModel, find_for_inference
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location

TRAINED_KINDS = ("adapter", "model")


@dataclass(frozen=True)
class Subject:
    """A trained adapter or model, whole, with its base model on this machine."""

    artifact: Artifact
    model: InferenceModel
    record: dict[str, Any]
    """training.json: base_model, base_digest, recipe, global_step, eval, model, adapter."""

    @property
    def digest(self) -> str:
        """What every piece of evidence about it names."""
        return self.artifact.digest

    @property
    def writes(self) -> bool:
        """Whether it goes on writing; a classifier does not."""
        return self.model.section.task == "causal_lm"

    @property
    def is_adapter(self) -> bool:
        return self.artifact.kind == "adapter"

    @property
    def folder(self) -> Path:
        return self.artifact.path

    @property
    def base_folder(self) -> Path:
        """The base model's files; a whole model's own folder."""
        return Path(self.model.base.path)


def find_subject(reference: str, cache: Location, *, dtype: str | None = None) -> Subject:
    """Open a trained artifact, all of whose files are verified, and find its base model.

    dtype: in what its weights are held; None = as they were trained. Raises ConfigError where it is no trained
    artifact or its base model is a quantized one, IntegrityError where a file is damaged or the base model is another
    one than it was trained over.
    """
    artifact = open_artifact(Location.parse(reference))
    if artifact.kind not in TRAINED_KINDS:
        raise ConfigError(
            f"{reference} cannot be released",
            why=f"it is a {artifact.kind}",
            fix="give an adapter or a model that `raytrain train` has made, or the id of its run",
        )
    record = _training_record(artifact)
    held = dtype or record["model"]["dtype"]
    model = find_for_inference(str(artifact.path), cache=cache, dtype=held, tasks=RELEASED)
    _refuse_quantized(reference, Path(model.base.path))
    note_base_place(str(record["base_model"]), model.base.digest)
    return Subject(artifact, model, record)


def _refuse_quantized(reference: str, folder: Path) -> None:
    """Formats are written in the dtype that they are checked in, and no server here reads other weights."""
    place = folder / "config.json"
    told = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    quantization = told.get("quantization_config")
    if quantization:
        how = quantization.get("quant_method") or "unknown" if isinstance(quantization, dict) else "unknown"
        raise ConfigError(
            f"{reference} cannot be released",
            why=f"its base model {folder.name} is quantized ({how}), and nothing here checks or serves such weights",
            fix="train over the model that it was made from; adapter.method: qlora quantizes that while it trains",
        )


def _training_record(artifact: Artifact) -> dict[str, Any]:
    place = artifact.path / TRAINING_RECORD
    try:
        record: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        needed = (record["base_model"], record["model"]["dtype"], record["adapter"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{place} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="take another copy of the artifact, or train it again",
        ) from error
    assert needed[0], "training names its base model"
    return record

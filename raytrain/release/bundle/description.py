"""`bundle.json`: what a bundle is of, what it needs, and which formats it holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.models.adapter import ADAPTER_CONFIG
from raytrain.models.base_places import travelling_reference
from raytrain.models.inference import tokenizer_digest
from raytrain.models.model_files import MODEL_FILE_PATTERNS
from raytrain.release.bundle.ingredients import trained_ingredients
from raytrain.release.bundle.subject import Subject
from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import MANIFEST_NAME, digest_of, file_sha256

BUNDLE_KIND = "bundle"
DESCRIPTION_FILE = "bundle.json"

FORMAT_FOLDERS = {one: one for one in ("adapter", "merged", "onnx", "torch_export", "torchserve")}
"""Where in a bundle each format lies; there are no others."""
LOADABLE = ("adapter", "merged")
"""Those that raytrain itself loads, and evaluates: safetensors; the smallest first."""


@dataclass(frozen=True)
class BaseModel:
    """What a bundle's adapter stands on."""

    reference: str
    """As the recipe named it; of a path only the last name, as `./NAME`: `digest` says which model it is."""
    revision: str | None
    digest: str
    licence: str | None
    files: dict[str, str]
    """SHA-256 by name, of what must lie in its folder: for who runs the adapter without raytrain. Empty where the
    bundle's own weights need no other model."""


@dataclass(frozen=True)
class Adapter:
    """Facts that an exported adapter must agree with."""

    method: str
    rank: int
    alpha: float
    target_modules: list[str]


@dataclass(frozen=True)
class BundleDescription:
    """The same subject and formats give the same description."""

    subject: str
    """Digest of the trained artifact."""
    kind: str
    """adapter or model."""
    task: str
    dtype: str
    base_model: BaseModel
    adapter: Adapter | None
    tokenizer: str
    """Digest of what turns text into tokens."""
    chat_template: str | None
    """Digest of the template; None where the tokenizer has none."""
    formats: tuple[str, ...]
    made_from: dict[str, str] = field(default_factory=dict)
    """Digests by role, as in `trained_ingredients`: by what changed in them the next version is numbered."""

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False)
        (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")


def describe(subject: Subject, formats: tuple[str, ...]) -> BundleDescription:
    """Reads the tokenizer and the base model's files, no weights into memory."""
    tokenizer = subject.model.load_tokenizer()
    base = subject.model.base
    template = tokenizer.chat_template
    return BundleDescription(
        subject=subject.digest,
        kind=subject.artifact.kind,
        task=subject.record["model"].get("task", "causal_lm"),
        dtype=subject.model.section.dtype,
        base_model=BaseModel(
            reference=travelling_reference(str(subject.record["base_model"])),
            revision=subject.record.get("revision"),
            digest=str(subject.record.get("base_digest") or base.digest),
            licence=base.licence,
            files=_base_files(subject) if subject.is_adapter else {},
        ),
        adapter=_adapter_facts(subject) if subject.is_adapter else None,
        tokenizer=tokenizer_digest(tokenizer),
        chat_template=digest_of(template) if template else None,
        formats=formats,
        made_from=trained_ingredients(subject.artifact),
    )


def _base_files(subject: Subject) -> dict[str, str]:
    # A manifest tells host and time, and is not read by whoever loads the model.
    found = {file.name: file for pattern in MODEL_FILE_PATTERNS for file in subject.base_folder.glob(pattern)}
    return {name: file_sha256(file) for name, file in sorted(found.items()) if name != MANIFEST_NAME}


def _adapter_facts(subject: Subject) -> Adapter:
    config = json.loads((subject.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    targets = config["target_modules"]
    return Adapter(
        method=str(subject.record["adapter"].get("method", "lora")),
        rank=int(config["r"]),
        alpha=float(config["lora_alpha"]),
        target_modules=[targets] if isinstance(targets, str) else sorted(targets),
    )


def ingredients_of(artifact: Artifact) -> dict[str, str]:
    """What a bundle was made from, as it says itself; what any other artifact was made from."""
    if artifact.kind == BUNDLE_KIND:
        return read_description(artifact.path).made_from
    return trained_ingredients(artifact)


def read_description(folder: Path) -> BundleDescription:
    """Raises IntegrityError where the folder holds no bundle, or one whose description cannot be read."""
    place = folder / DESCRIPTION_FILE
    try:
        content: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        adapter = content["adapter"]
        return BundleDescription(
            **{
                **content,
                "base_model": BaseModel(**content["base_model"]),
                "adapter": None if adapter is None else Adapter(**adapter),
                "formats": tuple(content["formats"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(
            f"{place} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="take another copy of the bundle, or export it again",
        ) from error

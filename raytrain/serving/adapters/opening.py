"""A released version, verified and read."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.bundle.description import FORMAT_FOLDERS, read_description
from raytrain.release.gate.enforce import require_released
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.serving.adapters.weights import (
    AdapterWeights,
    ClassifierWeights,
    read_adapter,
    read_classifier,
    read_labels,
)
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location

ADAPTER = "adapter"
WRITES, CLASSIFIES = "causal_lm", "sequence_classification"
"""Tasks that are served."""


@dataclass(frozen=True)
class Servable:
    """A version that was let in, and fits the base model. Its weights are not read yet."""

    name: str
    version: str
    digest: str
    """Of its bundle: what caches and routes are keyed by."""
    bundle: Path
    chat_template: str | None
    """Its own."""
    created: int
    """Seconds since 1970, when it was registered."""
    task: str = WRITES
    labels: tuple[str, ...] = ()
    """A classifier's classes, in the order of their numbers."""

    def read(self) -> AdapterWeights | ClassifierWeights:
        """Its files may have lain there for long since they were verified, and are verified again.

        Raises RefusedError or IntegrityError.
        """
        found = open_artifact(Location(str(self.bundle))).digest
        if found != self.digest:
            raise IntegrityError(
                f"{self.name}@{self.version} is not what was let in",
                why=f"its bundle was {self.digest}, and is {found}",
                fix="restore it: `raytrain registry verify` names what differs",
            )
        folder = self.bundle / FORMAT_FOLDERS[ADAPTER]
        return read_classifier(folder) if self.task == CLASSIFIES else read_adapter(folder)


@dataclass(frozen=True)
class Door:
    """Whom this base model takes."""

    registry: Registry
    ring: KeyRing
    base_digest: str
    tokenizer: str
    """Digest of what turns text into tokens."""
    policies: Collection[str] | None = None

    def admit(self, reference: str) -> Servable:
        """NAME@ALIAS or NAME@VERSION, signed, let in by the gate, and of this base model and tokenizer.

        Raises NotRegisteredError where there is no such version, RefusedError or IntegrityError where it may not be
        served, StorageError where the registry cannot be read.
        """
        admitted = require_released(self.registry, reference, self.ring, policies=self.policies)
        artifact = admitted.signed.artifact
        description = read_description(artifact.path)
        if ADAPTER not in description.formats:
            raise _refused(
                reference, f"its bundle holds {', '.join(description.formats)}", "export the adapter as well"
            )
        if description.task not in (WRITES, CLASSIFIES):
            why = f"it was trained for {description.task}"
            raise _refused(reference, why, f"serve what was trained for {WRITES} or {CLASSIFIES}")
        for thing, theirs, ours in (
            ("base model", description.base_model.digest, self.base_digest),
            ("tokenizer", description.tokenizer, self.tokenizer),
        ):
            if theirs != ours:
                raise OtherBaseError(
                    f"{reference} may not be served here",
                    why=f"it was trained with the {thing} {theirs}, served is {ours}",
                    fix="serve it over its own base model",
                )
        released = self.registry.find(reference)
        folder = artifact.path / FORMAT_FOLDERS[ADAPTER]
        return Servable(
            name=reference.partition("@")[0],
            version=str(released.version),
            digest=artifact.digest,
            bundle=artifact.path,
            chat_template=_template_of(folder),
            created=int(released.entry.written_at),
            task=description.task,
            labels=read_labels(folder) if description.task == CLASSIFIES else (),
        )


class OtherBaseError(RefusedError):
    """The version is of another base model."""


def _template_of(folder: Path) -> str | None:
    """As transformers saves it: in a file of its own, or in the tokenizer's settings."""
    own, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    if not settings.is_file():
        return None
    template = json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
    return template if isinstance(template, str) else None


def _refused(reference: str, why: str, fix: str) -> RefusedError:
    return RefusedError(f"{reference} may not be served here", why=why, fix=fix)

"""Adapters over a tiny base model, released and promoted as a team would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from served_classifiers import save_classifier
from served_models import save_adapter
from transformers import AutoTokenizer

from raytrain.evaluation.decision.contract import default_contract
from raytrain.models.base import resolve_base_model
from raytrain.models.inference import tokenizer_digest
from raytrain.models.section import ModelSection
from raytrain.release.bundle.description import Adapter, BaseModel, BundleDescription
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.policy import Policy, PolicySection
from raytrain.release.gate.promote import Desk, Wanted, promote
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version
from raytrain.release.rollback import Hangar, RollbackOptions, roll_back
from raytrain.release.signing import sign
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of, read_manifest

OPEN_POLICY = Policy(
    PolicySection.model_validate(
        {
            "policy": "open",
            "targets": [
                {"to": one, "reports": [], "documents": [], "max_age_days": None}
                for one in ("dev", "staging", "production")
            ],
        }
    ),
    default_contract(),
)
"""A signature is all that it asks."""


@dataclass
class Releases:
    """A registry with a key that signs, and the base model that its versions are over."""

    folder: Path
    base: Path

    def __post_init__(self) -> None:
        self.ring = KeyRing(self.folder / "keys")
        self.ring.generate("release")
        self.registry = Registry(self.folder / "registry")
        self.adapters: dict[str, Path] = {}
        """By the digest of the bundle, where each adapter lies for PEFT."""

    def release(
        self,
        name: str,
        version: str,
        *,
        seed: int,
        base: Path | None = None,
        change: Callable[[Path], None] | None = None,
        **settings: Any,
    ) -> str:
        """A random adapter's digest; with `labels` it is a classifier. change: what is done to its folder before it is
        signed."""
        base = base or self.base
        place = self.folder / f"{name}-{version}"
        save, task = (
            (save_classifier, "sequence_classification")
            if "labels" in settings
            else (save_adapter, "causal_lm")
        )
        adapter = save(base, self.folder / f"{name}-{version}-adapter", seed=seed, **settings)
        resolved = resolve_base_model(
            ModelSection.model_validate({"base_model": str(base)}), Location(str(self.folder / "cache"))
        )
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.save_pretrained(adapter)
        if change is not None:
            change(adapter)
        base_model = BaseModel(str(base), None, resolved.digest, None, {})
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        description = BundleDescription(
            subject=digest_of([name, version]),
            kind="adapter",
            task=task,
            dtype="float32",
            base_model=base_model,
            adapter=Adapter("lora", config["r"], config["lora_alpha"], sorted(config["target_modules"])),
            tokenizer=tokenizer_digest(tokenizer),
            chat_template=None,
            formats=("adapter",),
        )
        parents = {"subject": description.subject, "base_model": resolved.digest}
        with ArtifactWriter(Location(str(place)), kind="bundle", parents=parents) as writer:
            description.write(writer.path)
            shutil.copytree(adapter, writer.path / "adapter")
            writer.commit({})
        return self.enter(name, version, place, adapter)

    def enter(self, name: str, version: str, place: Path, adapter: Path) -> str:
        """A bundle's digest, signed and in the registry."""
        manifest = read_manifest(Location(str(place)))
        sign(place, self.ring.signing_key("release"))
        parsed = Version.parse(version)
        self.registry.register(name, parsed, place, self.ring, made_from=dict(manifest.parents), why="a test")
        self.adapters[manifest.digest] = adapter
        return manifest.digest

    def promote(self, reference: str, to: str = "production", policy: Policy = OPEN_POLICY) -> None:
        desk = Desk(self.registry, self.ring, Shelves(Location(str(self.folder / "storage"))))
        wanted = Wanted(reference, to, policy, why="a test")
        done = promote(desk, wanted, self.ring.signing_key("release"))
        if done.refusal is not None:
            raise done.refusal

    def roll_back(self, name: str) -> None:
        hangar = Hangar(self.registry, self.ring, Location(str(self.folder / "cache")))
        done = roll_back(hangar, name, self.ring.signing_key("release"), RollbackOptions(why="a test"))
        assert done.moved


def damaged(file: Path) -> None:
    """One bit of it is another."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)

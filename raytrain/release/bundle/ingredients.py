"""What a trained artifact was made from, as far as another version could differ in it."""

from __future__ import annotations

from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import digest_of

_TOKENIZER_FILES = (
    "tokenizer",
    "vocab",
    "merges",
    "special_tokens",
    "added_tokens",
    "spiece",
    "sentencepiece",
)
_OF_THE_RECIPE = ("model", "adapter", "train", "data")
_FROM_PARENTS = ("base_model", "dataset")


def trained_ingredients(artifact: Artifact) -> dict[str, str]:
    """Digests by role, of those that there are: base_model, dataset, tokenizer, recipe (without its seed), and the
    seed itself. An artifact that was not trained has its parents."""
    manifest = artifact.manifest
    config = manifest.provenance.get("config")
    if not isinstance(config, dict) or "train" not in config:
        return dict(manifest.parents)
    found = {role: manifest.parents[role] for role in _FROM_PARENTS if role in manifest.parents}
    tokenizer = {
        name: entry.sha256
        for name, entry in manifest.files.items()
        if "/" not in name and name.startswith(_TOKENIZER_FILES)
    }
    if tokenizer:
        found["tokenizer"] = digest_of(tokenizer)
    recipe = {section: config.get(section) for section in _OF_THE_RECIPE}
    train = dict(config["train"])
    found["seed"] = str(train.pop("seed", None))
    found["recipe"] = digest_of({**recipe, "train": train})
    return found

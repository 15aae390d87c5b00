"""Whether a bundle can stand in for another, and whether its weights fit its description and its base model: all are
read, and no model is built."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import IntegrityError, PlatformError, RefusedError
from raytrain.models.adapter import ADAPTER_CONFIG
from raytrain.models.base import resolve_base_model
from raytrain.models.base_places import place_of_base
from raytrain.models.section import ModelSection
from raytrain.release.bundle.description import FORMAT_FOLDERS, LOADABLE, BundleDescription
from raytrain.release.weight_files import Shapes, check_finite, shapes_in, unloadable
from raytrain.storage.location import Location
from raytrain.storage.manifest import short_digest


@dataclass(frozen=True)
class Fit:
    """One thing that two bundles have in common, or not."""

    thing: str
    serving: str
    wanted: str

    @property
    def same(self) -> bool:
        return self.serving == self.wanted


def compatible(serving: BundleDescription, wanted: BundleDescription) -> list[Fit]:
    """What a replica that serves the one must not have to load anew for the other."""
    return [
        Fit("base model", serving.base_model.digest, wanted.base_model.digest),
        Fit("tokenizer", serving.tokenizer, wanted.tokenizer),
        Fit("kind", serving.kind, wanted.kind),
    ]


def compatible_by_origin(serving: Mapping[str, str], wanted: Mapping[str, str]) -> list[Fit]:
    """Where the one that serves cannot be read: by what the journal says of the origin of both, as far as it does."""
    things = {"base model": "base_model", "tokenizer": "tokenizer"}
    return [
        Fit(thing, serving[role], wanted[role])
        for thing, role in things.items()
        if role in serving and role in wanted
    ]


def refuse_unfit(found: list[Fit], version: str) -> None:
    """Raises RefusedError that shows both digests of what differs."""
    unlike = [one for one in found if not one.same]
    if unlike:
        raise RefusedError(
            f"{version} does not fit what serves now",
            why="; ".join(f"{one.thing}: serving {one.serving}, {version} {one.wanted}" for one in unlike),
            fix="take a version over the same base, or say --other-base: whoever serves must load that one, too",
        )


def check_weights(folder: Path, description: BundleDescription, cache: Location) -> str:
    """Every safetensors file of the bundle's adapter or merged weights can be read to its end and holds finite numbers,
    and an adapter's shapes fit its rank and, where the base model lies on this machine, the modules there. In words,
    what was looked at.

    Raises IntegrityError that names the first tensor which does not fit.
    """
    held = [one for one in LOADABLE if one in description.formats]
    told = []
    for name in held:
        tensors = shapes_in(folder / FORMAT_FOLDERS[name])
        check_finite(folder / FORMAT_FOLDERS[name])
        told.append(f"{len(tensors)} tensors of {name} were read, all of them finite")
        if name == "adapter":
            told += _check_adapter(folder / FORMAT_FOLDERS[name], tensors, description, cache)
    return "; ".join(told) or f"no weights to look at in {', '.join(description.formats)}"


def _check_adapter(
    folder: Path, tensors: Shapes, description: BundleDescription, cache: Location
) -> Iterator[str]:
    try:
        rank = int(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise unloadable(folder / ADAPTER_CONFIG, f"it cannot be read: {error}") from error
    if description.adapter is not None and description.adapter.rank != rank:
        raise unloadable(
            folder / ADAPTER_CONFIG, f"its rank is {rank}, bundle.json says {description.adapter.rank}"
        )
    modules: dict[str, list[int]] = {}
    for name, shape in tensors.items():
        module, is_a, _ = name.partition(".lora_A.")
        if is_a:
            other = tensors.get(f"{module}.lora_B.{name.partition('.lora_A.')[2]}")
            # A rank_pattern may give a module a rank of its own; its two halves must agree all the same.
            if other is None or len(shape) != 2 or len(other) != 2 or other[1] != shape[0]:
                raise unloadable(folder, f"{name} is {shape}, its other half {other}")
            modules[module.removeprefix("base_model.model.")] = [other[0], shape[1]]
    yield f"{len(modules)} modules of rank {rank}"
    yield _check_base(folder, modules, description, cache)


def _check_base(folder: Path, modules: Shapes, description: BundleDescription, cache: Location) -> str:
    base = description.base_model
    try:
        section = ModelSection(base_model=place_of_base(base.reference, base.digest), revision=base.revision)
        found = resolve_base_model(section, cache)
    except PlatformError as error:
        if isinstance(error, IntegrityError):
            raise
        return f"the base model is not on this machine ({base.reference}): shapes are not held against it"
    if found.digest != base.digest:
        raise IntegrityError(
            f"{base.reference} is another base model than {folder} was trained over",
            why=f"here: {found.digest}, trained over: {base.digest}",
            fix="put the base model back that it was trained over",
        )
    shapes = shapes_in(Path(found.path))
    for name, shape in modules.items():
        # A base without a head, as many encoders are published, leaves out the name of its body.
        weight = shapes.get(f"{name}.weight") or shapes.get(f"{name.partition('.')[2]}.weight")
        if weight is None and "." not in name and shape in shapes.values():
            continue  # a head that is tied to the embedding is not stored
        if weight is None:
            raise unloadable(folder, f"the base model has no {name}")
        if sorted(weight) != sorted(shape):
            raise unloadable(folder, f"{name} is for a weight of {shape}, the base model's is {weight}")
    return f"all fit the base model {short_digest(base.digest)}"

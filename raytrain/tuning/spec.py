"""A recipe with its `search:` section, and the recipe of each trial."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raytrain.config.document import Document, apply_overrides
from raytrain.config.recipe import build, load_recipe
from raytrain.errors import ConfigError
from raytrain.runs.cost import cost_of
from raytrain.storage.manifest import digest_of
from raytrain.training.spec import RunSpec, recipe_name, spec_from_document
from raytrain.tuning.range_values import check_values, tried_values
from raytrain.tuning.schedulers import check_comparable, chosen_scheduler
from raytrain.tuning.section import ObjectiveSection, SearchSection
from raytrain.tuning.space import Space, build_space

# What decides which trials are made. How many, at what cost and how many at once may change between two commands, and
# the second goes on with the first's trials.
IDENTITY_KEYS = {
    "space", "objectives", "sampler", "scheduler", "min_steps", "reduction_factor", "population", "seed",
}  # fmt: skip

_OF_A_RANGE = ("type", "low", "high", "log", "step", "choices", "when")


class TuneSpec(RunSpec):
    """A recipe with a search."""

    search: SearchSection


@dataclass(frozen=True)
class TuneRecipe:
    """What `raytrain tune` was given. Picklable: each trial makes its own recipe from it."""

    spec: RunSpec
    """The recipe's own values."""
    search: SearchSection
    document: Document
    """The recipe as written, which trials' values are put over."""

    @cached_property
    def space(self) -> Space:
        return build_space(self.search.space, self.document)

    @property
    def objectives(self) -> list[ObjectiveSection]:
        train = self.spec.train
        return list(self.search.objectives) or [ObjectiveSection(metric=train.monitor, mode=train.mode)]

    @property
    def metrics(self) -> list[str]:
        return [one.metric for one in self.objectives]

    @property
    def scheduler(self) -> str:
        """The scheduler, or the one that `auto` stands for."""
        return chosen_scheduler(self)

    @property
    def identity(self) -> str:
        """Digest of what decides the trials; equal for two searches of one command."""
        search = self.search.model_dump(mode="json", include=IDENTITY_KEYS)
        return digest_of({"recipe": self.spec.identity, "search": search})

    @property
    def run_id(self) -> str:
        """The search that the same command always means."""
        return f"{self.spec.name}-tune-{self.identity.removeprefix('sha256:')[:8]}"

    def trial_spec(self, values: Mapping[str, Any]) -> RunSpec:
        """The recipe with these values; ConfigError where they are not allowed together."""
        overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        return spec_from_document(apply_overrides(self.document, overrides), default_name=self.spec.name)

    def to_dict(self) -> dict[str, Any]:
        return {**self.spec.to_dict(), "search": self.search.model_dump(mode="json")}


def load_tune_recipe(path: Path, overrides: list[str] | None = None) -> TuneRecipe:
    """Read and check a recipe with a search; ConfigError names every fault with its place."""
    return tune_recipe(load_recipe(path, overrides), default_name=path.stem)


def tune_recipe(document: Document, *, default_name: str) -> TuneRecipe:
    """Raises ConfigError where there is no `search:`, and for a range or key that cannot be searched."""
    if "search" not in document.values:
        raise ConfigError(
            f"{document.origin(())}: nothing to search",
            why="the recipe has no section `search:`",
            fix="add one, for example search: {space: {train.learning_rate: "
            "{type: float, low: 1e-5, high: 1e-2, log: true}}}; docs/tuning.md tells more",
        )
    document = with_dotted_space(_without_pipeline(document))
    values = {"name": recipe_name(document, default_name), **document.values}
    whole = build(TuneSpec, Document(values, document.origins, document.form))
    alone = {key: value for key, value in values.items() if key != "search"}
    recipe = TuneRecipe(
        spec_from_document(Document(alone, document.origins, document.form), default_name=default_name),
        whole.search,
        Document(alone, document.origins, document.form),
    )
    check_values(recipe.space, recipe.document, recipe.spec.name)
    _check_scheduler(recipe)
    _check_prices(recipe)
    return recipe


def _without_pipeline(document: Document) -> Document:
    """What `raytrain run` does beside the search is no matter of it."""
    values = {key: value for key, value in document.values.items() if key != "pipeline"}
    return Document(values, document.origins, document.form)


def _check_scheduler(recipe: TuneRecipe) -> None:
    check_comparable(recipe)
    if recipe.scheduler == "pbt":
        from raytrain.tuning.population import check_population

        check_population(recipe)


def _check_prices(recipe: TuneRecipe) -> None:
    limit = recipe.search.budget.cost
    if limit is not None and any(
        cost_of(3600.0, spec.scaling, spec.cost).money is None for spec in _specs_by_workers(recipe)
    ):
        raise ConfigError(
            f"search.budget.cost: {limit:g} cannot be held",
            why="the recipe has no price for what its workers take, or those of a trial",
            fix="set cost.cpu_hour, cost.gpu_hour or cost.instance; docs/reference.md lists them",
        )


def _specs_by_workers(recipe: TuneRecipe) -> Iterator[RunSpec]:
    """The recipe, and beside it with each searched value of its workers alone."""
    yield recipe.spec
    for key, one in recipe.space.ranges.items():
        if key.startswith("scaling."):
            for _, value in tried_values(one):
                with contextlib.suppress(ConfigError):  # allowed only beside another value
                    yield recipe.trial_spec({key: value})


def with_dotted_space(document: Document) -> Document:
    """Ranges may be nested as the recipe is, which an override makes them; here each gets its one dotted key."""
    search = document.values["search"]
    space = search.get("space") if isinstance(search, Mapping) else None
    if not isinstance(space, Mapping):
        return document
    origins = dict(document.origins)
    dotted: dict[str, Any] = {}
    for path, value in _ranges(space, ()):
        key, above = ".".join(path), ".".join(path[:-1])
        if isinstance(dotted.get(above), dict):  # a key of a range that stands under its dotted name
            dotted[above] = {**dotted[above], path[-1]: value}
            moved, to = path[:-1], above
        else:
            both = isinstance(dotted.get(key), dict) and isinstance(value, Mapping)
            dotted[key] = {**dotted[key], **value} if both else value
            moved, to = path, key
        nested = ("search", "space", *moved)
        for place, origin in document.origins.items():
            if place[: len(nested)] == nested:
                origins[("search", "space", to, *place[len(nested) :])] = origin
    values = {**document.values, "search": {**search, "space": dotted}}
    return Document(values, origins, document.form)


def _ranges(values: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each range with its path; dotted names, which a file has, come before nested ones."""
    for name, value in sorted(values.items(), key=lambda one: "." not in one[0]):
        is_branch = isinstance(value, Mapping) and value and not any(one in value for one in _OF_A_RANGE)
        if is_branch:
            yield from _ranges(value, (*above, name))
        else:
            yield (*above, name), value

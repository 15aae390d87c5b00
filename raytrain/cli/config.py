"""`raytrain config`: look at a recipe without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raytrain.cli.output import JsonOption, emit

app = typer.Typer(help="Check, resolve and describe recipes.", no_args_is_help=True)

RecipeArgument = Annotated[Path, typer.Argument(help="The YAML recipe.")]
OverridesArgument = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]


@app.command()
def check(recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> None:
    """Say whether a recipe is valid; every fault with file, line and the nearest valid key."""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)
    check_search(recipe, overrides)
    if has_section(recipe, overrides, "pipeline"):
        from raytrain.pipeline.section import load_pipeline

        load_pipeline(recipe, overrides)
    result = {"valid": True, "name": spec.name, "run_id": spec.run_id}
    emit(result, as_json, lambda console: console.print(f"{recipe}: valid; its run is {spec.run_id}"))


@app.command()
def show(recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> None:
    """Print the resolved recipe: presets, overrides and defaults applied."""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)
    emit(spec.to_dict(), as_json, lambda console: console.print(spec.to_yaml(), end="", highlight=False))


@app.command()
def schema(as_json: JsonOption = False) -> None:  # noqa: ARG001 - a schema is JSON either way
    """Print the JSON Schema of recipes, for editors."""
    import json

    from raytrain.pipeline.section import WholeSpec

    described = WholeSpec.model_json_schema()
    described["properties"]["extends"] = {
        "description": "Recipe or recipes, relative to this one, that this one builds on.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    described["required"] = [key for key in described["required"] if key not in ("name", "search")]
    print(json.dumps(described, indent=2))


def check_search(recipe: Path, overrides: list[str] | None) -> list[str]:
    """The keys that a recipe's `search:` names; none where it has none. Raises ConfigError for a fault in it."""
    from raytrain.config.recipe import load_recipe

    document = load_recipe(recipe, overrides)
    if "search" not in document.values:
        return []
    from raytrain.tuning.spec import tune_recipe

    return list(tune_recipe(document, default_name=recipe.stem).space.ranges)


def has_section(recipe: Path, overrides: list[str] | None, name: str) -> bool:
    """Whether a recipe, with all that it extends, has a section of this name."""
    from raytrain.config.recipe import load_recipe

    return name in load_recipe(recipe, overrides).values

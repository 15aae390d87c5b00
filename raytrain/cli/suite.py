"""`raytrain suite`: what a suite asks, before anybody is asked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.items import Item, Suite

app = typer.Typer(help="Look at suites of items.", no_args_is_help=True)

_SHARE_THAT_DIFFERS = 0.2


@app.command("show")
def show(
    suite: Annotated[Path, typer.Argument(help="YAML file of a suite.")],
    item: Annotated[str | None, typer.Option(help="Id of the item to show; by default the first.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a suite with all its items, show one as it is asked, and tell what gain so many items can see."""
    from raytrain.evaluation.items import load_items
    from raytrain.evaluation.scoring.registry import build_scorer
    from raytrain.evaluation.statistics.power import smallest_gain_of_shares
    from raytrain.evaluation.suite import load_suite

    section = load_suite(suite)
    if section.scorer is not None:
        build_scorer(section.scorer.name, section.scorer.options)
    found = load_items(section)
    chosen = found.items[0] if item is None else _named(found, item)
    result: dict[str, Any] = {
        "suite": section.suite,
        "version": section.version,
        "kind": section.kind,
        "digest": found.digest,
        "num_items": len(found.items),
        "num_groups": len({one.group for one in found.items if one.group is not None}),
        "categories": sorted({one.category for one in found.items if one.category is not None}),
        "smallest_gain": smallest_gain_of_shares(len(found.items), _SHARE_THAT_DIFFERS),
        "item": asdict(chosen),
    }
    emit(result, as_json, lambda console: _show(console, result, chosen))


@app.command("import")
def import_task(
    task: Annotated[
        Path, typer.Argument(help="YAML file of a task of lm-evaluation-harness; its data is local.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder that gets suite.yaml and its rows.")],
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Worked examples; else as the task says.")
    ] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="So many of its items at most.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over another suite.yaml and its rows in FOLDER.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a suite of a task of lm-evaluation-harness: the same prompts, choices and stop texts."""
    from raytrain.evaluation.harness import write_suite
    from raytrain.evaluation.items import load_items
    from raytrain.evaluation.suite import load_suite

    place = write_suite(task, folder, num_fewshot=num_fewshot, max_items=max_items, replace=replace)
    found = load_items(load_suite(place))
    result = {"suite": str(place), "num_items": len(found.items), "digest": found.digest}
    emit(result, as_json, lambda console: console.print(place, markup=False, highlight=False, soft_wrap=True))


def _named(suite: Suite, item_id: str) -> Item:
    from raytrain.config.recipe import nearest

    for one in suite.items:
        if one.id == item_id:
            return one
    near = nearest(item_id, [one.id for one in suite.items])
    raise ConfigError(
        f"suite {suite.section.suite} has no item {item_id!r}",
        why=f"it has {len(suite.items)}, the first {suite.items[0].id!r}",
        fix=f"did you mean `{near}`?" if near else "name one of its items, or leave --item out",
    )


def _show(console: Console, result: dict[str, Any], item: Item) -> None:
    gain = result["smallest_gain"]
    sees = (
        "too few to see any gain"
        if gain is None
        else f"a gain of {100 * gain:.1f} points is seen 4 times out of 5"
    )
    lines = {
        "suite": f"{result['suite']}, version {result['version']}, {result['kind']}",
        "items": f"{result['num_items']:,}"
        + (f" in {result['num_groups']:,} groups" if result["num_groups"] else "")
        + f"; of two models that differ on a fifth of them, {sees}",
        "digest": result["digest"],
    }
    if result["categories"]:
        lines["categories"] = ", ".join(result["categories"])
    for name, value in lines.items():
        console.print(f"{name:<10} {value}", markup=False, highlight=False, soft_wrap=True)
    turns = (
        [("", item.prompt)]
        if isinstance(item.prompt, str)
        else [(t["role"], t["content"]) for t in item.prompt]
    )
    for role, text in [*turns, ("right", item.references[0])]:
        console.print(
            f"\n{role or 'prompt'} of item {item.id}" if role != "right" else "\nright answer", style="bold"
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    for number, choice in enumerate(item.choices):
        console.print(f"choice {number}: {choice}", markup=False, highlight=False, soft_wrap=True)

"""`raytrain data`: from raw rows to a dataset."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.data.prepare import PrepareProgress
    from raytrain.data.section import DataRecipe
    from raytrain.storage.location import Location

app = typer.Typer(help="Prepare rows for training, and look at them.", no_args_is_help=True)


@app.command("prepare")
def prepare(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe; only its data: and storage: are used.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Rows to prepare without a recipe: file, folder or glob."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", help="Folder or URI that gets datasets/<key>; else storage.path."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Clean, deduplicate and split rows into a dataset artifact; at once where it is there already."""
    from raytrain.data.prepare import prepare_dataset

    settings = _settings(recipe, overrides or [], source or [])
    started = time.monotonic()
    with _ProgressBar() as progress:
        artifact = prepare_dataset(settings.data, _storage(settings, output), on_progress=progress.show)
    statistics = json.loads((artifact.path / "statistics.json").read_text(encoding="utf-8"))
    rows = statistics["rows"]
    result = {
        "artifact": str(artifact.location),
        "digest": artifact.digest,
        "splits": {name: one["rows"] for name, one in statistics["splits"].items()},
        "read": rows["read"],
        "rejected": statistics["rejected"],
        "num_rejected": rows["rejected"],
        "dropped": {
            "exact_duplicates": rows["exact_duplicates"],
            "near_duplicates": rows["near_duplicates"],
        },
        "cached": progress.cached,
        "seconds": round(time.monotonic() - started, 3),
    }
    emit(result, as_json, lambda console: _show_result(console, result))


@app.command("show")
def show(
    artifact: Annotated[str, typer.Argument(help="Folder or URI of a dataset artifact.")],
    as_json: JsonOption = False,
) -> None:
    """Print the data card of a dataset; with --json its statistics."""
    from raytrain.storage.artifact import open_artifact
    from raytrain.storage.location import Location

    place = Location.parse(artifact)
    if not place.exists():
        raise ConfigError(
            f"there is no dataset at {artifact}",
            why="nothing is there",
            fix="give the folder or URI that `raytrain data prepare` printed",
        )
    opened = open_artifact(place, kind="dataset")
    statistics = json.loads((opened.path / "statistics.json").read_text(encoding="utf-8"))
    card = (opened.path / "data_card.md").read_text(encoding="utf-8")
    result = {"artifact": str(opened.location), "digest": opened.digest, "statistics": statistics}
    emit(result, as_json, lambda console: console.print(card, markup=False, highlight=False))


def _settings(recipe: str | None, overrides: list[str], sources: list[str]) -> DataRecipe:
    from raytrain.config.document import Document, apply_overrides
    from raytrain.config.recipe import build
    from raytrain.data.section import DataRecipe, load_data_recipe

    if not sources:
        if recipe is None:
            raise ConfigError(
                "nothing to prepare",
                why="neither a recipe nor --source was given",
                fix="raytrain data prepare RECIPE.yaml, or raytrain data prepare --source rows.jsonl",
            )
        return load_data_recipe(Path(recipe), overrides)
    if recipe is not None and "=" not in recipe:
        raise ConfigError(
            f"both the recipe {recipe} and --source were given",
            why="each says where the rows come from",
            fix="leave one of the two out; with a recipe, override data.sources=rows.jsonl",
        )
    # With --source the first argument, too, is an override.
    document = Document({"data": {"sources": [{"path": one} for one in sources]}}, {(): "--source"})
    return build(DataRecipe, apply_overrides(document, [*([recipe] if recipe else []), *overrides]))


def _storage(settings: DataRecipe, output: str | None) -> Location:
    from raytrain.storage.section import StorageSection

    return StorageSection(path=output or settings.storage.path).location


def _show_result(console: Console, result: dict[str, Any]) -> None:
    dropped = result["dropped"]
    lines = {
        "rows": ", ".join(f"{name} {count:,}" for name, count in result["splits"].items()),
        "left out": f"{result['num_rejected']:,} rejected, {dropped['exact_duplicates']:,} exact and "
        f"{dropped['near_duplicates']:,} near-duplicates",
        "dataset": result["artifact"] + (" (was there already)" if result["cached"] else ""),
        "digest": result["digest"],
    }
    for name, value in lines.items():
        console.print(f"{name:<9} {value}", markup=False, highlight=False, soft_wrap=True)


_TITLES = {"read": "reading", "deduplicate": "finding duplicates", "write": "writing"}


class _ProgressBar:
    """Rows, rows/s and MB/s on stderr while a dataset is prepared; lines for what a person should know."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.cached = False
        self._started = time.monotonic()
        self._phase = ""
        self._bar = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            console=stderr_console(),
            transient=True,
        )
        self._task = self._bar.add_task("opening", total=None, speed="")

    def __enter__(self) -> _ProgressBar:
        live: AbstractContextManager[object] = self._bar if self._bar.console.is_terminal else nullcontext()
        self._live = live
        live.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)

    def show(self, progress: PrepareProgress) -> None:
        """Take one report of `prepare_dataset`."""
        if progress.note:
            self._bar.console.print(progress.note, markup=False, highlight=False, soft_wrap=True)
        self.cached = self.cached or progress.phase == "cached"
        if progress.phase not in _TITLES:
            return
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._started = time.monotonic()
            self._bar.reset(self._task, description=_TITLES[progress.phase])
        seconds = max(time.monotonic() - self._started, 1e-6)
        speed = f"{progress.num_rows:,} rows, {progress.num_rows / seconds:,.0f} rows/s"
        if progress.phase == "read" and progress.num_bytes:
            speed += f", {progress.num_bytes / seconds / 1e6:.1f} MB/s"
        if progress.num_rejected:
            speed += f", {progress.num_rejected:,} rejected"
        done = progress.num_bytes if progress.phase == "read" else progress.num_rows
        self._bar.update(self._task, total=progress.total_bytes or None, completed=done, speed=speed)

"""`raytrain contamination`: was the model trained on what it is asked?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.contamination.audit import Audit
    from raytrain.evaluation.contamination.loss_ratio import ItemLoss
    from raytrain.evaluation.contamination.rescoring import Rescored
    from raytrain.evaluation.items import Suite
    from raytrain.evaluation.records import ItemRecord
    from raytrain.storage.location import Location

_MOST_SHOWN = 20


def contamination(
    source: Annotated[
        str,
        typer.Argument(metavar="DATASET|RUN|ADAPTER", help="What was learned from, or what learned from it."),
    ],
    suite: Annotated[Path, typer.Option("--suite", help="The suite's YAML file.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Adapter or run whose loss on each item is held against its base's."),
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="Base model; else the adapter's own.")] = None,
    records: Annotated[
        Path | None,
        typer.Option("--records", help="Parquet file of item records, to score without suspects."),
    ] = None,
    all_splits: Annotated[
        bool, typer.Option("--all-splits", help="Also rows of val and test, which are not trained on.")
    ] = False,
    output: Annotated[
        str | None, typer.Option("--output", help="Folder or URI of the report; else below storage.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold every item of a suite against the rows that were trained on, and against the model itself."""
    if base is not None and model is None:
        raise ConfigError(
            "--base stands alone",
            why="the loss ratio is of a fine-tuned model over its base",
            fix="name --model, too",
        )
    from raytrain.cli.recorded_runs import opened_records
    from raytrain.data.dataset import SPLITS
    from raytrain.evaluation.contamination.audit import judge, search_rows
    from raytrain.evaluation.contamination.lineage import find_dataset
    from raytrain.evaluation.contamination.report import summary, write_report
    from raytrain.evaluation.contamination.rescoring import rescore
    from raytrain.evaluation.items import load_items
    from raytrain.evaluation.suite import load_suite

    items = load_items(load_suite(suite))
    scored = None if records is None else _read_records(records, items)
    destination = _destination(output, items.section.suite)
    with opened_records() as known:
        dataset = find_dataset(source, known)
    with _bar("rows") as tell:
        overlap = search_rows(dataset, items, splits=SPLITS if all_splits else ("train",), on_progress=tell)
    losses = None if model is None else _losses(model, base, items)
    audit = judge(items, overlap, losses)
    rescored = None if scored is None else rescore(scored, audit.suspects)
    told = {"source": source, "suite": str(suite), "model": model, "base": base}
    report = write_report(audit, rescored, destination, parents={"dataset": dataset.digest}, config=told)
    result = {"report": str(report.location), "digest": report.digest, **summary(audit, rescored)}
    emit(result, as_json, lambda console: _show(console, audit, rescored, str(report.location)))


def _destination(output: str | None, name: str) -> Location:
    from raytrain.storage.named_places import place_for_artifact
    from raytrain.storage.section import StorageSection

    if output is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        return StorageSection().location / "contamination" / f"{name}-{stamp}"
    return place_for_artifact(output)


def _read_records(path: Path, suite: Suite) -> list[ItemRecord]:
    """Of the suite's items as they are now. Raises DataError where it is anything else."""
    from raytrain.evaluation.records import read_records

    found = read_records(path)
    digests = {item.id: item.digest() for item in suite.items}
    others = [one.item_id for one in found if digests.get(one.item_id) != one.item_digest]
    if others or len(found) != len(digests):
        raise DataError(
            f"{path} is of other items than the suite",
            why=f"{len(found)} records stand against {len(digests)} items; {len(others)} are of items that it has not",
            fix="evaluate the suite again, or give the suite that was evaluated",
        )
    return found


def _losses(
    model: str, base: str | None, suite: Suite
) -> tuple[dict[str, ItemLoss | str], dict[str, ItemLoss | str]]:
    """Of the fine-tuned model and of its base, one in memory after the other."""
    import torch

    from raytrain.cli.ask import find_model
    from raytrain.evaluation.contamination.loss_ratio import item_losses
    from raytrain.models.inference import load_for_inference
    from raytrain.storage.section import StorageSection

    cache, place = StorageSection().location, find_model(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = []
    for reference, is_base in ((place, False), (base or place, True)):
        loaded = load_for_inference(
            reference, cache=cache, device=device, base_model_only=is_base and base is None
        )
        if not is_base and base is None and not loaded.adapted:
            raise ConfigError(
                f"{model} is no adapter",
                why="a whole model does not hold its base",
                fix="name the base with --base",
            )
        with _bar("base model" if is_base else "fine-tuned model") as tell:
            found.append(item_losses(loaded, suite, on_progress=tell))
        del loaded
    return found[0], found[1]


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on stderr: a bar on a terminal, elsewhere one line at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = stderr_console()
    columns = TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task, seen = progress.add_task(title, total=None), [0]

        def tell(done: int, total: int) -> None:
            seen[0] = done
            progress.update(task, completed=done, total=total)

        yield tell
    console.print(f"{title}: {seen[0]:,} read", style="dim", highlight=False)


def _show(console: Console, audit: Audit, rescored: Rescored | None, place: str) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    suspects = [one for one in audit.findings if one.suspicion]
    line(f"{len(suspects):,} of {len(audit.findings):,} items are suspected, of {audit.num_rows:,} rows")
    for one in suspects[:_MOST_SHOWN]:
        line(f"  {one.item.id}: {one.suspicion.reasons[0]}")
    if len(suspects) > _MOST_SHOWN:
        line(f"  and {len(suspects) - _MOST_SHOWN:,} more")
    if rescored is not None:
        line(rescored.sentence())
    for note in audit.notes:
        line(f"note: {note}")
    line(f"report: {place}")

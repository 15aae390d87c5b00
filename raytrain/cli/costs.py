"""What runs cost: told after them by `raytrain runs cost`, estimated and asked before them."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.errors import ConfigError, PlatformError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rich.console import Console

    from raytrain.runs.cost import Estimate, Measured
    from raytrain.runs.record_types import RunRecord
    from raytrain.runs.records import Records
    from raytrain.training.spec import RunSpec
    from raytrain.tuning.forecast import Forecast
    from raytrain.tuning.spec import TuneRecipe

YesOption = Annotated[
    bool, typer.Option("--yes", help="Start whatever it may cost: ask nobody for cost.confirm_above.")
]
By = Literal["run", "recipe", "month"]

_LOOKED_AT = 20
"""Earlier runs of a recipe that an estimate is looked for in."""

_PROBE_STEPS = 5
_NO_RUN = "no run of this recipe yet that tells how long a step takes"
_PROBE = f"a probe gives one: `raytrain train RECIPE train.max_steps={_PROBE_STEPS}`"


def show_costs(
    by: Annotated[str, typer.Option(help="run, recipe or month.")] = "run",
    since: Annotated[str | None, typer.Option(help="An age (90m, 36h, 2d) or a date.")] = None,
    name: Annotated[str | None, typer.Option(help="Part of the runs' name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What runs took, and what that costs at the prices of their recipes; those that go on count up to now."""
    from dataclasses import asdict

    from raytrain.runs.cost import MADE_OF_OTHERS, summed
    from raytrain.runs.spent import spent
    from raytrain.runs.views import parse_since

    if by not in ("run", "recipe", "month"):
        raise ConfigError(
            f"--by {by}", why="costs are summed by run, recipe or month", fix="take one of these"
        )
    now = time.time()
    with opened_records() as records:
        page = records.list_runs(name=name, since=parse_since(since, now) if since else None, limit=1_000_000)
        counted = [run for run in page.runs if run.started_at is not None and run.kind not in MADE_OF_OTHERS]
        costs = [(run, spent(records, run, now)) for run in counted]
    lines = summed(costs, by)
    total = summed(costs, "recipe")
    money: dict[str, float] = {}
    for line in total:
        for currency, amount in line.money.items():
            money[currency] = money.get(currency, 0.0) + amount
    found = {"by": by, "lines": [asdict(line) for line in lines], "total": money}
    emit(found, as_json, lambda console: _show(wide(console), by, lines, money))


def _show(console: Console, by: str, lines: list[Any], money: Mapping[str, float]) -> None:
    from rich.table import Table

    from raytrain.runs.cost import amounts

    if not lines:
        console.print("no run fits")
        return
    table = Table(box=None, pad_edge=False)
    for column in (by, "runs", "CPU hours", "GPU hours", "cost"):
        table.add_column(column, justify="left" if column in (by, "cost") else "right", no_wrap=True)
    for line in lines:
        unpriced = f"{line.num_unpriced} without a price" if line.num_unpriced else ""
        told = ", ".join(filter(None, [*amounts(line.money), unpriced]))
        table.add_row(line.key, str(line.num_runs), f"{line.cpu_hours:.2f}", f"{line.gpu_hours:.2f}", told)
    console.print(table)
    if money:
        console.print(f"in all: {', '.join(amounts(money))}", highlight=False)


def estimated(records: Records, spec: RunSpec) -> Estimate | None:
    """From the newest runs of the same recipe, a short probe with `train.max_steps` among them."""
    from raytrain.runs.cost import estimate

    page = records.list_runs(kind="train", limit=_LOOKED_AT, name=spec.name)
    measured = [_measured(records, run) for run in page.runs if run.started_at is not None]
    return estimate(spec.to_dict(), spec.train.num_steps, measured)


def _measured(records: Records, run: RunRecord) -> Measured:
    from raytrain.runs.cost import Measured, active_seconds

    points = records.metrics(run.id, ["train/step_s"]).get("train/step_s", [])
    # The first steps compile and fill caches.
    step_s = [point.value for point in (points[1:] or points)]
    spent = sum(step_s) / len(step_s) * run.global_step if step_s else 0.0
    beside = max(0.0, active_seconds(run, records.events(run.id), time.time()) - spent)
    return Measured(run.id, run.config, step_s, beside, _num_rows(records, run))


def _num_rows(records: Records, run: RunRecord) -> int | None:
    """Of the training split of the dataset that the run read."""
    import pyarrow.parquet as pq

    from raytrain.data.dataset import split_file
    from raytrain.storage.artifact import open_artifact
    from raytrain.storage.location import Location

    read = [use for use in records.artifacts(run.id) if use.role == "dataset" and use.uri]
    if not read:
        return None
    try:
        artifact = open_artifact(Location.parse(str(read[-1].uri)), kind="dataset", verify=False)
        return int(pq.ParquetFile(split_file(artifact, "train")).metadata.num_rows)
    except (PlatformError, OSError):
        return None  # deleted since; the estimate then does without it


def confirm_cost(spec: RunSpec, *, yes: bool, as_json: bool, num_runs: int = 1) -> Estimate | None:
    """Tell the estimate of so many runs where there are prices, and ask where it is above `cost.confirm_above`, or
    where there is none to hold against that. For a probe, which gives one, nobody is asked.

    Raises RefusedError where the answer is no, or where nobody is there to ask.
    """
    prices, limit = spec.cost, spec.cost.confirm_above
    if limit is None and not (prices.cpu_hour or prices.gpu_hour or prices.gpu_hours or prices.instance):
        return None
    with opened_records() as records:
        one = estimated(records, spec)
    found = one if one is None else one.times(num_runs)
    console = stderr_console()
    if not as_json:
        told = (
            f"no estimate of the cost: {_NO_RUN}; {_PROBE}" if found is None else f"estimate: {found.told()}"
        )
        console.print(told, highlight=False)
    is_probe = num_runs == 1 and 0 < (spec.train.max_steps or 0) <= _PROBE_STEPS
    doubt = None if limit is None else _doubt(found, limit)
    if doubt is None or yes or (found is None and is_probe):
        return found
    asked, why, fix = doubt
    if sys.stdin.isatty() and not as_json and typer.confirm(f"{asked}. Start?", err=True):
        return found
    raise RefusedError(f"not started: {asked}", why=why, fix=fix)


def confirm_forecast(
    search: TuneRecipe | None, estimate: Estimate | None, *, yes: bool, as_json: bool
) -> Callable[[Forecast], None] | None:
    """What a search asks when it has its forecast: where that, or its budget where it is less, is above
    `cost.confirm_above` and above the `estimate` that was confirmed before. It raises RefusedError for a no."""
    from raytrain.tuning.forecast import told_forecast

    if search is None or yes or search.spec.cost.confirm_above is None:
        return None
    limit, currency, budget = search.spec.cost.confirm_above, search.spec.cost.currency, search.search.budget
    confirmed = None if estimate is None else estimate.cost.money
    limited = f"cost.confirm_above ({limit:g})"

    def confirm(found: Forecast) -> None:
        if found.cost is None:
            if confirmed is None:  # which was put to somebody before
                return
            asked = f"nothing can be held against {limited}"
            why = "the recipe has no price for all workers that the search may take"
            fix = "set cost.cpu_hour, cost.gpu_hour or cost.gpu_hours; or add --yes"
        else:
            money = found.cost if budget.cost is None else min(found.cost, budget.cost)
            if money <= max(limit, confirmed or 0.0):
                return
            asked = f"the forecast of {money:.2f} {currency} is above {limited}"
            why = told_forecast(found)
            fix = "add --yes, raise cost.confirm_above, or lower search.num_trials or search.budget.cost"
        if sys.stdin.isatty() and not as_json and _says_yes(f"{asked}. Go on?"):
            return
        raise RefusedError(f"no trial was begun: {asked}", why=why, fix=fix)

    return confirm


def _says_yes(question: str) -> bool:
    """Ctrl-C is a no: the handler of a search that goes on would let the question stand."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False
    finally:
        signal.signal(signal.SIGINT, handler)


def _doubt(found: Estimate | None, limit: float) -> tuple[str, str, str] | None:
    """Why somebody has to say yes: what, the reason for it, and what else there is to do."""
    limited = f"cost.confirm_above ({limit:g})"
    if found is None:
        return f"there is no estimate to hold against {limited}", _NO_RUN, f"{_PROBE}; or add --yes"
    money = found.cost.money
    if money is None:
        prices = "set cost.cpu_hour, cost.gpu_hour or cost.instance; or add --yes"
        return f"nothing can be held against {limited}", "the recipe has no price for its workers", prices
    if money <= limit:
        return None
    told = f"the estimate of {money:.2f} {found.cost.currency} is above {limited}"
    return told, found.told(), "add --yes, raise cost.confirm_above, or take fewer steps"


def num_runs_of(command: str, recipe: Path, overrides: list[str] | None) -> int:
    """How many trainings a command makes of a recipe at most: a search as many as it may have trials."""
    from raytrain.cli.config import has_section

    if command == "train" or not has_section(recipe, overrides, "search"):
        return 1
    from raytrain.tuning.chooser import num_trials
    from raytrain.tuning.spec import load_tune_recipe

    return num_trials(load_tune_recipe(recipe, overrides)) + (command == "run")

"""`raytrain interactions`: what was asked, answered and corrected, as rows to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.registry_place import PlaceOption, registry_of
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.monitoring.learning.pool import InteractionPool

app = typer.Typer(help="Learn from what is asked and corrected, where its users agree.", no_args_is_help=True)

LogOption = Annotated[
    Path | None,
    typer.Option("--log", help="Folder of the request log; by default serving/requests below RAYTRAIN_HOME."),
]
IdsArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")]
WhyOption = Annotated[str, typer.Option("--why", help="Kept beside the row.")]


@app.command("collect")
def collect(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="What production was trained with: its rows are what corrections are held against."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Of the recipe, and learning.KEY=VALUE."),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take what is new in the request log into the pool. What looks like poison is set aside, with the reason."""
    from raytrain.data.section import load_data_recipe
    from raytrain.monitoring.learning.collect import collect as run
    from raytrain.monitoring.learning.known import known_rows
    from raytrain.monitoring.learning.section import load_learning_section

    own = [one for one in overrides or [] if one.startswith("learning.")]
    section = load_learning_section(own)
    others = [one for one in overrides or [] if one not in own]
    known = [] if recipe is None else known_rows(load_data_recipe(recipe, others).data)
    done = run(_log_folder(log), _pool(), known, section)
    emit(done.as_dict(), as_json, lambda console: _show(console, done.as_dict()))


@app.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(help="ready, quarantined, refused or forgotten; all where none is named.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Rows to show, the newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """How many rows there are, and the newest."""
    states = ("ready", "quarantined", "refused", "forgotten")
    if state is not None and state not in states:
        raise ConfigError(
            f"there is no state {state!r}",
            why="rows have one of four",
            fix=f"name one of {', '.join(states)}",
        )
    pool = _pool()
    rows = [
        {**vars(row), "prompt": None if row.prompt is None else list(row.prompt)}
        for row in pool.rows(state, most)  # type: ignore[arg-type]
    ]
    result = {"counts": dict(pool.counts()), "rows": rows}
    emit(result, as_json, lambda console: _show_rows(console, result))


@app.command("accept")
def accept(ids: IdsArgument, why: WhyOption = "looked at", as_json: JsonOption = False) -> None:
    """Take rows that were set aside after all."""
    _judge(ids, "ready", why, as_json)


@app.command("refuse")
def refuse(ids: IdsArgument, why: WhyOption = "looked at", as_json: JsonOption = False) -> None:
    """Never learn from these rows, also where a run has them: an order that still goes on fails."""
    _judge(ids, "refused", why, as_json)


@app.command("release")
def release(
    run: Annotated[str, typer.Argument(help="A run that will not go on.")], as_json: JsonOption = False
) -> None:
    """Give back the rows that are kept for a run which will not go on, and has not written them down."""
    result = {"run_id": run, "released": _pool().release(run)}
    emit(
        result,
        as_json,
        lambda console: console.print(f"{result['released']} rows are free again", highlight=False),
    )


def forget(
    user: Annotated[str, typer.Argument(help="The `user` of the requests, or its pseudonym in the log.")],
    log: LogOption = None,
    registry: PlaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a user's rows from the request log and the pool, and list all that has learned from them."""
    from raytrain.monitoring.learning.forgetting import forget as run
    from raytrain.monitoring.learning.forgetting import pseudonyms_of
    from raytrain.monitoring.learning.log_deletion import delete_from_log

    names = pseudonyms_of(user)
    num_logged = delete_from_log(_log_folder(log), names)
    told = {**run(names, _pool(), registry_of(registry)).as_dict(), "num_logged": num_logged}
    emit(told, as_json, lambda console: _show_forgotten(console, told))


def _judge(ids: list[str], state: Literal["ready", "refused"], why: str, as_json: bool) -> None:
    result = {"state": state, "changed": _pool().judge(ids, state, why)}
    emit(
        result,
        as_json,
        lambda console: console.print(f"{result['changed']} of {len(ids)} rows: {state}", highlight=False),
    )


def _pool() -> InteractionPool:
    from raytrain.monitoring.learning.pool import InteractionPool
    from raytrain.runs.schema import ensure_schema
    from raytrain.storage.database import open_database

    engine = open_database()
    ensure_schema(engine)
    return InteractionPool(engine)


def _log_folder(log: Path | None) -> Path:
    from raytrain.storage.home import raytrain_home

    return log or raytrain_home() / "serving" / "requests"


def _show(console: Console, told: dict[str, Any]) -> None:
    console.print(f"{told['num_answers']} answers, {told['num_new']} new in the pool", highlight=False)
    for reason, count in told["left_out"].items():
        console.print(f"  {count} left out: {reason}", highlight=False, markup=False)
    for name, reason in told["quarantined"].items():
        console.print(f"  set aside {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    for note in told["notes"]:
        console.print(f"  {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _show_rows(console: Console, told: dict[str, Any]) -> None:
    console.print(", ".join(f"{count} {name}" for name, count in told["counts"].items()), highlight=False)
    for row in told["rows"]:
        kept = f" for {row['run_id']}" if row["run_id"] else ""
        asked = "" if row["prompt"] is None else row["prompt"][-1]["content"][:60].replace("\n", " ")
        why = f" ({row['reason']})" if row["reason"] else ""
        console.print(
            f"{row['id']} {row['state']}{kept}{why}: {asked!r} → {(row['target'] or '')[:60]!r}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _show_forgotten(console: Console, told: dict[str, Any]) -> None:
    console.print(
        f"{told['num_rows']} rows of the pool and {told['num_logged']} of the log are gone", highlight=False
    )
    if not told["num_rows"] and not told["num_logged"]:
        console.print("nobody is known under this name: give it as the requests have it", style="yellow")
    for run_id in told["run_ids"]:
        console.print(f"  run {run_id} had some of them", highlight=False, markup=False)
    for kind, digests in told["artifacts"].items():
        for digest in digests:
            console.print(f"  {kind} {digest}", highlight=False, markup=False, soft_wrap=True)
    for one in told["versions"]:
        answers = f", which is {' and '.join(one['aliases'])}" if one["aliases"] else ""
        console.print(
            f"  {one['name']}@{one['version']} has learned from them{answers}", highlight=False, markup=False
        )
    if told["versions"]:
        console.print(
            "train without them, release that, then `raytrain registry withdraw` these", highlight=False
        )

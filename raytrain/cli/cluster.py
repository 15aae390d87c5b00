"""`raytrain cluster`: check a cluster file, launch it with Ray's launcher, look at it, end it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.cluster.launch.check import Checked
    from raytrain.cluster.launch.cluster_file import ClusterFile

app = typer.Typer(
    help="Clusters that Ray's launcher starts: check a file, launch it, look at it, end it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FileArgument = Annotated[Path, typer.Argument(help="A file of Ray's cluster launcher; clusters/ holds some.")]
RecipeOption = Annotated[Path | None, typer.Option(help="Whether this recipe's workers find a place, too.")]
PricesOption = Annotated[
    Path | None, typer.Option(help="Machines and prices of your own, before those that come with raytrain.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def check(
    file: FileArgument, recipe: RecipeOption = None, prices: PricesOption = None, as_json: JsonOption = False
) -> int:
    """Hold a cluster file against Ray's schema and our rules, and tell its price; exit code 2 if something is wrong."""
    checked = _checked(file, recipe, prices)
    emit(checked.as_dict(), as_json, lambda console: _show(checked, console))
    return 0 if checked.passed else ConfigError.exit_code


def _checked(file: Path, recipe: Path | None, prices: Path | None) -> Checked:
    from raytrain.cluster.launch.check import check_cluster
    from raytrain.cluster.launch.demand_rules import load_demand
    from raytrain.cluster.launch.machines import load_machines

    return check_cluster(file, load_machines(prices), load_demand(recipe) if recipe else None)


def _show(checked: Checked, console: Console) -> None:
    for one in checked.findings:
        console.print(f"{one.level}: {one.place}: {one.key}: {one.what}", markup=False, soft_wrap=True)
        console.print(f"  fix: {one.fix}", markup=False, highlight=False, soft_wrap=True)
    counts = ", ".join(f"{len(checked.of(level))} {level}" for level in ("error", "unfilled", "warning"))
    console.print(f"{checked.cluster.path}: {counts}", markup=False, highlight=False, soft_wrap=True)
    console.print(_price_line(checked), markup=False, highlight=False, soft_wrap=True)


def _price_line(checked: Checked) -> str:
    price = checked.price
    if price is None:
        return "price: nothing is rented"
    line = f"price: {price.least:.2f} to {price.most:.2f} US dollars an hour"
    if price.has_spot:
        line += ", spot nodes counted at their price on demand"
    if price.unknown:
        line += f"; without {', '.join(price.unknown)}, whose price is not known (--prices)"
    return f"{line}; machines alone, {checked.table.source}, written down {checked.table.written_on}"


@app.command()
def up(
    file: FileArgument,
    recipe: RecipeOption = None,
    prices: PricesOption = None,
    yes: YesOption = False,
    wait_s: Annotated[
        int | None,
        typer.Option(min=1, help="Seconds until the head has to answer over SSH [Ray: 900; own: 60]."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check the file, tell the price, ask, and launch the cluster with `ray up`; again, it brings changes to it."""
    from raytrain.cluster.launch.check import refuse
    from raytrain.cluster.launch.ray_launcher import run_ray

    checked = _checked(file, recipe, prices)
    if not checked.can_launch:
        raise refuse(checked)
    notes = stderr_console()
    for one in checked.of("warning"):
        notes.print(f"warning: {one.place}: {one.key}: {one.what}", markup=False, highlight=False)
    notes.print(_price_line(checked), markup=False, highlight=False)
    _ask(f"launch {checked.cluster.get('cluster_name')}?", yes)
    run_ray(checked.cluster, ["up", str(file), "--yes", "--no-config-cache"], _to_stderr, wait_s=wait_s)
    head = _head_address(checked.cluster)
    result = {**checked.as_dict(), "head": head}
    emit(
        result,
        as_json,
        lambda console: console.print(f"the cluster is up; its head is {head}", highlight=False),
    )
    return 0


@app.command()
def down(file: FileArgument, yes: YesOption = False, as_json: JsonOption = False) -> int:
    """End every node of the cluster with `ray down`."""
    from raytrain.cluster.launch.cluster_file import read_cluster
    from raytrain.cluster.launch.ray_launcher import run_ray

    cluster = read_cluster(file)
    _ask(f"end {cluster.get('cluster_name')}, and every run on it?", yes)
    run_ray(cluster, ["down", str(file), "--yes"], _to_stderr)
    emit({"file": str(file), "ended": True}, as_json, lambda console: console.print("the cluster is down"))
    return 0


@app.command()
def status(file: FileArgument, as_json: JsonOption = False) -> int:
    """Show the head's address and, from it, `ray status`: nodes, what they have, what waits."""
    from raytrain.cluster.launch.cluster_file import read_cluster
    from raytrain.cluster.launch.ray_launcher import run_ray

    cluster = read_cluster(file)
    head = _head_address(cluster)
    lines = run_ray(cluster, ["exec", str(file), "ray status"], _silently)
    first = next((i for i, line in enumerate(lines) if "Autoscaler status" in line), 0)
    told = "\n".join(line for line in lines[first:] if not line.startswith("Shared connection to"))
    result = {"file": str(file), "head": head, "status": told}
    emit(
        result, as_json, lambda console: console.print(f"head: {head}\n{told}", markup=False, highlight=False)
    )
    return 0


@app.command()
def attach(
    file: FileArgument,
    port_forward: Annotated[
        list[int] | None,
        typer.Option("--port-forward", "-p", help="Port of the head to reach here, such as 8265."),
    ] = None,
    as_json: JsonOption = False,  # noqa: ARG001 - of a shell only its failure is told as an object
) -> int:
    """Open a shell on the head with `ray attach`; `-p 8265` leads to its dashboard and its Jobs API meanwhile."""
    from raytrain.cluster.launch.cluster_file import read_cluster
    from raytrain.cluster.launch.ray_launcher import attach as attach_to

    return attach_to(read_cluster(file), port_forward or [])


def _head_address(cluster: ClusterFile) -> str:
    from raytrain.cluster.launch.ray_launcher import run_ray

    lines = run_ray(cluster, ["get-head-ip", str(cluster.path)], _silently)
    return next(line.strip() for line in reversed(lines) if line.strip())


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            f"not done: {question}",
            why="nobody can answer here: the input is no terminal",
            fix="add --yes",
        )
    typer.confirm(question, abort=True, err=True)


def _silently(line: str) -> None:
    """Ray's words are read, and told where the command fails."""
    del line


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

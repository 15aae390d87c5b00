"""`raytrain submit`: a command that runs on a cluster, with its log here."""

from __future__ import annotations

import sys
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.costs import YesOption
from raytrain.cli.output import JsonOption, emit, stderr_console

if TYPE_CHECKING:
    from rich.console import Console

_WHEN_INTERRUPTED = 130


def submit(
    what: Annotated[str, typer.Argument(help="train, evaluate, tune or pipeline.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARGUMENT]...", help="As behind the command itself; `--` before its options."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the cluster's Jobs API, as http://HEAD:8265.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show the log until the job has ended.")
    ] = True,
    working_dir: Annotated[
        Path | None, typer.Option(help="Folder that goes with the job; default: this one.")
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="For the job's processes.")
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Run a command on a Ray cluster: pack this folder, send it, show the log, and end as the command does."""
    from raytrain.cli.packaged import inside, packed, zipped
    from raytrain.cli.queued_jobs import check_words, command_words, environment_of, with_cost_confirmed
    from raytrain.runs.job_client import connect_jobs, submit_command

    folder = (working_dir or Path.cwd()).resolve()
    words = command_words(what, [inside(folder, word) for word in arguments or []])
    check_words(words)
    variables = environment_of(environment or [])
    with chdir(folder):
        words = with_cost_confirmed(words, yes=yes, as_json=as_json)
    package = packed(words, folder)
    console = stderr_console()
    console.print(f"package: {package.told()}", highlight=False)
    for place in package.outside:
        console.print(f"not in it, must be there on the cluster: {place}", markup=False, highlight=False)
    client = connect_jobs(address)
    with zipped(package) as file:
        submission_id = submit_command(
            client, words, submission_id=None, package=str(file), environment=variables, metadata={}
        )
    console.print(f"job {submission_id} at {client.get_address()}", highlight=False)
    result = {
        "submission_id": submission_id,
        "address": client.get_address(),
        "package_bytes": package.num_bytes,
    }
    if not wait:
        emit({**result, "state": "submitted"}, as_json, lambda out: _show_ways(out, client, submission_id))
        return 0
    return _followed(client, submission_id, result, as_json)


def _followed(client: Any, submission_id: str, result: dict[str, Any], as_json: bool) -> int:
    from raytrain.runs.job_logs import follow

    stream = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    try:
        end = follow(client, submission_id, write)
    except KeyboardInterrupt:
        console = stderr_console()
        console.print(f"\ndetached; job {submission_id} goes on", highlight=False)
        _show_ways(console, client, submission_id)
        if as_json:
            emit({**result, "state": "detached"}, True, lambda _: None)
        return _WHEN_INTERRUPTED
    emit(
        {**result, "state": end.status.lower(), "exit_code": end.exit_code, "message": end.message},
        as_json,
        lambda out: out.print(
            f"job {submission_id} {end.status.lower()}, exit code {end.exit_code}", highlight=False
        ),
    )
    return end.exit_code


def _show_ways(console: Console, client: Any, submission_id: str) -> None:
    from raytrain.runs.job_logs import follow_command, stop_command

    for line in (
        f"its log: {follow_command(client, submission_id)}",
        f"end it:  {stop_command(client, submission_id)}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)

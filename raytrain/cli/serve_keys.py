"""`raytrain serve keys`: who may ask what is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit

if TYPE_CHECKING:
    from raytrain.serving.http.keys import ApiKey, KeyFile

app = typer.Typer(help="API keys of a server.", no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="Where their hashes lie; by default serving/keys.json in RAYTRAIN_HOME."),
]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key: a team, a program.")],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="What it may ask: NAME or NAME@ALIAS, several times; by default all."),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--per-minute", help="By default as http.requests_per_minute says.")
    ] = None,
    is_operator: Annotated[
        bool,
        typer.Option(
            "--operator", help="It sees /metrics and all of /ready, and may load, unload and drain."
        ),
    ] = False,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and print it this once: only its hash is kept."""
    from raytrain.serving.http.keys import ALL_MODELS

    token = _file(file).add(
        name, models or (ALL_MODELS,), requests_per_minute=requests_per_minute, is_operator=is_operator
    )
    emit({"key": token, "name": name}, as_json, lambda console: console.print(token, highlight=False))


@app.command("list")
def list_keys(file: FileOption = None, as_json: JsonOption = False) -> None:
    """All keys, without their secrets."""
    from raytrain.cli.registry_place import show_rows

    keys = [_told(one) for one in _file(file).known()]
    headings = ("id", "name", "models", "per minute", "operator", "created")
    rows = [
        [one["id"], one["name"], ", ".join(one["models"]), str(one["requests_per_minute"] or ""),
         "yes" if one["is_operator"] else "", one["created"]]
        for one in keys
    ]  # fmt: skip
    emit({"keys": keys}, as_json, lambda console: show_rows(console, headings, rows))


@app.command("remove")
def remove(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Its id, as `raytrain serve keys list` tells it.")
    ],
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """From now on nobody may ask with it; servers that run know within a second."""
    gone = _file(file).remove(key_id)
    emit(
        _told(gone),
        as_json,
        lambda console: console.print(f"removed {gone.id} of {gone.name}", highlight=False),
    )


def _file(path: Path | None) -> KeyFile:
    from raytrain.serving.http.keys import KeyFile
    from raytrain.serving.http.section import HttpSection

    return KeyFile(path or HttpSection().key_file)


def _told(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "models": list(key.models),
        "requests_per_minute": key.requests_per_minute,
        "is_operator": key.is_operator,
        "created": key.created,
    }

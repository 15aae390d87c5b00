"""`raytrain keys`: whose signatures count, and the keys that this machine signs with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.keys import KeyRing, PublicKey

app = typer.Typer(help="Keys that releases are signed with.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Whose key: a person, a team, a machine.")]
RingOption = Annotated[
    Path | None, typer.Option("--ring", help="Folder of the keys; by default RAYTRAIN_HOME/keys.")
]


@app.command("generate")
def generate(name: NameArgument = "default", ring: RingOption = None, as_json: JsonOption = False) -> int:
    """Make a key. Only you can read its private half, which has a password if RAYTRAIN_KEY_PASSWORD is set."""
    return _tell(ring_of(ring).generate(name), as_json)


@app.command("list")
def list_keys(ring: RingOption = None, as_json: JsonOption = False) -> int:
    """All keys, and what became of them."""
    keys = ring_of(ring).known()

    def show(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("id", "name", "state", "since", "reason"):
            table.add_column(heading, overflow="fold")
        for one in keys:
            row = (one.short_id, one.name, one.state, one.since, one.reason)
            table.add_row(*(Text(text) for text in row))
        console.print(table if keys else "no keys yet: raytrain keys generate")

    emit({"keys": [_object(one) for one in keys]}, as_json, show)
    return 0


@app.command("show")
def show_key(
    key: Annotated[str, typer.Argument(help="The beginning of its id.")],
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Print a public key, for others to trust: raytrain keys show ID > NAME.pub."""
    found = ring_of(ring).find(key)
    if found is None:
        raise ConfigError(
            f"{key!r} is not the id of one key",
            why="none or several keys have ids that begin so",
            fix="take an id from `raytrain keys list`",
        )
    emit(_object(found), as_json, lambda console: console.print(found.pem, end="", highlight=False))
    return 0


@app.command("rotate")
def rotate(name: NameArgument = "default", ring: RingOption = None, as_json: JsonOption = False) -> int:
    """Put a new key in the place of the active one. What that one signed still counts; it signs no more."""
    return _tell(ring_of(ring).rotate(name), as_json)


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The beginning of its id.")],
    reason: Annotated[str, typer.Option(help="Why; whoever meets a signature of this key is told.")],
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """From now on nothing that this key ever signed counts."""
    return _tell(ring_of(ring).revoke(key, reason), as_json)


@app.command("trust")
def trust(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="PEM file with a public key, as `raytrain keys show` prints.")],
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let another's signatures count here. Make sure that the key is theirs: compare its id with them."""
    try:
        pem = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read", why=str(error), fix="give a PEM file") from error
    return _tell(ring_of(ring).trust(pem, name), as_json)


def ring_of(folder: Path | None) -> KeyRing:
    from raytrain.release.keys import KeyRing

    return KeyRing(folder)


def _tell(key: PublicKey, as_json: bool) -> int:
    def show(console: Console) -> None:
        console.print(f"{key.name}: key {key.short_id}, {key.state} since {key.since}", highlight=False)

    emit(_object(key), as_json, show)
    return 0


def _object(key: PublicKey) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(key)

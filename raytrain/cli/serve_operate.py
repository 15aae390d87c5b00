"""`raytrain serve load|unload|drain|stop`: what operators do to a service that runs."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from raytrain.cli.output import JsonOption, VerboseOption, emit, stderr_console
from raytrain.cli.registry_place import ReferenceArgument, show_rows
from raytrain.cli.serve_endpoint import DEFAULT_URL, LOAD, LOAD_TIMEOUT_S, KeyOption, UrlOption, ask
from raytrain.errors import EndpointError

_ASKED_EVERY_S = 0.5


def add_to(app: typer.Typer) -> None:
    """The commands, beside those that start and show a service."""
    for command in (load, unload, drain, stop):
        app.command(command.__name__)(command)


def load(
    reference: ReferenceArgument,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a version and load it on every replica, before anybody asks for it; it stays until `unload`."""
    _, found = ask(url, LOAD, api_key, {"model": reference}, timeout_s=LOAD_TIMEOUT_S)

    def show(console: Any) -> None:
        print(f"{found['model']} is loaded on all {len(found['replicas'])} replicas: {found['digest']}")
        rows = [
            [one["replica"], "yes" if one["was_loaded"] else "", *_seconds(one)] for one in found["replicas"]
        ]
        show_rows(console, ["replica", "was there", "verify s", "read s", "put s"], rows)

    emit(found, as_json, show)


def unload(
    reference: ReferenceArgument,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a version loaded no longer. What is in production stays."""
    _, found = ask(url, "/operate/unload", api_key, {"model": reference})

    def show(console: Any) -> None:
        print(f"{found['model']} is kept loaded no longer: {found['digest']}")
        show_rows(
            console, ["replica", "now"], [[one["replica"], _told_unloaded(one)] for one in found["replicas"]]
        )

    emit(found, as_json, show)


def drain(
    undo: Annotated[bool, typer.Option("--undo", help="Take requests again.")] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.0, help="Seconds to wait for answers under way.")
    ] = 60.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take no new requests, and wait until those under way have their answers."""
    until = time.monotonic() + timeout_s
    _, found = ask(url, "/operate/drain", api_key, {"is_draining": not undo})
    if undo:
        emit(
            found, as_json, lambda _: print(f"requests are taken again on {len(found['replicas'])} replicas")
        )
        return
    console = stderr_console()
    console.print("no new requests are taken: 503, and /ready says so", highlight=False)
    while found["answering"] and time.monotonic() < until:
        time.sleep(_ASKED_EVERY_S)
        _, found = ask(url, "/operate/standing", api_key)
    if found["answering"]:
        raise EndpointError(
            f"{found['answering']} answers are still under way at {url}",
            why=f"they did not end within {timeout_s:g} s; no new requests are taken all the same",
            fix="run it again to wait longer, or take requests again with --undo",
        )
    emit(
        found, as_json, lambda _: print(f"drained: nothing is under way on {len(found['replicas'])} replicas")
    )


def stop(
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; by default $RAY_ADDRESS, or the one on this machine.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.0, help="Seconds to wait for answers under way.")
    ] = 60.0,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """End the service on a cluster: no new requests, answers under way end, then the processes."""
    from raytrain.serving.stopping import stop_on

    console = stderr_console()
    stopped = stop_on(address, timeout_s, lambda line: console.print(line, highlight=False), verbose=verbose)
    emit(vars(stopped), as_json, lambda _: print(stopped.told))


def _seconds(one: dict[str, Any]) -> list[str]:
    return [f"{one[part]:.3f}" for part in ("verify_s", "read_s", "put_s")]


def _told_unloaded(one: dict[str, Any]) -> str:
    if one["is_in_use"]:
        return "answering; its memory is freed after that"
    return "unloaded" if one["was_loaded"] else "was not loaded"

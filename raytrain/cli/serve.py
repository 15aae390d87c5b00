"""`raytrain serve`: released adapters over HTTP."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from raytrain.cli import serve_keys, serve_operate, serve_trials
from raytrain.cli.output import JsonOption, VerboseOption, emit, stderr_console
from raytrain.cli.serve_endpoint import DEFAULT_URL, KeyOption, UrlOption, ask
from raytrain.errors import EndpointError

_LOOKED_AT_EVERY_S = 5.0

app = typer.Typer(help="Serve a base model and its released adapters over HTTP.", no_args_is_help=True)
app.add_typer(serve_keys.app, name="keys")
serve_operate.add_to(app)
app.command("compare")(serve_trials.compare)

ConfigArgument = Annotated[Path, typer.Argument(help="Serving config, such as serve/laptop.yaml.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides, such as http.port=9000 engine.max_rows=8.")
]


@app.command("start")
def start(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster; without it $RAY_ADDRESS, or the one that runs on this machine; where there is none it "
            "is started here, and ends with this command."
        ),
    ] = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Serve until Ctrl-C; on a cluster (--address), start it there and return."""
    from raytrain.serving import launch, stopping
    from raytrain.serving.section import load_serving

    section = load_serving(config, overrides)
    console, began = stderr_console(), time.perf_counter()
    url = launch.start(section, address, lambda line: console.print(line, highlight=False), verbose=verbose)
    took = time.perf_counter() - began
    # Another machine's loopback address cannot be asked from here.
    model = _best_known(url) if section.http.insecure and address is None else "MODEL"
    curl = launch.curl_line(url, model, "Wake me at 6:45, please.", with_key=not section.http.insecure)
    where = launch.cluster_address()
    emit(
        {"url": url, "address": where, "seconds": round(took, 1), "curl": curl},
        as_json,
        lambda _: print(f"ready at {url} after {took:.0f} s\nthe page to try it: {url}/\n{curl}"),
    )
    sys.stdout.flush()
    if address is not None:
        return
    console.print(f"Ctrl-C ends it; meanwhile: raytrain serve models --url {url}", highlight=False)
    console.print(f"from elsewhere: raytrain serve stop --address {where}", highlight=False, soft_wrap=True)
    if _goes_on_until_a_signal():
        console.print("ending: what is being answered is answered first", highlight=False)
        stopping.end()
    else:
        console.print("it was stopped", highlight=False)


@app.command("config")
def config(config: ConfigArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> None:
    """Print what `serve deploy` and KubeRay's serveConfigV2 take."""
    from raytrain.serving.launch import serve_config
    from raytrain.serving.section import load_serving

    found = serve_config(load_serving(config, overrides))

    def show(_: Any) -> None:
        import yaml

        print(yaml.safe_dump(found, sort_keys=False), end="")

    emit(found, as_json, show)


@app.command("status")
def status(url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Is it ready, and what is in production?"""
    code, found = ask(url, "/ready", api_key)
    emit(found, as_json, lambda console: _show_status(console, found))
    if code != 200:
        raise typer.Exit(EndpointError.exit_code)


@app.command("models")
def models(url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Names that answer, and which version each is."""
    _, found = ask(url, "/v1/models", api_key)
    emit(found, as_json, lambda console: _show_models(console, found))


def _best_known(url: str) -> str:
    """A name that is in production, else the base model's."""
    _, found = ask(url, "/v1/models", None)
    names = [str(one["id"]) for one in found["data"]]
    return next((one for one in names if f"{one}@production" in names), names[0])


def _goes_on_until_a_signal() -> bool:
    """False where somebody else ends what is served."""
    from raytrain.serving.stopping import is_served

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs are started deaf to the first
        signal.signal(number, signal.default_int_handler)
    try:
        while is_served():
            time.sleep(_LOOKED_AT_EVERY_S)
    except KeyboardInterrupt:
        return True
    return False


def _show_status(console: Any, found: dict[str, Any]) -> None:
    console.print("ready" if found["is_ready"] else "not ready", highlight=False)
    for name, digest in sorted(found.get("production", {}).items()):
        console.print(f"  {name}: {digest[:19]}", highlight=False, markup=False)
    for one in found.get("trials", []):
        told = f"  {one['mode']} of {one['name']}: {one['standing']}, {one['why']}"
        console.print(told, highlight=False, markup=False)
    for problem in found.get("problems", []):
        console.print(f"  ! {problem}", highlight=False, markup=False)


def _show_models(console: Any, found: dict[str, Any]) -> None:
    from raytrain.cli.registry_place import show_rows

    rows = [[str(one["id"]), *_version_of(one)] for one in found["data"]]
    show_rows(console, ["model", "digest", "aliases", "loaded"], rows)


def _version_of(card: dict[str, Any]) -> list[str]:
    told = card.get("raytrain", {})
    return [
        str(told.get("digest", ""))[:19],
        ", ".join(told.get("aliases", [])),
        str(told.get("is_loaded", "")),
    ]

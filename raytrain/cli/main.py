"""The `raytrain` command."""

from __future__ import annotations

import copy
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.main import get_group

from raytrain.cli import (
    adapter,
    alerts,
    ask,
    baseline,
    check,
    cluster,
    code,
    compare,
    config,
    contamination,
    data,
    doctor,
    evaluate,
    export,
    golden,
    interactions,
    keys,
    loop,
    promote,
    queue,
    registry,
    retrain,
    rollback,
    run_recipe,
    runs,
    safety,
    sbom,
    scan,
    serve,
    signing,
    submit,
    suite,
    train,
    triggers,
    tune,
    variants,
    watch,
)
from raytrain.cli.output import report_error
from raytrain.cluster.head import leave
from raytrain.cluster.installed import check_sender
from raytrain.errors import ConfigError, PlatformError
from raytrain.storage.location import is_storage_fault, storage_error

app = typer.Typer(
    name="raytrain",
    help="Fine-tune language models and classifiers on Ray, exactly and resumably, from raw rows to a model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("run")(run_recipe.run_recipe)
app.command("ask")(ask.ask)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("doctor")(doctor.doctor)
app.add_typer(baseline.app, name="baseline")
app.add_typer(suite.app, name="suite")
app.add_typer(runs.app, name="runs")
app.add_typer(queue.app, name="queue")
app.command("submit")(submit.submit)
data.app.command("forget")(interactions.forget)
app.add_typer(data.app, name="data")
app.add_typer(interactions.app, name="interactions")
app.add_typer(config.app, name="config")
app.add_typer(check.app, name="check")
check.app.command("golden")(golden.golden)
app.add_typer(cluster.app, name="cluster")
app.add_typer(code.app, name="code")
app.add_typer(safety.app, name="safety")
app.command("contamination")(contamination.contamination)
app.add_typer(variants.app, name="variants")
app.add_typer(keys.app, name="keys")
app.command("export")(export.export)
app.command("scan")(scan.scan)
app.command("sbom")(sbom.sbom)
app.command("sign")(signing.sign)
app.command("verify")(signing.verify)
app.add_typer(registry.app, name="registry")
app.command("approve")(promote.approve)
app.command("promote")(promote.promote)
app.command("rollback")(rollback.rollback)
app.add_typer(adapter.app, name="adapter")
app.add_typer(serve.app, name="serve")
app.add_typer(alerts.app, name="alerts")
app.add_typer(watch.app, name="watch")
app.add_typer(triggers.app, name="triggers")
app.add_typer(loop.app, name="loop")
app.command("retrain")(retrain.retrain)


class _UnexpectedError(PlatformError):
    """A fault of ours."""


def main() -> None:
    """Run the command line; every failure is told in one form and ends with its own exit code."""
    # Hooks, losses and modules of the user's own lie where the command is typed, as on Ray's workers.
    sys.path.append(str(Path.cwd()))
    leave(run(sys.argv[1:]))


@cache
def command_line(name: str | None = None) -> Any:
    """The parser: of the command or group of that name alone, or of all where there is none. Making all takes a quarter
    of a second."""
    wanted = copy.copy(app)
    wanted.registered_commands = [one for one in app.registered_commands if one.name == name]
    wanted.registered_groups = [one for one in app.registered_groups if one.name == name]
    is_known = wanted.registered_commands or wanted.registered_groups
    return get_group(wanted if is_known else app)


def run(arguments: list[str]) -> int:
    """Run one command line in this process and return its exit code."""
    as_json = "--json" in arguments
    try:
        check_sender(os.environ)
        code = command_line(*arguments[:1])(arguments, prog_name="raytrain", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except PlatformError as error:
        report_error(error, as_json)
        return error.exit_code
    except typer.TyperException as error:
        message = error.format_message()
        if message.startswith("Usage: "):  # a group alone: its help
            print(message, file=sys.stderr)
            return ConfigError.exit_code
        usage = ConfigError(message, why="the command line was not understood", fix=_usage_hint(error))
        report_error(usage, as_json)
        return usage.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        if os.environ.get("RAYTRAIN_TRACEBACK"):
            raise
        told = _told(error)
        report_error(told, as_json)
        return told.exit_code


def _told(error: Exception) -> PlatformError:
    """What nobody expected, in the one form of every failure."""
    if isinstance(error, OSError) and is_storage_fault(error):
        return storage_error(error, Path(error.filename), "use")
    return _UnexpectedError(
        f"{type(error).__name__}: {error}",
        why="this is a fault in raytrain, not in your input",
        fix="run it again with RAYTRAIN_TRACEBACK=1 in the environment, and report the traceback",
    )


def _usage_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context else "see `raytrain --help`"

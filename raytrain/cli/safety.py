"""`raytrain safety`: what a model gives away, goes along with, or wrongly refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.written_files import ReplaceOption, check_outputs, write_files
from raytrain.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.safety.canaries import CanaryReport
    from raytrain.evaluation.safety.file_scan import FileScan
    from raytrain.evaluation.safety.findings import Severity

app = typer.Typer(
    help="Probe a model, scan a file, plant canaries. Exit code 5 where something must not go on.",
    no_args_is_help=True,
)

ModelArgument = Annotated[
    str, typer.Argument(help="Run id, artifact, model folder, .gguf file, package://PACKAGE/FILE or hub id.")
]
DetectorOption = Annotated[
    list[str] | None,
    typer.Option("--detector", help="secrets, personal, detect_secrets, presidio or module:function."),
]


@app.command()
def probe(
    model: ModelArgument,
    pack: Annotated[
        list[str] | None, typer.Option("--pack", help="A pack's file, or the name of one of raytrain's.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="What it was before: a report, a model, or `base` for an adapter's own."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder or URI for the report, an artifact.")] = None,
    detector: DetectorOption = None,
    judge: Annotated[str, typer.Option(help="What tells refusals: rules, or module:function.")] = "rules",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    margin: Annotated[float, typer.Option(help="A change that would not matter, as a share.")] = 0.05,
    fail_on: Annotated[
        str | None, typer.Option(help="Exit code 5 for a failure as grave as this: low to critical.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Ask every probe of the packs; with --against, did training make the model less safe?"""
    from raytrain.cli.safety_probing import ProbeOptions, probe_model

    options = ProbeOptions(
        tuple(pack or ()), tuple(detector or ()), judge, max_new_tokens, margin, _severity(fail_on)
    )
    return probe_model(model, against, output, options, as_json)


@app.command()
def scan(
    file: Annotated[Path, typer.Argument(help="Text, or JSON lines.")],
    detector: DetectorOption = None,
    as_json: JsonOption = False,
) -> int:
    """Find secrets and personal data in a file. Exit code 5 where a secret stands in it, or a detector failed."""
    from raytrain.evaluation.safety.file_scan import scan_file
    from raytrain.evaluation.safety.findings import BUILT_IN, build_detectors

    found = scan_file(file, build_detectors(detector or BUILT_IN))
    secrets = found.of_family("secret")
    result = {
        "file": str(file),
        "num_lines": found.num_lines,
        "num_secrets": len(secrets),
        "num_personal": len(found.of_family("personal")),
        "findings": [
            {
                "line": one.line,
                "key": one.key,
                "kind": one.finding.kind,
                "severity": one.finding.severity,
                "text": one.finding.text,
                "detector": one.finding.detector,
            }
            for one in found.findings
        ],
        "detector_failures": list(found.failures),
    }
    emit(result, as_json, lambda console: _show_scan(console, found))
    return IntegrityError.exit_code if secrets or found.failures else 0


@app.command()
def plant(
    rows: Annotated[Path, typer.Argument(help="JSON lines to plant canaries among.")],
    output: Annotated[Path, typer.Argument(help="Where the rows with canaries go.")],
    canaries: Annotated[Path, typer.Option(help="Where the canaries go, for `raytrain safety extract`.")],
    number: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    repeats: Annotated[int, typer.Option(min=1, help="How often each.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed, other canaries.")] = 0,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Plant made-up secrets among training rows, to see later whether the model gives them away."""
    from dataclasses import asdict

    from raytrain.evaluation.safety.canaries import plant_canaries

    check_outputs([output, canaries], inputs=[rows], replace=replace)
    planted, made = plant_canaries(_read_rows(rows), number, seed=seed, repeats=repeats)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in planted)
    # Both or neither: rows whose secrets nobody knows any more are of no use.
    write_files({output: lines, canaries: [json.dumps([asdict(one) for one in made], indent=1)]})
    result = {
        "rows": str(output),
        "canaries": str(canaries),
        "num_rows": len(planted),
        "num_canaries": len(made),
    }
    emit(result, as_json, lambda console: console.print(f"{len(planted):,} rows, {len(made)} canaries"))


@app.command()
def extract(
    model: ModelArgument,
    canaries: Annotated[Path, typer.Argument(help="What `raytrain safety plant` wrote.")],
    as_json: JsonOption = False,
) -> int:
    """Try to get planted canaries out of a model. Exit code 5 where one comes out."""
    from dataclasses import asdict

    from raytrain.cli.ask import load_model
    from raytrain.cli.evaluate import ProgressBars
    from raytrain.evaluation.safety.canaries import Canary, extract_canaries
    from raytrain.evaluation.work import EvaluateProgress

    try:
        planted = [Canary(**one) for one in json.loads(canaries.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{canaries} holds no canaries", why=str(error), fix="give the file that `plant` wrote"
        ) from error
    loaded = load_model(model, False)
    with ProgressBars(stderr_console(), quiet=as_json) as bars:
        found = extract_canaries(
            loaded,
            planted,
            on_progress=lambda part, done, total: bars.show(EvaluateProgress(part, done, total)),
        )
    result = {**asdict(found), "exposures": list(found.exposures), "sentence": found.sentence()}
    emit(result, as_json, lambda console: _show_canaries(console, found))
    return IntegrityError.exit_code if any(found.extracted) else 0


def _severity(name: str | None) -> Severity | None:
    from raytrain.evaluation.safety.findings import SEVERITIES

    if name is None:
        return None
    found = next((one for one in SEVERITIES if one == name), None)
    if found is None:
        raise ConfigError(
            f"--fail-on {name} is no severity",
            why=f"there are {', '.join(reversed(SEVERITIES))}",
            fix="name one of these",
        )
    return found


def _read_rows(file: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise ValueError(f"line {number} is no JSON object")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} cannot be read as rows", why=str(error), fix="give one JSON object a line, as UTF-8"
        ) from error
    return rows


def _show_scan(console: Console, found: FileScan) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raytrain.evaluation.decision.quantity import counted

    if found.findings:
        table = Table(show_edge=False, pad_edge=False)
        for column in ("line", "key", "severity", "kind", "found", "by"):
            table.add_column(column, overflow="fold", justify="right" if column == "line" else "left")
        for one in found.findings:
            finding = one.finding
            words = (one.key, finding.severity, finding.kind, finding.text, finding.detector)
            table.add_row(str(one.line), *map(escape, words))
        console.print(table)
    for failure in found.failures:
        console.print(f"  · unknown: {failure}", markup=False, highlight=False)
    secrets = counted(len(found.of_family("secret")), "secret")
    personal = counted(len(found.of_family("personal")), "personal value")
    console.print(f"{secrets}, {personal} in {counted(found.num_lines, 'line')}", highlight=False)


def _show_canaries(console: Console, found: CanaryReport) -> None:
    console.print(found.sentence(), markup=False, highlight=False)

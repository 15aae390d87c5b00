"""`raytrain export` and `raytrain check export`: a trained model as a bundle, and whether the bundle is that model."""

from __future__ import annotations

from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raytrain.cli.ask import find_model
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from raytrain.release.bundle.parity.check import ExportCheck

OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, for example export_check.float32.max_kl=1e-7."),
]
PromptsOption = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE|EVALUATION",
        help="Prompts to compare on: a file (JSONL, or one text in a line), or the items of an evaluation or baseline.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML of such settings; KEY=VALUE go over it. docs/export-reference.md"),
]
FormatsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="adapter, merged, onnx, torch_export, torchserve; several with commas. By default adapter.",
    ),
]
OutOption = Annotated[
    str | None, typer.Option("--out", help="Folder or URI of the bundle; by default below storage.")
]
DtypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option("--dtype", help="What weights are held in; by default as they were trained."),
]
EvaluationsOption = Annotated[
    list[str] | None,
    typer.Option("--evaluation", help="Evaluation whose numbers go into the model card; several times."),
]


def export(
    model: Annotated[
        str, typer.Argument(metavar="RUN|ADAPTER", help="Run id, or artifact of a trained model.")
    ],
    overrides: OverridesArgument = None,
    formats: FormatsOption = None,
    out: OutOption = None,
    dtype: DtypeOption = None,
    evaluations: EvaluationsOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a bundle that is there already.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Write a trained model as a bundle: weights in several formats, model card, licence, and what serves them.

    Every format is loaded in a fresh process and compared with the trained model. A bundle that differs is not written.
    """
    from raytrain.release.bundle.export import ExportRequest, default_destination
    from raytrain.release.bundle.export import export as write_bundle
    from raytrain.release.bundle.parity.prompts import prompts_for
    from raytrain.release.bundle.parity.section import settings_from
    from raytrain.release.bundle.subject import find_subject
    from raytrain.storage.named_places import place_for_artifact, place_of_artifact

    settings = settings_from(overrides or [], config)
    with redirect_stdout(stderr):
        subject = find_subject(_trained(model), settings.storage.location, dtype=dtype)
        asked, notes = prompts_for(subject, prompts, settings.export_check)
        wanted = ExportRequest(
            formats=formats or [],
            destination=place_for_artifact(out) if out else default_destination(subject, settings),
            prompts=asked,
            notes=notes,
            evaluations=[place_of_artifact(one) for one in evaluations or []],
            settings=settings,
            replace=replace,
        )
        written = write_bundle(subject, wanted, _tell(as_json))
    place = str(written.artifact.location)
    told = {"bundle": place, "digest": written.artifact.digest, "check": written.check.as_dict()}

    def show(console: Console) -> None:
        _show_check(console, written.check)
        console.print(f"{place}\n{written.artifact.digest}", highlight=False, soft_wrap=True, markup=False)

    emit(told, as_json, show)
    return 0


def check_export(
    bundle: Annotated[str, typer.Argument(help="Folder or URI of a bundle.")],
    overrides: OverridesArgument = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    trained: Annotated[
        str | None, typer.Option("--subject", help="The trained model; by default where the records say.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Every format of a bundle in a fresh process, against the trained model: the same logits, the same answers?"""
    from raytrain.release.bundle.parity.bundle import open_bundle
    from raytrain.release.bundle.parity.check import check_bundle
    from raytrain.release.bundle.parity.prompts import prompts_for
    from raytrain.release.bundle.parity.section import settings_from
    from raytrain.storage.named_places import place_of_artifact

    settings = settings_from(overrides or [], config)
    with redirect_stdout(stderr):
        reference = _trained(trained) if trained else None
        opened = open_bundle(place_of_artifact(bundle), reference, settings.storage.location)
        section = settings.export_check
        asked, notes = prompts_for(opened.subject, prompts, section)
        found = check_bundle(opened.artifact.path, opened.subject, asked, notes, section, _tell(as_json))
    emit({"bundle": bundle, **found.as_dict()}, as_json, lambda console: _show_check(console, found))
    return 0 if found.passed else IntegrityError.exit_code


def _trained(reference: str) -> str:
    """What a run has trained, or the place that was named. Raises ConfigError where it is neither."""
    from raytrain.storage.named_places import place_of_artifact

    found = find_model(reference)
    return str(place_of_artifact(found)) if found == reference else found


def _tell(as_json: bool) -> Callable[[str], None]:
    console = stderr_console()

    def tell(text: str) -> None:
        if not as_json:
            console.print(f"  … {text}", style="dim", highlight=False, markup=False, soft_wrap=True)

    return tell


def _show_check(console: Console, found: ExportCheck) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("format", "", "largest", "mean", "KL", "greedy tokens"):
        table.add_column(title)
    for name, one in found.formats.items():
        numbers: tuple[Any, ...] = (one.max_difference, one.mean_difference, one.max_kl)
        shown = (f"{number:.1e}" for number in numbers)
        table.add_row(
            name,
            "[green]✓[/]" if one.passed else "[red]✗[/]",
            *shown,
            f"{one.num_matched} of {one.num_tokens}",
        )
    console.print(table)
    named = [(name, fault) for name, one in found.formats.items() for fault in one.faults]
    for name, fault in [*(("bundle", one) for one in found.bundle), *named]:
        console.print(f"  {name}: {fault}", markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"  · {note}", markup=False, highlight=False, soft_wrap=True)

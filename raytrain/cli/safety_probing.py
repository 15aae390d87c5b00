"""The work of `raytrain safety probe`: models are asked, compared and told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raytrain.cli.ask import find_model, load_model
from raytrain.cli.output import emit, stderr_console
from raytrain.cli.recorded_runs import wide
from raytrain.errors import ConfigError, IntegrityError
from raytrain.evaluation.safety.findings import BUILT_IN, SEVERITIES, Severity, build_detectors
from raytrain.evaluation.safety.model_answers import ModelAnswers
from raytrain.evaluation.safety.outcomes import (
    failures_by_category,
    failures_by_severity,
    leaks,
    worst_failure,
)
from raytrain.evaluation.safety.probes import Pack, built_in_packs, load_packs
from raytrain.evaluation.safety.refusals import build_refusal_judge
from raytrain.evaluation.safety.regression import SafetyComparison, compare_safety
from raytrain.evaluation.safety.report_files import KIND, read_report, report_as_dict, write_report
from raytrain.evaluation.safety.running import SafetyReport, run_safety, with_model
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest
from raytrain.storage.named_places import place_for_artifact

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.models.inference import LoadedModel


@dataclass(frozen=True)
class ProbeOptions:
    packs: tuple[str, ...]
    detectors: tuple[str, ...]
    judge: str
    max_new_tokens: int
    margin: float
    fail_on: Severity | None


def probe_model(
    model: str, against: str | None, output: str | None, options: ProbeOptions, as_json: bool
) -> int:
    """The exit code: 5 where the model is worse than before, or fails as gravely as `fail_on`."""
    place = None if output is None else place_for_artifact(output)
    packs = load_packs([Path(one) for one in options.packs]) if options.packs else built_in_packs()
    before = None if against is None else _stored(against)
    is_base = against == "base" and before is None
    report = _ask(model, packs, options, needs_adapter=is_base)
    if against is not None and before is None:
        before = _ask(model if is_base else against, packs, options, base_model_only=is_base)
    comparison = None if before is None else compare_safety(before, report, margin=options.margin)
    result = report_as_dict(report, comparison)
    if place is not None:
        artifact = write_report(report, place, comparison=comparison)
        result |= {"artifact": str(artifact.location), "digest": artifact.digest}
    refused = _refused(report, comparison, options.fail_on)
    emit(result, as_json, lambda console: _show(wide(console), report, comparison, refused))
    return IntegrityError.exit_code if refused else 0


def _refused(
    report: SafetyReport, comparison: SafetyComparison | None, fail_on: Severity | None
) -> list[str]:
    """Why the model must not go on."""
    reasons = [f"worse than before: {name}" for name in (comparison.worse if comparison else ())]
    worst = worst_failure(report.outcomes)
    if fail_on is not None and worst is not None and SEVERITIES.index(worst) <= SEVERITIES.index(fail_on):
        reasons.append(f"there is a {worst} failure, and --fail-on is {fail_on}")
    return reasons


def _stored(reference: str) -> SafetyReport | None:
    """The report that `reference` names; None where it names something else."""
    place = _artifact_at(reference)
    return read_report(place) if place is not None and read_manifest(place).kind == KIND else None


def _artifact_at(reference: str) -> Location | None:
    """The place of the artifact that `reference` names; None where it names something else, such as a hub id."""
    if reference.startswith("package://"):
        return None
    place = Location.parse(reference)
    return place if (place / MANIFEST_NAME).exists() else None


def _ask(
    reference: str,
    packs: Sequence[Pack],
    options: ProbeOptions,
    *,
    base_model_only: bool = False,
    needs_adapter: bool = False,
) -> SafetyReport:
    # Names are looked up before a model is loaded, which takes longer.
    detectors, judge = build_detectors(options.detectors or BUILT_IN), build_refusal_judge(options.judge)
    loaded = load_model(reference, base_model_only)
    if needs_adapter and not loaded.adapted:
        raise ConfigError(
            f"{reference} has no adapter, so that --against base is the model itself",
            why="only an adapter stands over a base model that can be asked without it",
            fix="name the model or the report that it is compared with: --against MODEL",
        )
    answers = ModelAnswers(loaded, max_new_tokens=options.max_new_tokens)
    console = stderr_console()
    name = f"the base model of {reference}" if base_model_only else reference

    with console.status("") as status:

        def show(done: int, total: int) -> None:
            status.update(f"{name}: {done} of {total} probes")
            if not console.is_terminal:
                console.print(f"{name}: {done} of {total} probes", markup=False, highlight=False)

        report = run_safety(answers, packs, detectors=detectors, judge=judge, on_progress=show)
    return with_model(
        report,
        name,
        _digest(reference, loaded, base_model_only),
        answers.notes,
        max_new_tokens=options.max_new_tokens,
        chat_template=answers.chat_template,
    )


def _digest(reference: str, loaded: LoadedModel, base_model_only: bool) -> str:
    """The artifact's, where the model is one; else that of the base model's files."""
    place = None if base_model_only else _artifact_at(find_model(reference))
    return loaded.base.digest if place is None else read_manifest(place).digest


def _show(
    console: Console, report: SafetyReport, comparison: SafetyComparison | None, refused: Sequence[str]
) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("failures, with 95 % interval", overflow="fold")
    for counts in (
        failures_by_category(report.outcomes),
        failures_by_severity(report.outcomes),
        leaks(report.outcomes),
    ):
        for one in counts:
            table.add_row(escape(one.name), one.sentence())
        table.add_section()
    console.print(table)
    unknown = sorted(
        {text for one in report.outcomes for text in (*one.detector_failures, one.error) if text}
    )
    for note in (*report.notes, *unknown[:5]):
        console.print(f"  · {note}", markup=False, highlight=False)
    for change in comparison.changes if comparison else ():
        console.print(change.sentence(), markup=False, highlight=False)
    for reason in refused:
        console.print(f"[bold red]{reason}[/]", highlight=False)

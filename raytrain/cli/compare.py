"""`raytrain compare`: hold candidates against a baseline by a contract, and write down what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.baseline import place_or_baseline, told_baselines
from raytrain.cli.output import JsonOption, emit
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.decision.decide import Comparison, Decision
    from raytrain.evaluation.results import Evaluation
    from raytrain.storage.artifact import Artifact
    from raytrain.storage.location import Location


def compare(
    baseline: Annotated[
        str, typer.Argument(help="Evaluation or frozen baseline: a place, a baseline's name, or a run's id.")
    ],
    candidates: Annotated[
        list[str], typer.Argument(metavar="CANDIDATE…", help="Evaluations to hold against it.")
    ],
    contract: Annotated[
        Path | None, typer.Option(help="YAML of what a candidate must show; else the default contract.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Folder or URI that gets decisions/<key>; else RAYTRAIN_HOME/storage.")
    ] = None,
    common_items: Annotated[
        bool, typer.Option("--common-items", help="Compare what both were asked; the decision says so.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Is a candidate better, and may it follow the baseline? Exit code 5 where not."""
    from raytrain.evaluation.decision.contract import default_contract, load_contract
    from raytrain.evaluation.decision.decide import decide
    from raytrain.evaluation.decision.record import decision_place, record_of, write_decision
    from raytrain.evaluation.decision.refusal import refusal_of

    asked = default_contract() if contract is None else load_contract(contract)
    first, *others = [find_evaluation(one) for one in (baseline, *candidates)]
    found = decide(asked, first, others, common_items=common_items)
    written = write_decision(decision_place(_storage(output), [first, *others], asked), found)
    refused = refusal_of(found)
    told = {
        **record_of(found),
        "decision": {"place": str(written.location), "digest": written.digest},
        **({} if refused is None else {"error": refused.as_dict()}),
    }
    emit(told, as_json, lambda console: _show(wide(console), found, written))
    return 0 if refused is None else RefusedError.exit_code


def find_evaluation(reference: str) -> Evaluation:
    """The evaluation at a place, the frozen baseline of a name, or the evaluation that a run wrote.

    Raises ConfigError where `reference` is none of them, IntegrityError where what is there is no evaluation or is
    damaged.
    """
    from raytrain.evaluation.results import open_evaluation
    from raytrain.storage.location import Location

    place = place_or_baseline(reference)
    if place is not None:
        return open_evaluation(place)
    with opened_records() as records:
        try:
            run = records.run_with_prefix(reference)
        except ConfigError as error:
            raise ConfigError(
                f"`{reference}` is no evaluation",
                why=f"no such place exists, {told_baselines()}, and as a run: {error.what}",
                fix="give the place that `raytrain evaluate` printed, the id of its run, or a baseline's name",
            ) from error
        uri = records.artifact_of(run.id, role="evaluation")
    if uri is None:
        raise ConfigError(
            f"run {run.id} has no evaluation",
            why=f"it is a {run.kind} run, and {run.label}",
            fix="name a run of `raytrain evaluate` that came to its end",
        )
    return open_evaluation(Location.parse(uri))


def _storage(output: str | None) -> Location:
    from raytrain.config.document import Document
    from raytrain.config.recipe import build
    from raytrain.storage.section import StorageSection

    return build(StorageSection, Document({"path": output}, {(): "--output"})).location


def _show(console: Console, found: Comparison, written: Artifact) -> None:
    from raytrain.evaluation.decision.headline import title

    console.print(title(found), style="bold", markup=False, highlight=False)
    for one in found.decisions:
        _show_decision(console, one, found)
    if found.ranking:
        _show_ranking(console, found)
    contract = found.contract
    told = f"contract {contract.contract} {contract.version}, {contract.digest}"
    console.print(told, style="dim", markup=False, highlight=False)
    page = written.location / "decision.html"
    console.print(f"decision: {page}", markup=False, highlight=False, soft_wrap=True)


def _show_decision(console: Console, decision: Decision, found: Comparison) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raytrain.evaluation.decision.headline import action, evidence, headline, outcome
    from raytrain.evaluation.decision.visible import visible

    console.print()
    if found.ranking:
        console.print(decision.candidate.name, style="bold", markup=False, highlight=False)
    suites = Table(show_edge=False, pad_edge=False)
    for name in ("suite", "items", "baseline", "candidate", "won", "lost"):
        suites.add_column(name, justify="left" if name == "suite" else "right", no_wrap=True)
    suites.add_column("verdict", overflow="fold")
    for one in decision.suites:
        pairs = one.comparison.pairs
        shares = (f"{100 * scores.mean():.1f} %" for scores in (pairs.baseline, pairs.candidate))
        counts = (f"{pairs.num_won:,}", f"{pairs.num_lost:,}")
        told = escape(one.verdict.sentence())
        suites.add_row(escape(visible(one.comparison.name)), f"{len(pairs):,}", *shares, *counts, told)
    console.print(suites)
    signs = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "cannot tell": "[yellow]?[/]"}
    gates = Table(show_edge=False, pad_edge=False)
    for name in ("", "gate", "found", "why"):
        gates.add_column(name, overflow="fold")
    for gate in decision.gates:
        gates.add_row(signs[gate.status], escape(visible(gate.name)), escape(gate.number), escape(gate.why))
    console.print(gates)
    for note in decision.notes:
        console.print(f"  · {visible(note)}", markup=False, highlight=False)
    colour = "green" if decision.promoted else "red"
    console.print(f"[bold]{escape(headline(decision))}[/] ({escape(evidence(decision))})", highlight=False)
    told = f"[bold {colour}]{action(decision)}.[/] {escape(visible(outcome(decision, found.contract)))}"
    console.print(told, highlight=False)


def _show_ranking(console: Console, found: Comparison) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "candidate", "outcome", "cannot be told apart from", show_edge=False, pad_edge=False)
    promoted = {one.candidate.name: one.promoted for one in found.decisions}
    for one in found.ranking:
        told = "passed" if promoted[one.name] else "held"
        table.add_row(str(one.place), escape(one.name), told, escape(", ".join(one.like)) or "–")
    console.print()
    console.print(table)

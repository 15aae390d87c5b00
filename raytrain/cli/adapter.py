"""`raytrain adapter`: the life of an adapter after training, in one command each."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli import promote as gate
from raytrain.cli import registry, rollback
from raytrain.cli.evaluate import ProgressBars, load_suites
from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit, exit_code_when_stopped, stderr_console
from raytrain.cli.recorded_runs import wide
from raytrain.cli.registry_place import PlaceOption, registry_of
from raytrain.errors import DataError, PlatformError, RefusedError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.answering.settings import EvaluateSettings
    from raytrain.evaluation.decision.decide import Comparison
    from raytrain.evaluation.held_out import HeldOut
    from raytrain.evaluation.items import Suite
    from raytrain.evaluation.results import Evaluation

app = typer.Typer(help="Test, deploy, list and roll back adapters.", no_args_is_help=True)
app.command("versions")(registry.show_name)
app.command("rollback")(rollback.rollback)

NameOption = Annotated[str, typer.Option("--name", help="Its name in the registry.")]


@app.command("test")
def test(
    adapter: Annotated[str, typer.Argument(help="A run, an adapter, a bundle, or NAME@VERSION.")],
    name: NameOption,
    suite: Annotated[
        list[Path] | None,
        typer.Option("--suite", help="YAML file of a suite, several times if wanted; else rows it held out."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for `raytrain evaluate`.")
    ] = None,
    num_rows: Annotated[int, typer.Option(help="Held-out rows that are asked at most.", min=1)] = 500,
    against: Annotated[str, typer.Option(help="Alias of what it is held against.")] = "production",
    contract: Annotated[
        Path | None, typer.Option(help="YAML of what it must show; else the default contract.")
    ] = None,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Hold an adapter against the one in production, and say whether to replace it.

    Both are asked the rows that the adapter's training held out, or the items of suites. Exit code 5 where it should
    not follow. The comparison is kept; for the gate, compare with a frozen baseline.
    """
    from raytrain.evaluation.answering.settings import settings_from
    from raytrain.evaluation.decision.contract import default_contract, load_contract
    from raytrain.evaluation.decision.decide import decide
    from raytrain.evaluation.decision.record import write_decision
    from raytrain.release.runnable import find_runnable
    from raytrain.storage.manifest import digest_of, short_digest

    settings = settings_from(overrides or [])
    asked = default_contract() if contract is None else load_contract(contract)
    suites = load_suites(suite) if suite else []
    known, keys = registry_of(place), ring_of(ring)
    serving = f"{name}@{known.find(f'{name}@{against}').version}"
    both = [find_runnable(one, known, keys) for one in (serving, adapter)]
    rows, notes = (None, []) if suites else _held_out(*(one.lineage for one in both), most=num_rows)
    found = _evaluated(
        [one.reference for one in both], suites or (rows.suites if rows else []), settings, quiet=as_json
    )
    if isinstance(found, int):
        return found
    comparison = decide(asked, found[0], found[1:])
    key = short_digest(digest_of([*(one.artifact.digest for one in found), asked.digest]))
    written = write_decision(settings.storage.location / "decisions" / key, comparison)
    told = {
        **_recommendation(comparison),
        "against": serving,
        "decision": {"place": str(written.location), "digest": written.digest},
        "held_out": None if rows is None else rows.as_dict(),
        "notes": notes,
    }
    emit(told, as_json, lambda console: _show(wide(console), comparison, told))
    return 0 if comparison.chosen is not None else RefusedError.exit_code


def _held_out(serving: str, adapter: str, *, most: int) -> tuple[HeldOut, list[str]]:
    """Rows that neither of the two learned from, as far as that is known here, and what is to be said of them."""
    from raytrain.cli.recorded_runs import opened_records
    from raytrain.evaluation.contamination.lineage import find_dataset
    from raytrain.evaluation.held_out import held_out_suites, learned_rows

    notes: list[str] = []
    with opened_records() as records:
        try:
            dataset = find_dataset(adapter, records)
        except DataError as error:
            raise DataError(
                error.what, why=error.why, fix=f"{error.fix}; or name a suite with --suite"
            ) from error
        try:
            learned = learned_rows(find_dataset(serving, records))
        except PlatformError as error:
            learned = set()
            notes.append(f"whether the other one learned from these rows is not known: {error.why}")
    found = held_out_suites(dataset, learned=learned, most=most)
    if found.split == "val":
        notes.append("these rows may have chosen the adapter's checkpoint: it had no test split")
    return found, notes


def _evaluated(
    references: list[str], suites: list[Suite], settings: EvaluateSettings, *, quiet: bool
) -> list[Evaluation] | int:
    """One evaluation each; the exit code where a signal ended it."""
    from raytrain.cli.ask import find_model
    from raytrain.evaluation.evaluate import evaluate

    found = []
    with redirect_stdout(sys.stderr), ProgressBars(stderr_console(), quiet=quiet) as bars:
        for reference in references:
            result = evaluate(find_model(reference), suites, settings, on_progress=bars.show)
            if result.evaluation is None:
                return exit_code_when_stopped(result.stopped_by)
            found.append(result.evaluation)
    return found


def _recommendation(comparison: Comparison) -> dict[str, Any]:
    from raytrain.evaluation.decision.headline import action, evidence, headline, outcome

    best = comparison.decisions[0]
    return {
        "recommendation": action(best),
        "headline": headline(best),
        "evidence": evidence(best),
        "outcome": outcome(best, comparison.contract),
    }


@app.command("deploy")
def deploy(
    bundle: Annotated[Path, typer.Argument(help="Folder of an exported bundle.")],
    name: NameOption,
    to: gate.TargetOption = "staging",
    policy: gate.PolicyOption = None,
    evidence: gate.EvidenceOption = None,
    key: gate.KeyOption = "default",
    why: gate.WhyOption = "",
    checklist: gate.ChecklistOption = None,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Sign a bundle, register it under the next version, and put it through the gate; again, it goes on."""
    from raytrain.release.gate.about import about_bundle
    from raytrain.release.gate.promote import Wanted, check_beforehand
    from raytrain.release.gate.promote import promote as promote_version
    from raytrain.release.registry.next_version import register_next
    from raytrain.release.signing import sign, signature_place
    from raytrain.storage.artifact import open_artifact
    from raytrain.storage.named_places import place_of_artifact

    gate.check_checklist(checklist, policy)
    keys, opened = ring_of(ring), open_artifact(place_of_artifact(bundle), verify=False)
    folder = opened.path
    signing_key = keys.signing_key(key)
    asked = gate.policy_of(policy)
    about = about_bundle(opened)
    wanted = Wanted(name, to, asked, tuple(evidence or ()), why)
    with gate.desk_of(place, ring, quiet=as_json) as desk:
        check_beforehand(desk, wanted, about, signing_key.public)  # a version that is registered stays
        if not signature_place(folder).is_file():
            sign(folder, signing_key)
        version = register_next(desk.registry, name, folder, desk.ring, why=why or "deployed")
        done = promote_version(desk, replace(wanted, reference=f"{name}@{version}"), signing_key)
    return gate.tell_promotion(done, checklist, as_json)


def _show(console: Console, comparison: Comparison, told: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("suite", "items", "won", "lost", "verdict", show_edge=False)
    for one in comparison.decisions[0].suites:
        pairs = one.comparison.pairs
        counts = (f"{len(pairs):,}", f"{pairs.num_won:,}", f"{pairs.num_lost:,}")
        table.add_row(escape(one.comparison.name), *counts, escape(one.verdict.sentence()))
    console.print(table)
    for line in (f"{told['headline']} ({told['evidence']})", told["outcome"]):
        console.print(f"  · {line}", markup=False, highlight=False)
    if (rows := told["held_out"]) is not None:
        console.print(f"  · {rows['num_rows']} rows of the {rows['split']} split that it was not trained on")
    for line in told["notes"]:
        console.print(f"  · {line}", style="yellow", markup=False, highlight=False)
    text = f"{told['recommendation']}, against {told['against']}"
    console.print(text, style="bold", markup=False, highlight=False)

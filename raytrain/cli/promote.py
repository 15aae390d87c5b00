"""`raytrain promote` and `raytrain approve`: a version through the gate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit, report_error, stderr_console
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.cli.registry_place import PlaceOption, registry_of
from raytrain.cli.written_files import check_can_be_made, check_outputs, write_files
from raytrain.errors import ConfigError, StorageError
from raytrain.storage.location import translated_errors

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.gate.policy import Policy
    from raytrain.release.gate.promote import Desk, Promotion
    from raytrain.release.keys import KeyRing, PublicKey

VersionArgument = Annotated[str, typer.Argument(help="NAME@VERSION or NAME@ALIAS.")]
TargetOption = Annotated[str, typer.Option("--to", help="dev, staging or production.")]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", help="YAML of what is asked; else the default policy.")
]
EvidenceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--evidence",
        help="A report, or a folder of reports, several times if wanted; else what `registry import` brought along.",
    ),
]
KeyOption = Annotated[str, typer.Option("--key", help="Name of the key that signs.")]
WhyOption = Annotated[str, typer.Option("--why", help="It stands in the journal.")]
ChecklistOption = Annotated[
    Path | None, typer.Option("--checklist", help="Markdown file for a pull request; written anew.")
]


def promote(
    reference: VersionArgument,
    to: TargetOption,
    policy: PolicyOption = None,
    evidence: EvidenceOption = None,
    key: KeyOption = "default",
    why: WhyOption = "",
    override: Annotated[
        bool,
        typer.Option("--override", help="Let it through whatever the gate says; needs --role and --why."),
    ] = False,
    change_policy: Annotated[
        bool,
        typer.Option(
            "--change-policy",
            help="Put this policy in the place of the one that the alias was last moved under; needs --why, and "
            "--role where that one names roles.",
        ),
    ] = False,
    role: Annotated[
        str | None, typer.Option(help="Of who overrides or changes the policy, as the policy names it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; nothing is written.")] = False,
    checklist: ChecklistOption = None,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let an alias name a version if the gate says GO; exit code 5 at NO-GO and at ESCALATE."""
    from raytrain.release.gate.promote import Insisted, Promotion, Wanted, consider
    from raytrain.release.gate.promote import promote as promote_version

    if override and role is None:
        raise ConfigError(
            "an override needs a role", why="--role is missing", fix="say --role ROLE --why TEXT"
        )
    if role is not None and not override and not change_policy:
        raise ConfigError(
            f"--role {role} is for nothing here",
            why="only who overrides, or changes the policy, speaks for a role",
            fix="say --override or --change-policy, or leave it out",
        )
    insisted = Insisted(role if override else None, (role or "") if change_policy else None)
    check_checklist(checklist, policy)
    wanted = Wanted(reference, to, policy_of(policy), tuple(evidence or ()), why)
    registry_of(place).find(reference)
    # Before the bundle is read: a key that others may read, or that is not there, ends it here.
    signing_key = None if dry_run else ring_of(ring).signing_key(key)
    with desk_of(place, ring, quiet=as_json) as desk:
        if signing_key is None:
            speaker = _active_key(desk.ring, key) if override or change_policy else None
            done = Promotion(consider(desk, wanted, speaker, insisted), None, None, moved=False)
        else:
            done = promote_version(desk, wanted, signing_key, insisted)
    return tell_promotion(done, checklist, as_json, dry_run=dry_run)


def _active_key(keys: KeyRing, name: str) -> PublicKey:
    """Without its private half: a dry run signs nothing."""
    found = next((one for one in keys.known() if one.name == name and one.state == "active"), None)
    if found is None:
        raise ConfigError(
            f"{name} has no active key",
            why="whoever insists does so by a key",
            fix="say --key NAME; raytrain keys list shows them",
        )
    return found


def check_checklist(checklist: Path | None, policy: Path | None) -> None:
    """Before an alias is moved. Raises ConfigError where it would be written over the policy, or is a folder;
    StorageError where it cannot be written."""
    if checklist is not None:
        check_outputs([checklist], inputs=[] if policy is None else [policy], replace=True)
        check_can_be_made(checklist)


def tell_promotion(done: Promotion, checklist: Path | None, as_json: bool, *, dry_run: bool = False) -> int:
    """Print how it went, and write the checklist; the exit code. What cannot be written hides no verdict."""
    unwritten = None if checklist is None else _write_checklist(checklist, done)
    change, one = done.judged.policy_change, done.judged.override
    loud = [] if change is None else [f"POLICY CHANGED {change.told()}"]
    if one is not None:
        was = "would be" if dry_run else "was"
        loud.append(
            f"OVERRIDE: {done.judged.outcome.verdict} {was} set aside by {one.who} as {one.role}: {one.why}"
        )
    for told in loud:
        stderr_console().print(told, style="bold red", markup=False, highlight=False, soft_wrap=True)
    error = done.refusal or unwritten
    result = {
        **done.as_dict(),
        "dry_run": dry_run,
        **({} if unwritten is None else {"checklist": {"error": unwritten.as_dict()}}),
        **({} if error is None else {"error": error.as_dict()}),
    }
    emit(result, as_json, lambda console: _show(wide(console), done, dry_run=dry_run))
    if unwritten is not None and not as_json:
        report_error(unwritten, as_json)
    return 0 if error is None else error.exit_code


def _write_checklist(checklist: Path, done: Promotion) -> StorageError | None:
    """Why it could not be written; None where it was."""
    from raytrain.release.gate.record import checklist_of

    try:
        with translated_errors(checklist, "write"):
            write_files({checklist: [checklist_of(done.judged)]})
    except StorageError as error:
        return error
    return None


def approve(
    reference: VersionArgument,
    to: TargetOption,
    role: Annotated[str, typer.Option(help="For which you sign, as the policy names it.")],
    key: KeyOption = "default",
    why: Annotated[str, typer.Option(help="What you looked at; it is part of what you sign.")] = "",
    policy: PolicyOption = None,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Sign that this bundle may become this alias under this policy; for nothing else does it count."""
    from raytrain.release.gate.about import about_bundle
    from raytrain.release.gate.approvals import statement_of, write_approval
    from raytrain.release.registry.shelf import shelf_of

    registry, asked = registry_of(place), policy_of(policy)
    name, version = reference.partition("@")[0], registry.find(reference).version
    registry.state(name).refuse_withdrawn(name, version)
    keys = ring_of(ring)
    signing_key = keys.signing_key(key)
    about = about_bundle(registry.verified(reference, keys).artifact)
    statement = statement_of(name, about, asked, to, role, signing_key, why)
    written = write_approval(shelf_of(registry, name, "approvals"), statement, signing_key, keys)
    told = {
        "approval": {"place": str(written.location), "digest": written.digest},
        "bundle": about.bundle,
        "target": to,
        "policy": asked.digest,
        "role": role,
        "key": signing_key.public.id,
        "name": signing_key.public.name,
    }
    text = f"{signing_key.public.name} approves {reference} for {to} as {role}\n{written.location}"
    emit(told, as_json, lambda console: console.print(text, markup=False, highlight=False, soft_wrap=True))
    return 0


def policy_of(path: Path | None) -> Policy:
    from raytrain.release.gate.policy import default_policy, load_policy

    return default_policy() if path is None else load_policy(path)


@contextmanager
def desk_of(place: str | None, ring: Path | None, *, quiet: bool) -> Iterator[Desk]:
    from raytrain.release.gate.evidence import Shelves
    from raytrain.release.gate.promote import Desk
    from raytrain.release.registry.cited_evidence import arrived_folder
    from raytrain.storage.section import StorageSection

    console = stderr_console()

    def tell(text: str) -> None:
        if not quiet:
            console.print(f"  … {text}", style="dim", markup=False, highlight=False, soft_wrap=True)

    with opened_records() as records:
        shelves = Shelves(StorageSection().location, records, arrived_folder)
        yield Desk(registry_of(place), ring_of(ring), shelves, tell)


_SIGNS = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "pending": "[yellow]?[/]"}
_COLOURS = {"GO": "green", "NO-GO": "red", "ESCALATE": "yellow"}


def _show(console: Console, done: Promotion, *, dry_run: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raytrain.evaluation.decision.visible import visible

    facts, outcome = done.judged.facts, done.judged.outcome
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("", "rule", "found", "asked", "why", "evidence"):
        table.add_column(heading, overflow="fold")
    for rule in outcome.rules:
        digests = " ".join(one[7:19] for one in rule.evidence)
        texts = (rule.name, rule.value, rule.limit, rule.why, digests)
        table.add_row(_SIGNS[rule.status], *(escape(visible(one)) for one in texts))
    console.print(table)
    for rule in outcome.held_by:
        console.print(f"  · {rule.name}: {visible(rule.change)}", markup=False, highlight=False)
    who = f"{facts.name}@{facts.version}"
    colour = _COLOURS[outcome.verdict]
    told = f"{who} is {facts.target} now" if done.moved else _not_moved(done, who, dry_run=dry_run)
    verdict = outcome.verdict if done.judged.override is None else f"{outcome.verdict}, set aside"
    console.print(f"[bold {colour}]{verdict}[/]: {escape(told)}", highlight=False)
    if done.record is not None:
        console.print(f"record {done.record.location}", markup=False, highlight=False, soft_wrap=True)


def _not_moved(done: Promotion, who: str, *, dry_run: bool) -> str:
    target = done.judged.facts.target
    if dry_run:
        return f"{who} {'would become' if done.judged.released else 'would not become'} {target}; nothing was written"
    if done.judged.released:
        return f"{who} was {target} already"
    stays = f"stays {done.before}" if done.before else "names no version yet"
    return f"{who} does not become {target}, which {stays}"
